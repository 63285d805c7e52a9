"""Feeding the training loop: small sets from memory, large ones through `DataLoader` workers that decode them again
every epoch; both return the same pixels for the same `EpochDraw`.
"""

from __future__ import annotations

import functools
import itertools
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...data.check import refuse_unreadable
from ...data.decode import MAX_ASPECT, Unreadable, View, decode_all, decode_batches, decode_for_crops
from ...data.imageset import ImageSet
from ...errors import ImageError
from ...preprocess import Preprocessing
from ...process import usable_cores
from ..recipe import Recipe
from .augment import Augmentation, EpochDraw, augment

__all__ = ["CACHE_BYTES", "Batch", "HostBatchMaker", "TrainBatches", "ValBatches", "view_for"]

CACHE_BYTES = 1_500_000_000
"""Decoded pixels that may be kept in memory."""

_MAX_WORKERS = 16


class Batch(NamedTuple):
    """Images and labels of one training step."""

    pixels: Tensor
    """Shape (n, size, size, 3), uint8; n is smaller than the batch size where images are unreadable."""
    labels: Tensor
    """Shape (n,), int64."""
    unreadable: list[Unreadable]


BatchMaker = Callable[[NDArray[np.int64], NDArray[np.float32]], Batch]
"""Makes a batch of the positions and the random numbers that `EpochDraw.batch` returns."""


@dataclass(frozen=True)
class HostBatchMaker:
    """Makes batches in this process's memory, from decoded images or from files."""

    images: ImageSet
    augmentation: Augmentation
    view: View
    arrays: Sequence[NDArray[np.uint8]] | None
    """Decoded images, in the order of `images`, if they are kept in memory."""

    @functools.cached_property
    def labels(self) -> NDArray[np.int64]:
        """Classes of all images, shape (n,)."""
        return np.array(self.images.labels, dtype=np.int64)

    def __call__(self, indices: NDArray[np.int64], numbers: NDArray[np.float32]) -> Batch:
        """Make one batch; unreadable images are left out and named."""
        good, arrays, unreadable = [], [], []
        for row, index in enumerate(indices):
            try:
                arrays.append(self.arrays[index] if self.arrays is not None else self.view(self.images.read(index)))
                good.append(row)
            except ImageError as error:
                unreadable.append(Unreadable(self.images.items[index].name, error.reason))
        labels = torch.from_numpy(self.labels[indices[good]])
        return Batch(augment(arrays, numbers[good], self.augmentation), labels, unreadable)


