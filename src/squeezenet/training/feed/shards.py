"""Feeding the training loop from tar shards, through the webdataset library.

Every process reads its own shards in an epoch's random order, shuffles within a buffer, and starts over if they run out
before the epoch ends. The same seed, epoch and number of processes give the same batches.
"""

from __future__ import annotations

import itertools
import random
import tarfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray

from ...data.decode import Unreadable, View, thread_pool
from ...data.shards import ShardSet
from ...errors import DataError, ImageError, MissingDependencyError
from ...files import IMAGE_EXTENSIONS
from ...images import MAX_FILE_BYTES
from ..recipe import Recipe
from .augment import Augmentation, EpochDraw, augment
from .batches import Batch

__all__ = ["ShardBatches"]

_SHUFFLE_BUFFER = 1000  # images among which a process shuffles
_MAX_DIGITS = 9  # of a class's number
_MAX_NAME_BYTES = 1 << 16  # of a member's name and further properties
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
        with MissingDependencyError.named():
            import webdataset
            from webdataset.tariterators import group_by_keys
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
                    for name, data in _members(url):
                        yield {"fname": name, "data": data, "__url__": url}
                    yield {}  # the last sample of a shard is whole
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
                if kind is None or not text.isdecimal() or len(text) > _MAX_DIGITS or int(text) >= len(labels):
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


class _TarInfo(tarfile.TarInfo):
    """A member whose name is not larger than names are."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > _MAX_NAME_BYTES:
            raise tarfile.ReadError(f"expected at most {_MAX_NAME_BYTES} bytes of names, got {self.size}")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _members(location: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a plain tar's images and labels, in order.

    Only http(s) is fetched; everything else is the path of a file, whatever it looks like.
    """
    import webdataset

    is_url = urlsplit(location).scheme in ("http", "https")
    with (
        webdataset.gopen(location) if is_url else Path(location).open("rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo) as tar,
    ):
        for member in tar:
            suffix = member.name.rpartition(".")[2].lower()
            tar.members = []  # type: ignore[attr-defined] # they would pile up
            if not member.isreg() or member.issparse() or (suffix != "cls" and f".{suffix}" not in IMAGE_EXTENSIONS):
                continue
            limit = MAX_FILE_BYTES if suffix != "cls" else _MAX_NAME_BYTES
            if member.size > limit:
                raise DataError(f"{member.name[:80]}: expected at most {limit} bytes, got {member.size}")
            file = tar.extractfile(member)
            assert file is not None
            data = file.read()
            if len(data) < member.size:
                raise tarfile.ReadError("it ends too soon")
            yield member.name, data
