"""Random crops and mirrors, from random numbers that `EpochDraw` derives from (seed, epoch): any process may prepare
an image, and an interrupted run continues with the images that it would have seen.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...preprocess import Preprocessing
from ..recipe import Recipe

__all__ = ["Augmentation", "EpochDraw", "augment", "is_mirrored", "random_offsets"]

# The decision that each of an image's random numbers controls.
_AREA, _SHAPE, _X, _Y, _MIRROR, _N_DRAWS = range(6)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Settings of crops and mirroring; the fields other than `size` are those of `Recipe`."""

    size: int
    """Height and width of the result in pixels."""
    crop: Literal["random_resized", "random", "center"]
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    crop_pad: int = 0
    hflip: bool = False

    @classmethod
    def of(cls, recipe: Recipe, preprocessing: Preprocessing) -> Augmentation:
        """Take the settings of a recipe, for crops of the network's input size."""
        return cls(
            size=preprocessing.crop_size, crop=recipe.crop, crop_scale=recipe.crop_scale, crop_ratio=recipe.crop_ratio,
            crop_pad=recipe.crop_pad, hflip=recipe.hflip,
        )  # fmt: skip


@dataclass(frozen=True)
class EpochDraw:
    """The random numbers of an epoch, drawn on first use; the same seed and epoch give the same numbers.

    Example:
        >>> draw = EpochDraw(5, seed=0, epoch=1)
        >>> draw.order
        array([0, 2, 4, 1, 3])
        >>> draw.batch(0, 2)[0]
        array([0, 2])
    """

    n_images: int
    """Images of the set, and places in the epoch."""
    seed: int
    """Seed of the run."""
    epoch: int
    """Number of the epoch, from 0."""
    balance: NDArray[np.int64] | None = None
    """Labels of all images, shape (n_images,), to draw each class equally often instead of each image once."""

    @functools.cached_property
    def _drawn(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, self.epoch]))
        order = generator.permutation(self.n_images)
        numbers = generator.random((self.n_images, _N_DRAWS), dtype=np.float32)
        return order if self.balance is None else _balanced(order, self.balance, generator), numbers

    @property
    def order(self) -> NDArray[np.int64]:
        """Positions of the images in the order to take them, shape (n_images,)."""
        return self._drawn[0]

    @property
    def numbers(self) -> NDArray[np.float32]:
        """0 to 1, one row for every place in the order, shape (n_images, 5)."""
        return self._drawn[1]

    def batch(
        self, step: int, batch_size: int, share: tuple[int, int] = (0, 1)
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the positions and numbers of one step; `share` is one of how many processes, from 0."""
        rows = slice(step * batch_size + share[0], (step + 1) * batch_size, share[1])
        return self.order[rows], self.numbers[rows]

    def generator(self) -> np.random.Generator:
        """Return a generator of the same seed and epoch, for images that are not chosen by position."""
        return self._stream(0, 0)

    def stream_numbers(self, step: int, batch_size: int, share: tuple[int, int] = (0, 1)) -> NDArray[np.float32]:
        """Draw the numbers of one step alone, in memory that does not depend on `n_images`; arguments as in `batch`."""
        numbers = self._stream(1, step).random((batch_size, _N_DRAWS), dtype=np.float32)
        return numbers[share[0] :: share[1]]

    def _stream(self, purpose: int, step: int) -> np.random.Generator:
        # Epochs stay far below 2^32, and a step needs far fewer than the 2^64 blocks between two counters.
        key = [self.seed, self.epoch + (purpose + 1 << 32)]
        return np.random.Generator(np.random.Philox(key=key, counter=[0, step, 0, 0]))


def _balanced(order: NDArray[np.int64], labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Take the same number of images of each class from a shuffled order, again from the start where they run out."""
    members = [order[labels[order] == label] for label in np.unique(labels)]
    counts = np.full(len(members), len(order) // len(members))
    counts[: len(order) % len(members)] += 1
    drawn = np.concatenate([np.resize(rows, count) for rows, count in zip(members, counts, strict=True)])
    return generator.permutation(drawn)


_Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]


def augment(images: _Images, numbers: NDArray[np.float32], augmentation: Augmentation) -> Tensor:
    """Crop and mirror a batch, each image by its row of `EpochDraw.numbers`.

    Returns:
        Pixels, shape (n, size, size, 3), uint8.
    """
    size = augmentation.size
    batch = np.empty((len(images), size, size, 3), dtype=np.uint8)
    if augmentation.crop == "center":
        for row, image in enumerate(images):
            batch[row] = image
    elif augmentation.crop == "random":
        _random_crops(images, numbers, augmentation, batch)
    else:
        _random_resized_crops(images, numbers, augmentation, batch)
    mirrored = is_mirrored(numbers, augmentation)
    batch[mirrored] = batch[mirrored, :, ::-1]
    return torch.from_numpy(batch)


def random_offsets(
    shapes: NDArray[np.int64], numbers: NDArray[np.float32], augmentation: Augmentation
) -> NDArray[np.int64]:
    """Place random crops: first row and column in the image, negative in the black border, shape (n, 2).

    `shapes` are height and width of each image, shape (n, 2), or of all, shape (2,).
    """
    pad = augmentation.crop_pad
    places = (shapes + 2 * pad - augmentation.size + 1).astype(np.float32)
    offsets: NDArray[np.int64] = (numbers[:, [_Y, _X]] * places).astype(np.int64) - pad
    return offsets


def is_mirrored(numbers: NDArray[np.float32], augmentation: Augmentation) -> NDArray[np.bool_]:
    """Choose the images to mirror, shape (n,)."""
    return (numbers[:, _MIRROR] < 0.5) & augmentation.hflip


def _random_crops(
    images: _Images, numbers: NDArray[np.float32], augmentation: Augmentation, batch: NDArray[np.uint8]
) -> None:
    size = augmentation.size
    batch[...] = 0
    shapes = np.array([image.shape[:2] for image in images]).reshape(-1, 2)
    for row, (image, (top, left)) in enumerate(zip(images, random_offsets(shapes, numbers, augmentation), strict=True)):
        seen = image[max(top, 0) : top + size, max(left, 0) : left + size]
        y, x = max(-top, 0), max(-left, 0)
        batch[row, y : y + seen.shape[0], x : x + seen.shape[1]] = seen


def _random_resized_crops(
    images: _Images, numbers: NDArray[np.float32], augmentation: Augmentation, batch: NDArray[np.uint8]
) -> None:
    size = (augmentation.size, augmentation.size)
    smallest, largest = augmentation.crop_scale
    narrowest, widest = np.log(augmentation.crop_ratio)
    areas = smallest + numbers[:, _AREA] * (largest - smallest)
    ratios = np.exp(narrowest + numbers[:, _SHAPE] * (widest - narrowest))
    for row, image in enumerate(images):
        height, width = image.shape[:2]
        area = float(areas[row]) * height * width
        # A shape that does not fit is cut to the image instead of drawn again.
        crop_width = min(width, max(1, round((area * float(ratios[row])) ** 0.5)))
        crop_height = min(height, max(1, round((area / float(ratios[row])) ** 0.5)))
        top = int(numbers[row, _Y] * (height - crop_height + 1))
        left = int(numbers[row, _X] * (width - crop_width + 1))
        crop_HWC = torch.from_numpy(image[top : top + crop_height, left : left + crop_width])
        # torch scales uint8 with antialiasing in half the time that Pillow takes.
        scaled = F.interpolate(crop_HWC.permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
        batch[row] = scaled[0].permute(1, 2, 0).numpy()
