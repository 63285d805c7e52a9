"""The input of distillation: endless batches of pixels from a few hundred photos or from a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["Epoch", "Lessons", "augmented_photos", "epoch_batches", "photo_batches"]

Epoch = Callable[[int], Iterable[Tensor]]
"""Function from the number of an epoch to its batches: pixels (n, H, W, 3), uint8, augmented."""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """A data set to distil on, and the length of the distillation."""

    epoch: Epoch
    steps: int
    """Total number of batches to train on."""
    held_out: NDArray[np.uint8] | None = None
    """Photos of the set that are not in any epoch, (n, H, W, 3), to measure generalisation."""


_VARIANTS = 8  # crops and flips of each photo, the photo itself among them
_SMALLEST_CROP = 0.6  # side of the smallest crop, as a share of the photo's
_BATCH = 16


def augmented_photos(photos: Tensor, *, seed: int) -> Tensor:
    """Make crops and flips of photos (N, H, W, 3), uint8: eight of each, the photos themselves first."""
    generator = torch.Generator().manual_seed(seed)
    side = photos.shape[1]
    versions = [photos]
    for _ in range(_VARIANTS - 1):
        version = torch.empty_like(photos)
        for index, photo in enumerate(photos):
            size, top, left, flip = torch.rand(4, generator=generator).tolist()
            kept = max(1, round(side * (_SMALLEST_CROP + (1 - _SMALLEST_CROP) * size)))
            top, left = int(top * (side - kept + 1)), int(left * (side - kept + 1))
            crop = photo[top : top + kept, left : left + kept].permute(2, 0, 1)[None].float()
            resized = functional.interpolate(crop, (side, side), mode="bilinear", align_corners=False, antialias=True)
            image = resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
            version[index] = image.flip(1) if flip < 0.5 else image
        versions.append(version)
    return torch.cat(versions)


def photo_batches(photos: Tensor, *, seed: int, batch: int = _BATCH) -> Iterator[Tensor]:
    """Yield endless batches of photos (M, H, W, 3), shuffled again after each pass."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(photos), generator=generator)
        for start in range(0, max(1, len(photos) - batch + 1), batch):
            yield photos[order[start : start + batch]]


def epoch_batches(epoch: Epoch) -> Iterator[Tensor]:
    """Yield the batches of endless epochs of a data set; ends if an epoch is empty."""
    number = 0
    while True:
        is_empty = True
        for pixels in epoch(number):
            if len(pixels):
                is_empty = False
                yield pixels
        if is_empty:
            return
        number += 1
