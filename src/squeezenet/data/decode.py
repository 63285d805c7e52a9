"""Decode many images: in batches for evaluation, or once into memory for training.

Evaluation sees exactly what `Preprocessing` gives. Training may see more of the image than the centre crop, so that
crops can vary: `decode_for_crops` keeps the whole image at a reduced size. Decoding runs in threads, since Pillow
releases the interpreter lock while it works. No torch here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..preprocess import Preprocessing, load_image
from ..process import usable_cores
from .imageset import ImageSet

__all__ = [
    "DecodedBatch",
    "Unreadable",
    "decode_all",
    "decode_batches",
    "decode_for_crops",
    "decode_views",
    "thread_pool",
]

MAX_ASPECT = 8
"""A strip one pixel high would otherwise become gigabytes when its short side is scaled up."""

View = Callable[[bytes], NDArray[np.uint8]]
"""From encoded bytes to pixels, shape (H, W, 3)."""


class Unreadable(NamedTuple):
    """An image that was skipped, and why."""

    name: str
    reason: str


class DecodedBatch(NamedTuple):
    """Some images of a set, decoded."""

    tried: range
    """Positions in the set that this batch covers."""
    indices: NDArray[np.int64]
    """Positions in the set, shape (n,); unreadable images are missing."""
    pixels: NDArray[np.uint8]
    """Shape (n, crop_size, crop_size, 3), RGB."""
    unreadable: list[Unreadable]
    """Those of `tried` that are not in `indices`, in order."""


def decode_for_crops(data: bytes, short_side: int, *, enlarge: bool = False) -> NDArray[np.uint8]:
    """Decode a whole image, upright, no larger than needed to take crops from.

    Args:
        data: Encoded bytes.
        short_side: Size in pixels that larger images are scaled down to.
        enlarge: Scale smaller ones up to it; otherwise they stay as they are.

    Returns:
        Pixels, shape (H, W, 3), uint8, RGB. The ends of a side longer than `MAX_ASPECT` times the other are cut off.

    Raises:
        ImageError: If the image cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `load_image` says what is wrong, as an error
        try:
            image: Image.Image | bytes = Image.open(io.BytesIO(data), formats=["JPEG"])
        except Exception:
            image = data
    if isinstance(image, Image.Image):
        # JPEG decodes at a half, quarter or eighth of its size in a fraction of the time.
        short = max(1, min(image.size))
        image.draft(None, (short_side * image.width // short, short_side * image.height // short))
    upright = load_image(image)
    short = min(upright.size)
    if max(upright.size) > MAX_ASPECT * short:
        width, height = (min(side, MAX_ASPECT * short) for side in upright.size)
        left, top = (upright.width - width) // 2, (upright.height - height) // 2
        upright = upright.crop((left, top, left + width, top + height))
    if short > short_side or (enlarge and short < short_side):
        width, height = (max(1, short_side * side // short) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(upright)  # Pillow's own buffer is read-only, which torch does not take


def decode_views(
    images: ImageSet, view: View, indices: Iterable[int], pool: ThreadPoolExecutor
) -> list[NDArray[np.uint8] | Unreadable]:
    """Decode some images at once, in the order given."""

    def decode(index: int) -> NDArray[np.uint8] | Unreadable:
        try:
            return view(images.read(index))
        except ImageError as error:
            return Unreadable(images.items[index].name, error.reason)

    with warnings.catch_warnings():
        # `load_image` silences warnings for its own thread's sake, but the filters belong to the process: without
        # this, threads would put each other's filters back in the wrong order.
        warnings.simplefilter("ignore")
        return list(pool.map(decode, indices))


def decode_batches(images: ImageSet, preprocessing: Preprocessing, *, batch_size: int = 64) -> Iterator[DecodedBatch]:
    """Decode a whole set, batch by batch, in order; an unreadable image is reported and left out.

    Args:
        images: The set.
        preprocessing: The network's geometry.
        batch_size: Images tried per batch; a batch may come back smaller, even empty.
    """
    with thread_pool() as pool:
        for start in range(0, len(images), batch_size):
            tried = range(start, min(start + batch_size, len(images)))
            results = decode_views(images, preprocessing, tried, pool)
            good = [(index, result) for index, result in zip(tried, results, strict=True) if _is_pixels(result)]
            size = preprocessing.crop_size
            pixels = np.empty((len(good), size, size, 3), dtype=np.uint8)
            for row, (_, result) in enumerate(good):
                pixels[row] = result
            yield DecodedBatch(
                tried=tried,
                indices=np.array([index for index, _ in good], dtype=np.int64),
                pixels=pixels,
                unreadable=[result for result in results if isinstance(result, Unreadable)],
            )


def decode_all(
    images: ImageSet,
    view: View,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], list[NDArray[np.uint8]], list[Unreadable]]:
    """Decode a whole set into memory.

    Args:
        images: The set.
        view: What to keep of each image.
        on_progress: Called now and then with the number done and the number of all.

    Returns:
        Positions of the readable images, their pixels, and what was skipped.
    """
    kept: list[int] = []
    arrays: list[NDArray[np.uint8]] = []
    unreadable: list[Unreadable] = []
    with thread_pool() as pool:
        for start in range(0, len(images), _CHUNK):
            tried = range(start, min(start + _CHUNK, len(images)))
            for index, result in zip(tried, decode_views(images, view, tried, pool), strict=True):
                if isinstance(result, Unreadable):
                    unreadable.append(result)
                else:
                    kept.append(index)
                    arrays.append(result)
            if on_progress:
                on_progress(tried.stop, len(images))
    return kept, arrays, unreadable


_CHUNK = 256


def thread_pool() -> ThreadPoolExecutor:
    """Start decoding threads, one per core that this process may use."""
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")


def _is_pixels(result: NDArray[np.uint8] | Unreadable) -> bool:
    return not isinstance(result, Unreadable)
