"""Feeding the training loop from tar shards, through the webdataset library.

Every process reads its own shards in an epoch's random order, shuffles within a buffer, and starts over if they run out
before the epoch ends. The same seed, epoch and number of processes give the same batches.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.decode import Unreadable, View, thread_pool
from ...data.shards import ShardSet
from ...errors import DataError, ImageError, MissingDependencyError
from ...files import IMAGE_EXTENSIONS
from ..recipe import Recipe
from .augment import Augmentation, EpochDraw, augment
from .batches import Batch

__all__ = ["ShardBatches"]

_SHUFFLE_BUFFER = 1000  # images among which a process shuffles
_LEAST_HELD = 0.5  # share of the images that an index counts; damaged shards take some
_Sample = tuple[str, bytes, int]


@dataclass(frozen=True)
class ShardBatches:
    """Batches for training, streamed from shards."""

    images: ShardSet
    augmentation: Augmentation
    view: View
    unreadable: tuple[Unreadable, ...] = ()

    @property
    def n_images(self) -> int:
        """Images in an epoch."""
        return len(self.images)

    def draw(self, recipe: Recipe, epoch: int) -> EpochDraw:
        """Draw an epoch, counted from 0."""
        return EpochDraw(self.n_images, recipe.seed, epoch)

    def epoch(
        self, draw: EpochDraw, *, batch_size: int, first_step: int, n_steps: int, share: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Make the batches of the steps from `first_step` up to `n_steps`, or one process's share of each."""
        damages: list[Unreadable] = []
        samples = self._samples(draw, share, damages)
        size = len(range(share[0], batch_size, share[1]))
        next(itertools.islice(samples, first_step * size, first_step * size), None)
        with thread_pool() as pool:
            upcoming: list[Future[Any]] = []
            for step in range(first_step, n_steps + 1):
                arriving = upcoming
                if step < n_steps:  # decoded while the batch before is trained on
                    upcoming = [pool.submit(self._decode, s) for s in itertools.islice(samples, size)]
                if step > first_step:
                    numbers = draw.stream_numbers(step - 1, batch_size, share)
                    yield self._batch([future.result() for future in arriving], numbers, damages)

    def _batch(
        self,
        outcomes: list[tuple[NDArray[np.uint8] | Unreadable, int]],
        numbers: NDArray[np.float32],
        damages: list[Unreadable],
    ) -> Batch:
        good = [row for row, (pixels, _) in enumerate(outcomes) if not isinstance(pixels, Unreadable)]
        arrays = [outcomes[row][0] for row in good]
        unreadable = [pixels for pixels, _ in outcomes if isinstance(pixels, Unreadable)] + damages
        damages.clear()
        labels = torch.tensor([outcomes[row][1] for row in good], dtype=torch.int64)
        return Batch(augment(arrays, numbers[good], self.augmentation), labels, unreadable)  # type: ignore[arg-type]

    def _decode(self, sample: _Sample) -> tuple[NDArray[np.uint8] | Unreadable, int]:
        name, data, label = sample
        try:
            return self.view(data), label
        except ImageError as error:
            return Unreadable(name, error.reason), label

    def _samples(self, draw: EpochDraw, share: tuple[int, int], damages: list[Unreadable]) -> Iterator[_Sample]:
        """This process's images of an epoch, and again from the start if they run out."""
        try:
            import webdataset
            from webdataset.tariterators import group_by_keys, tar_file_expander
        except ImportError:
            raise MissingDependencyError("webdataset", "webdataset") from None
        rank, size = share
        shards = self.images.shards
        mine = [shards[i] for i in draw.generator().permutation(len(shards))][rank::size]
        if not mine:
            raise DataError(f"{self.images.name}: expected at least one shard per process, got {len(shards)}")

        def note(error: Exception) -> bool:
            entry = Unreadable(self.images.name, f"a shard cannot be read ({error})")
            if entry not in damages:
                damages.append(entry)
            return True

        def members() -> Iterator[Any]:
            for url, _ in mine:
                try:
                    with webdataset.gopen(url) as stream:
                        yield from tar_file_expander([{"url": url, "stream": stream}], handler=note)
                except Exception as error:  # whatever the transport raises, the other shards are still there
                    note(error)

        labels = self.images.numbers
        n_claimed = sum(count for _, count in mine)
        for lap in itertools.count():
            shuffle = webdataset.shuffle(_SHUFFLE_BUFFER, rng=random.Random(f"{draw.seed, draw.epoch} {rank} {lap}"))
            n_samples = 0
            for sample in shuffle(group_by_keys(members(), handler=note)):
                kind = next((key for key in sample if f".{key.lower()}" in IMAGE_EXTENSIONS), None)
                text = sample.get("cls", b"").decode("ascii", "replace").strip()
                name = f"{sample.get('__url__', self.images.name)}/{sample.get('__key__', '')}"
                if kind is None or not text.isdecimal() or int(text) >= len(labels):
                    damages.append(Unreadable(name, "expected an image and the number of a class"))
                    continue
                n_samples += 1
                yield name, sample[kind], labels[int(text)]
            if not n_samples:
                reason = damages[0].reason if damages else "they are empty"
                raise DataError(f"{self.images.name}: none of {len(mine)} shards can be read: {reason}")
            if n_samples < _LEAST_HELD * n_claimed:
                raise DataError(
                    f"{self.images.name}: expected {n_claimed} images in {len(mine)} shards, got {n_samples}:"
                    " pack the shards again with `squeezenet shards`"
                )
