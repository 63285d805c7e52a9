"""One way to run any MODEL: compressed or float, file, folder or name.

Use this when a command takes a MODEL and needs class scores for images.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..classifier import Classifier
from ..data import DecodedBatch, ImageSet, Unreadable, decode_batches
from ..errors import DataError
from ..labels import Labels
from ..preprocess import Preprocessing
from ..spec import ArchSpec

if TYPE_CHECKING:
    from ..models import SqueezeNet

__all__ = [
    "FloatPredictor",
    "Predictor",
    "Scores",
    "collect_logits",
    "match_classes",
    "open_predictor",
    "predict_batches",
    "predict_each",
]


class Predictor(Protocol):
    """What a network needs to be to classify images."""

    spec: ArchSpec
    preprocessing: Preprocessing

    @property
    def labels(self) -> Labels | None:
        """Class names, where the network has them."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Map raw pixels (N, H, W, 3), uint8, to class scores (N, classes)."""

    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Map raw pixels (N, H, W, 3), uint8, to the class activation maps (N, h, w, classes)."""


class FloatPredictor:
    """A torch network behind the interface of `Classifier`."""

    def __init__(self, model: SqueezeNet) -> None:
        """Wrap a network; without a preprocessing of its own it gets that of new networks."""
        size = model.spec.input_size
        self.spec = model.spec
        self.labels = model.labels
        self.preprocessing = model.preprocessing or Preprocessing(crop_size=size, resize_size=size)
        self._model = model.eval()

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Map raw pixels (N, H, W, 3), uint8, to class scores (N, classes)."""
        import torch

        from ..models import normalize_pixels

        with torch.inference_mode():
            scores: NDArray[np.float64] = self._model(normalize_pixels(pixels, self.preprocessing)).double().numpy()
        return scores

    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Map raw pixels (N, H, W, 3), uint8, to the class activation maps (N, h, w, classes)."""
        import torch

        from ..models import normalize_pixels

        with torch.inference_mode():
            maps_NCHW = self._model.activation_map(normalize_pixels(pixels, self.preprocessing))
        maps: NDArray[np.float64] = maps_NCHW.permute(0, 2, 3, 1).double().numpy()
        return maps


def open_predictor(model: str | Path) -> Predictor:
    """Open any MODEL; a `.sqz` file needs no torch.

    Raises:
        SqueezeNetError: If it cannot be read; the message says what is accepted.
    """
    if Path(model).suffix == ".sqz":
        return Classifier(model)
    from ..models import load_model

    return FloatPredictor(load_model(model))


def predict_each(
    predictor: Predictor, images: ImageSet, *, batch_size: int = 32
) -> Iterator[tuple[str, NDArray[np.float64] | Unreadable]]:
    """Classify a whole set image by image, in order.

    Yields:
        The image's name, and its class scores (classes,) or why it could not be read.
    """
    for batch, logits in predict_batches(predictor, images, batch_size=batch_size):
        scores = dict(zip(batch.indices.tolist(), logits, strict=True))
        unreadable = iter(batch.unreadable)
        for index in batch.tried:
            yield images.items[index].name, scores[index] if index in scores else next(unreadable)


def predict_batches(
    predictor: Predictor, images: ImageSet, *, batch_size: int = 32
) -> Iterator[tuple[DecodedBatch, NDArray[np.float64]]]:
    """Decode and classify a whole set, batch by batch, in order; a batch is decoded while the one before is classified.

    Yields:
        The batch (with the positions of its readable images) and their class scores, (n, classes).
    """
    for batch in _one_ahead(decode_batches(images, predictor.preprocessing, batch_size=batch_size)):
        yield batch, predictor.logits(batch.pixels)


def _one_ahead(batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
    """Pass batches on, while a thread already works on the next one."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = pool.submit(next, batches, None)
            yield batch


@dataclass(frozen=True)
class Scores:
    """Class scores of a labelled set."""

    logits: NDArray[np.float64]
    """(N, classes), of the readable images in order."""
    labels: NDArray[np.int64]
    """(N,)"""
    indices: NDArray[np.int64]
    """(N,), positions in the set."""
    unreadable: tuple[Unreadable, ...]


def match_classes(predictor: Predictor, images: ImageSet) -> ImageSet:
    """Number the classes of a set as the network does, by id or name.

    Raises:
        DataError: If the network has no labels, or a class folder fits none of them.
    """
    if predictor.labels is None:
        raise DataError("expected a model that knows its class names: class folders are never matched by position")
    return images.relabel(predictor.labels.match(images.classes), predictor.labels.names)


def collect_logits(predictor: Predictor, images: ImageSet, *, batch_size: int = 32) -> Scores:
    """Classify a labelled set.

    Raises:
        DataError: If not one image can be read.
    """
    logits: list[NDArray[np.float64]] = []
    indices: list[NDArray[np.int64]] = []
    unreadable: list[Unreadable] = []
    for batch, scores in predict_batches(predictor, images, batch_size=batch_size):  # a batch's pixels are not kept
        logits.append(scores)
        indices.append(batch.indices)
        unreadable += batch.unreadable
    readable = np.concatenate(indices)
    if not len(readable):
        raise DataError(f"{images.name}: none of {len(images)} images can be read, such as {unreadable[0].name}")
    return Scores(
        logits=np.concatenate(logits),
        labels=np.array(images.labels)[readable],
        indices=readable,
        unreadable=tuple(unreadable),
    )
