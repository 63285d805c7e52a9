"""Small sets that stay where the network is: batches cut out of one tensor in the GPU's memory.

Use this when all images of a set are equally large and fit on the device; the pixels are those of `TrainBatches`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .augment import is_mirrored, random_offsets
from .batches import Batch, TrainBatches

__all__ = ["ResidentBatches"]

MAX_BYTES = 4_000_000_000
"""Pixels that may be kept on the device, black borders included."""


@dataclass(frozen=True)
class ResidentBatches(TrainBatches):
    """Batches for training, made on the device."""

    padded: Tensor = torch.empty(0)
    """All images with the black border that random crops reach into, shape (n, H, W, 3), uint8."""

    @classmethod
    def of(cls, batches: TrainBatches, device: torch.device) -> ResidentBatches | None:
        """Move a set to the device; None if its images differ in size, are not in memory, or are too many.

        Args:
            batches: The set; its crops are `random` or `center`.
            device: Where the network is.
        """
        arrays, augmentation = batches.arrays, batches.augmentation
        if arrays is None or augmentation.crop == "random_resized" or len({array.shape for array in arrays}) != 1:
            return None
        pad = augmentation.crop_pad if augmentation.crop == "random" else 0
        height, width = arrays[0].shape[:2]
        if len(arrays) * (height + 2 * pad) * (width + 2 * pad) * 3 > MAX_BYTES:
            return None
        pixels = torch.from_numpy(np.stack(arrays)).to(device)
        padded = F.pad(pixels, (0, 0, pad, pad, pad, pad))
        return cls(batches.images, augmentation, batches.view, arrays, batches.unreadable, padded=padded)

    def batch(self, key: tuple[NDArray[np.int64], NDArray[np.float32]]) -> Batch:
        """Make one batch of the images and random numbers that `EpochDraw.batch` gives."""
        indices, numbers = key
        size = self.augmentation.size
        steps = np.arange(size)
        rows = np.broadcast_to(steps, (len(indices), size))
        columns = np.where(is_mirrored(numbers, self.augmentation)[:, None], steps[::-1], steps)
        if self.augmentation.crop == "random":
            pad = self.augmentation.crop_pad
            shape = np.array(self.padded.shape[1:3]) - 2 * pad
            offsets = random_offsets(shape, numbers, self.augmentation) + pad
            rows, columns = rows + offsets[:, :1], columns + offsets[:, 1:]
        images, y, x = (torch.from_numpy(places.copy()).to(self.padded.device) for places in (indices, rows, columns))
        pixels = self.padded[images[:, None, None], y[:, :, None], x[:, None, :]]
        return Batch(pixels, torch.from_numpy(self.labels[indices]), [])