@dataclass(frozen=True)
class TrainBatches:
    """Batches for training, from memory or from files."""

    images: ImageSet
    """Readable images only, as far as that is known."""
    make: BatchMaker
    unreadable: tuple[Unreadable, ...] = ()
    """Files that turned out to be broken when they were decoded."""
    n_workers: int = 0
    """Processes that make batches; 0 for this one."""

    @classmethod
    def open(
        cls, images: ImageSet, sizes: NDArray[np.int64], augmentation: Augmentation, preprocessing: Preprocessing, *,
        cache_bytes: int = CACHE_BYTES, n_workers: int | None = None, n_processes: int = 1, feeds_gpu: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> TrainBatches:  # fmt: skip
        """Decode the set into memory if it fits, else prepare to stream it.

        Args:
            images: The set, checked.
            sizes: Width and height of each image as stored, shape (n, 2), from `check_data`.
            augmentation: What training does to the images.
            preprocessing: The network's; its `resize_size` is the scale that crops are taken from.
            cache_bytes: Decoded pixels that may be kept in memory.
            n_workers: Processes that prepare batches; by default one per core for what is not kept or goes to a GPU.
            n_processes: Training processes that share this machine's cores.
            feeds_gpu: Whether the network is on a GPU, which one process cannot keep busy.
            on_progress: Called while decoding with the number of images done and of all.

        Raises:
            DataError: If too many images are unreadable.
        """
        view = view_for(augmentation, preprocessing)
        is_kept = _decoded_bytes(sizes, augmentation, preprocessing) <= cache_bytes
        if n_workers is None:
            n_workers = 0 if is_kept and not feeds_gpu else min(max(usable_cores() // n_processes, 1), _MAX_WORKERS)
        if not is_kept:
            return cls(images, HostBatchMaker(images, augmentation, view, None), n_workers=n_workers)
        kept, arrays, unreadable = decode_all(images, view, on_progress=on_progress)
        refuse_unreadable(unreadable, len(images))
        known_good = images.subset(kept) if unreadable else images
        return cls(known_good, HostBatchMaker(known_good, augmentation, view, arrays), tuple(unreadable), n_workers)

    @property
    def n_images(self) -> int:
        """Images in an epoch."""
        return len(self.images)

    def draw(self, recipe: Recipe, epoch: int) -> EpochDraw:
        """Draw an epoch, counted from 0."""
        balance = np.array(self.images.labels, dtype=np.int64) if recipe.sampling == "balanced" else None
        return EpochDraw(self.n_images, recipe.seed, epoch, balance)

    def epoch(
        self, draw: EpochDraw, *, batch_size: int, first_step: int, n_steps: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Make the batches of the steps from `first_step` up to `n_steps`, or one process's share of each."""
        keys = [draw.batch(step, batch_size, share) for step in range(first_step, n_steps)]
        if not self.n_workers:
            return itertools.starmap(self.make, keys)
        # A batch is one item to the DataLoader: workers decode and augment whole batches.
        return iter(
            DataLoader(
                _BatchDataset(self.make), batch_size=None, sampler=keys, num_workers=self.n_workers,
                worker_init_fn=_start_worker, pin_memory=torch.cuda.is_available(),
            )
        )  # fmt: skip


@dataclass
class _BatchDataset(Dataset[Batch]):
    make: BatchMaker

    def __getitem__(self, key: tuple[NDArray[np.int64], NDArray[np.float32]]) -> Batch:
        return self.make(*key)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    warnings.simplefilter("ignore")  # bad images are reported as errors


def view_for(augmentation: Augmentation, preprocessing: Preprocessing) -> View:
    """Choose what to keep of each image when it is decoded."""
    if augmentation.crop == "center":
        return preprocessing
    return functools.partial(
        decode_for_crops, short_side=preprocessing.resize_size, enlarge=augmentation.crop == "random"
    )


def _decoded_bytes(sizes: NDArray[np.int64], augmentation: Augmentation, preprocessing: Preprocessing) -> int:
    if augmentation.crop == "center":
        return len(sizes) * preprocessing.crop_size**2 * 3
    short = sizes.min(axis=1, initial=1 << 30).clip(1).astype(np.float64)
    scale = preprocessing.resize_size / short
    if augmentation.crop == "random_resized":
        scale = np.minimum(scale, 1)
    long = np.minimum(sizes.max(axis=1, initial=1), MAX_ASPECT * short)
    return int((short * long * scale**2 * 3).sum())


class ValBatches:
    """Batches for validation: exactly what `Preprocessing` returns, decoded once if they fit in memory."""

    def __init__(self, images: ImageSet, preprocessing: Preprocessing, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.images, self.preprocessing = images, preprocessing
        self.unreadable: list[Unreadable] = []
        """Files that turned out to be broken; they count neither as right nor as wrong."""
        self._labels = np.array(images.labels, dtype=np.int64)
        self._is_kept = len(images) * preprocessing.crop_size**2 * 3 <= cache_bytes
        self._kept: list[Batch] = []

    @property
    def n_images(self) -> int:
        """Images that count; all of them until they have been decoded once."""
        return len(self.images) - len(self.unreadable)

    def __iter__(self) -> Iterator[Batch]:
        """Go through the whole set in order."""
        if self._kept:
            yield from self._kept
            return
        batches, unreadable = [], []
        for decoded in decode_batches(self.images, self.preprocessing):
            labels = torch.from_numpy(self._labels[decoded.indices])
            batch = Batch(torch.from_numpy(decoded.pixels), labels, decoded.unreadable)
            unreadable += decoded.unreadable
            if self._is_kept:
                batches.append(batch)
            yield batch
        refuse_unreadable(unreadable, len(self.images))
        self._kept, self.unreadable = batches, unreadable
