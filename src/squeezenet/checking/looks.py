"""Measures of a photo for the checks: a small grey copy, its size, contrast and sharpness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["LOOK_SIZE", "Look", "look_at"]

LOOK_SIZE = 64
_SHARPNESS_SIDE = 256


class Look(NamedTuple):
    """Measures of a whole photo, including parts that the crop removes."""

    grey: NDArray[np.uint8]
    """The whole photo squeezed to `LOOK_SIZE` pixels a side, (64, 64)."""
    width: int
    """Width of the stored photo, upright, pixels."""
    height: int
    contrast: float
    """Standard deviation of the small photo's greys, 0 to 127."""
    sharpness: float
    """Variance of the Laplacian with a short side of at most 256 pixels."""


def look_at(image: Image.Image) -> Look:
    """Measure a photo, RGB and upright."""
    grey = image.convert("L")
    width, height = grey.size
    small = np.asarray(grey.resize((LOOK_SIZE, LOOK_SIZE), Image.Resampling.BOX))
    if min(width, height) > _SHARPNESS_SIDE:
        scale = _SHARPNESS_SIDE / min(width, height)
        grey = grey.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX)
    x = np.asarray(grey, np.float32)
    inner = x[1:-1, 1:-1]
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * inner
    return Look(small, width, height, float(small.std()), float(laplacian.var()) if laplacian.size else 0.0)
