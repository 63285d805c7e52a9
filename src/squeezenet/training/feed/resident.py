"""Small sets of images of one size that stay in the GPU's memory; the pixels are those of `HostBatchMaker`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .augment import Augmentation, is_mirrored, random_offsets
from .batches import Batch, HostBatchMaker, TrainBatches

__all__ = ["DeviceBatchMaker", "move_to_device"]

MAX_BYTES = 4_000_000_000
"""Pixels that may be kept on the device, black borders included."""


def move_to_device(batches: TrainBatches, device: torch.device) -> TrainBatches | None:
    """Move a set to the device; None if its images differ in size, are not in memory, or are too many."""
    maker = batches.make
    assert isinstance(maker, HostBatchMaker)
    arrays, augmentation = maker.arrays, maker.augmentation
    if arrays is None or augmentation.crop == "random_resized" or len({array.shape for array in arrays}) != 1:
        return None
    pad = augmentation.crop_pad if augmentation.crop == "random" else 0
    height, width = arrays[0].shape[:2]
    if len(arrays) * (height + 2 * pad) * (width + 2 * pad) * 3 > MAX_BYTES:
        return None
    padded = F.pad(torch.from_numpy(np.stack(arrays)).to(device), (0, 0, pad, pad, pad, pad))
    return TrainBatches(batches.images, DeviceBatchMaker(padded, maker.labels, augmentation), batches.unreadable)


@dataclass(frozen=True)
class DeviceBatchMaker:
    """Makes batches on the device."""

    padded: Tensor
    """All images with the black border that random crops reach into, shape (n, H, W, 3), uint8."""
    labels: NDArray[np.int64]
    """Shape (n,)."""
    augmentation: Augmentation

    def __call__(self, indices: NDArray[np.int64], numbers: NDArray[np.float32]) -> Batch:
        """Make one batch."""
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
