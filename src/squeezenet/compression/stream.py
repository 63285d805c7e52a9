"""Photos without labels to distil on: they are read again in every epoch, so that thousands need no memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data import ImageSet, Unreadable
from ..data.check import refuse_unreadable
from ..data.decode import decode_batches, thread_pool
from ..data.imageset import evenly_spaced
from ..errors import DataError, ImageError
from ..models import SqueezeNet
from ..progress import Reporter
from ..quantization.quantize import required_preprocessing
from ..training.feed.augment import EpochDraw, augment
from ..training.feed.batches import view_for
from .retrain import gentle_augmentation

__all__ = ["PhotoStream"]

_HELD_OUT = 100  # photos, at most a tenth of the set

_Decoded = list[Future[NDArray[np.uint8] | Unreadable]]


class PhotoStream:
    """Unlabelled photos, randomly cropped and mirrored, in a different order in every epoch."""

    held_out: NDArray[np.uint8]
    """Held-out photos, evenly spaced, after the model's preprocessing: (n, H, W, 3); a tenth, at most 100."""

    def __init__(self, images: ImageSet, model: SqueezeNet, reporter: Reporter) -> None:
        """Read and hold out some photos; no others are read yet.

        Raises:
            DataError: If there are fewer than two photos, or too many of the held-out ones cannot be read.
            QuantizationError: If the model has no preprocessing.
        """
        if len(images) < 2:
            raise DataError(f"{images.name}: expected at least 2 photos to distil on, got {len(images)}")
        preprocessing = required_preprocessing(model)
        self._augmentation = gentle_augmentation(model, images)
        self._view = view_for(self._augmentation, preprocessing)
        self._reporter = reporter
        self._unreadable: dict[str, Unreadable] = {}
        aside = evenly_spaced(len(images), min(_HELD_OUT, max(1, len(images) // 10)))
        batches = list(decode_batches(images.subset(aside), preprocessing))
        self._n_given = len(images)
        self._note([entry for batch in batches for entry in batch.unreadable])
        self.held_out = np.concatenate([batch.pixels for batch in batches])
        self._images = images.subset(np.setdiff1d(np.arange(len(images)), aside).tolist())

    @property
    def n_images(self) -> int:
        """Photos in an epoch."""
        return len(self._images)

    def epoch(self, number: int, *, batch_size: int, seed: int = 0) -> Iterator[Tensor]:
        """Decode and augment one epoch: yields pixels (n, H, W, 3), uint8, and prepares the next batch meanwhile.

        Raises:
            DataError: If too many of the photos turn out to be unreadable.
        """
        draw = EpochDraw(self.n_images, seed, number)
        with thread_pool() as pool:

            def begin(step: int) -> tuple[_Decoded, NDArray[np.float32]]:
                indices, numbers = draw.batch(step, batch_size)
                return [pool.submit(self._decode, int(index)) for index in indices], numbers

            steps = range(max(1, self.n_images // batch_size))
            begun = (begin(step) for step in [*steps, steps.stop])
            for (decoded, numbers), _ in pairwise(begun):
                yield self._finish(decoded, numbers)

    def _decode(self, index: int) -> NDArray[np.uint8] | Unreadable:
        try:
            return self._view(self._images.read(index))
        except ImageError as error:
            return Unreadable(self._images.items[index].name, error.reason)

    def _finish(self, decoded: _Decoded, numbers: NDArray[np.float32]) -> Tensor:
        results = [future.result() for future in decoded]
        good = [row for row, result in enumerate(results) if not isinstance(result, Unreadable)]
        self._note([result for result in results if isinstance(result, Unreadable)])
        pixels = [result for result in results if not isinstance(result, Unreadable)]
        return augment(pixels, numbers[good], self._augmentation) if good else torch.empty(0)

    def _note(self, entries: list[Unreadable]) -> None:
        for entry in entries:
            if entry.name not in self._unreadable:
                self._reporter.say(f"skipped {entry.name}: {entry.reason}")
                self._unreadable[entry.name] = entry
        refuse_unreadable(list(self._unreadable.values()), self._n_given)
