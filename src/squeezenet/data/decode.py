"""Decode many images in threads: in batches for evaluation, or once into memory for training.

Evaluation sees exactly what `Preprocessing` returns. For training, `decode_for_crops` keeps the whole image at a
reduced size, so that crops can vary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..images import reading
from ..preprocess import Preprocessing
from ..process import usable_cores
from .imageset import ImageSet

__all__ = ["DecodedBatch", "Unreadable", "decode_all", "decode_batches", "decode_for_crops", "thread_pool"]

_CHUNK = 256

MAX_ASPECT = 8
"""Largest aspect ratio that is kept; scaling up the short side of a thin strip would otherwise take gigabytes."""

View = Callable[[bytes], NDArray[np.uint8]]
"""Function from encoded bytes to pixels, shape (H, W, 3)."""


class Unreadable(NamedTuple):
    """An image that was skipped, and why."""

    name: str
    reason: str


class DecodedBatch(NamedTuple):
    """Some images of a set, decoded."""

    tried: range
    """Positions in the set that this batch covers."""
    indices: NDArray[np.int64]
    """Positions of the readable images in the set, shape (n,)."""
    pixels: NDArray[np.uint8]
    """Shape (n, crop_size, crop_size, 3), RGB."""
    unreadable: list[Unreadable]
    """The images of `tried` that are not in `indices`, in order."""


def decode_for_crops(data: bytes, short_side: int, *, enlarge: bool = False) -> NDArray[np.uint8]:
    """Decode a whole image, upright, no larger than needed to take crops from.

    Args:
        data: Encoded bytes.
        short_side: Size in pixels that larger images are scaled down to.
        enlarge: Scale smaller ones up to it; otherwise they stay as they are.

    Returns:
        Pixels, shape (H, W, 3), uint8, RGB. The ends of a side longer than `MAX_ASPECT` times the other are not used.

    Raises:
        ImageError: If the image cannot be read.
    """

    def draft(image: Image.Image) -> None:
        # JPEG decodes at a half, quarter or eighth of its size in a fraction of the time.
        short = max(1, min(image.size))
        image.draft(None, (short_side * image.width // short, short_side * image.height // short))

    with reading(data, draft=draft) as decoded:
        upright = decoded.rgb()
        short = min(upright.size)
        if max(upright.size) > MAX_ASPECT * short:
            width, height = (min(side, MAX_ASPECT * short) for side in upright.size)
            left, top = (upright.width - width) // 2, (upright.height - height) // 2
            upright = upright.crop((left, top, left + width, top + height))
        if short > short_side or (enlarge and short < short_side):
            width, height = (max(1, short_side * side // short) for side in upright.size)
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
        return np.array(upright)  # Pillow's own buffer is read-only, which torch does not take


def _decode(
    images: ImageSet, view: View, batch_size: int
) -> Iterator[tuple[range, list[NDArray[np.uint8] | Unreadable]]]:
    """Decode a whole set, in order, some images at once."""

    def decode(index: int) -> NDArray[np.uint8] | Unreadable:
        try:
            return view(images.read(index))
        except ImageError as error:
            return Unreadable(images.items[index].name, error.reason)

    with thread_pool() as pool:
        for start in range(0, len(images), batch_size):
            tried = range(start, min(start + batch_size, len(images)))
            yield tried, list(pool.map(decode, tried))


def decode_batches(images: ImageSet, preprocessing: Preprocessing, *, batch_size: int = 64) -> Iterator[DecodedBatch]:
    """Decode a whole set, batch by batch, in order; unreadable images are skipped and reported.

    Args:
        images: The set.
        preprocessing: The network's geometry.
        batch_size: Images tried per batch; a batch may come back smaller, even empty.
    """
    size = preprocessing.crop_size
    for tried, results in _decode(images, preprocessing, batch_size):
        good = [index for index, result in zip(tried, results, strict=True) if not isinstance(result, Unreadable)]
        yield DecodedBatch(
            tried=tried,
            indices=np.array(good, dtype=np.int64),
            pixels=np.array([results[index - tried.start] for index in good], np.uint8).reshape(-1, size, size, 3),
            unreadable=[result for result in results if isinstance(result, Unreadable)],
        )


def decode_all(
    images: ImageSet, view: View, *, on_progress: Callable[[int, int], None] | None = None
) -> tuple[list[int], list[NDArray[np.uint8]], list[Unreadable]]:
    """Decode a whole set into memory.

    Args:
        images: The set.
        view: What to keep of each image.
        on_progress: Called now and then with the number done and the number of all.

    Returns:
        Positions of the readable images, their pixels, and what was skipped.
    """
    kept: dict[int, NDArray[np.uint8]] = {}
    unreadable: list[Unreadable] = []
    for tried, results in _decode(images, view, _CHUNK):
        for index, result in zip(tried, results, strict=True):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                kept[index] = result
        if on_progress:
            on_progress(tried.stop, len(images))
    return list(kept), list(kept.values()), unreadable


def thread_pool() -> ThreadPoolExecutor:
    """Start decoding threads, one per core that this process may use."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
