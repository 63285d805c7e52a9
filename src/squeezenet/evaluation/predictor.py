"""One way to run any MODEL, compressed or float, on images of any kind."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..classifier import Answer, Classifier, EngineName, Outputs, Predictor, sqz_path
from ..data import DecodedBatch, ImageSet, Unreadable, decode_batches, expand_pattern
from ..data.imageset import open_everything
from ..errors import DataError, ImageError, SqueezeNetError
from ..fileformat import SqzFile, temperature_in
from ..images import ImageSource, is_one_image
from ..preprocess import Preprocessing
from ..zoo import find_model

if TYPE_CHECKING:
    from torch import Tensor

    from ..models import SqueezeNet

__all__ = [
    "FloatPredictor", "Model", "Scores", "answers", "collect_logits", "match_classes", "one_ahead", "open_model",
    "predict", "predict_batches",
]  # fmt: skip

_BATCH = 32

Model = Any  # str | os.PathLike[str] | SqzFile | SqueezeNet | Predictor, written so that torch need not be imported
"""Anything that can predict: a MODEL's name or path, the contents of a file, a torch model, a `Predictor`."""


class FloatPredictor(Predictor):
    """A torch network behind the interface of `Classifier`."""

    def __init__(self, model: SqueezeNet) -> None:
        """Wrap a network; if it has no preprocessing, that of new networks is used."""
        self.spec, self.provenance = model.spec, model.provenance
        self.temperature = temperature_in(model.provenance)
        self.labels = model.labels
        self.preprocessing = model.preprocessing or Preprocessing.plain(model.spec.input_size)
        self._model = model.eval()

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores; see `Predictor.logits`."""
        return self._run(pixels, self._model)

    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation maps; see `Predictor.activation_maps`."""
        return self._run(pixels, self._model.activation_map).transpose(0, 2, 3, 1)

    def _run(self, pixels: NDArray[np.uint8], function: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        import torch

        from ..models import normalize_pixels

        with torch.inference_mode():
            found: NDArray[np.float64] = function(normalize_pixels(pixels, self.preprocessing)).double().numpy()
        return found


def open_model(model: Model, *, engine: EngineName = "auto", threads: int | None = None) -> Predictor:
    """Open any MODEL for predicting; a `.sqz` file needs no torch.

    Args:
        model: A name or path (see `find_model`), the contents of a `.sqz` file, a torch model, or a `Predictor`, which
            is returned unchanged. `imagenet` is downloaded and compressed on first use.
        engine: Engine for compressed networks, as for `Classifier`.
        threads: Number of threads for compressed networks, as for `Classifier`.

    Raises:
        ModelNotFoundError: If the MODEL names nothing.
        FormatError: If a `.sqz` file is damaged.
        WeightsError: If float weights cannot be read.
        DownloadError: If weights cannot be downloaded.
        MissingDependencyError: If the network needs torch and it is not installed.

    Example:
        >>> open_model("cifar10").class_names[:2]
        ('airplane', 'automobile')
    """
    if isinstance(model, Predictor):
        return model
    if isinstance(model, SqzFile):
        return Classifier(model, engine=engine, threads=threads)
    if isinstance(model, (str, os.PathLike)):
        found = find_model(model)
        if found.kind == "imagenet" and found.path is None:
            from ..progress import reporter_for
            from ..quantization.published import imagenet_file

            return Classifier(imagenet_file(reporter_for()), engine=engine, threads=threads)
        if found.kind in ("sqz", "imagenet"):
            return Classifier(sqz_path(model), engine=engine, threads=threads)
        from ..models import load_model

        return FloatPredictor(load_model(model))
    return FloatPredictor(copy.deepcopy(model).cpu())  # the caller's may be in training


def predict(
    model: Model, images: ImageSource | ImageSet | Iterable[ImageSource | ImageSet], *, top: int = 5
) -> Iterator[Answer]:
    """Classify images of any kind; every image, readable or not, gives one `Answer`.

    Args:
        model: See `open_model`.
        images: One or many of these: a file, a folder, a zip, a pattern such as "photos/*.jpg", encoded bytes, a
            stream, a Pillow image, a uint8 array (H, W, 3), an `ImageSet`.
        top: Number of classes in each answer, the most probable first.

    Yields:
        Answers in the order of `images`, and within a folder in the order of names. If an image cannot be read, its
        answer has an `error`.

    Raises:
        ModelNotFoundError: If there is no such model; see `open_model` for the others.

    Example:
        >>> import numpy as np
        >>> grey = np.full((128, 128, 3), 128, np.uint8)
        >>> [len(answer.predictions) for answer in predict("imagenette", [grey, grey], top=2)]
        [2, 2]
    """
    predictor = open_model(model)
    return _answers_of_all(predictor, [images] if isinstance(images, ImageSet) or is_one_image(images) else images, top)


def _answers_of_all(predictor: Predictor, images: Any, top: int) -> Iterator[Answer]:
    for group in _grouped(images):
        if isinstance(group, ImageSet):
            yield from answers(predictor, group, top=top)
        elif isinstance(group, list):
            yield from _answers_of_files(predictor, group, top)
        else:
            name = str(getattr(group, "name", "") or "image")
            try:
                yield from predictor.answers([name], predictor.outputs(predictor.preprocessing(group)[None]), top=top)
            except ImageError as error:
                yield Answer(name=name, error=error.reason)


def _answers_of_files(predictor: Predictor, paths: list[str], top: int) -> Iterator[Answer]:
    try:
        found = open_everything(paths)
    except (SqueezeNetError, OSError) as error:
        if len(paths) > 1:  # one of them spoils the group: each for itself
            for path in paths:
                yield from _answers_of_files(predictor, [path], top)
        else:
            reason = error.reason if isinstance(error, SqueezeNetError) else error.strerror or str(error)
            yield Answer(name=paths[0], error=reason.removeprefix(f"{paths[0]}: "))
        return
    yield from answers(predictor, found, top=top)


def _grouped(images: Iterable[Any]) -> Iterator[Any]:
    """Patterns expanded, and files beside each other put together, so that they are read and classified in batches."""
    files: list[str] = []
    for image in images:
        is_path = isinstance(image, (str, os.PathLike))
        for found in expand_pattern(os.fspath(image)) if is_path else [image]:
            if is_path and os.path.isfile(found):  # also False where the system refuses even the question
                files.append(found)
                continue
            if files:
                yield files
            files = []
            yield [found] if is_path else found
    if files:
        yield files


def answers(predictor: Predictor, images: ImageSet, *, top: int = 5, batch_size: int = _BATCH) -> Iterator[Answer]:
    """Classify a whole set image by image, in order; an unreadable one is an answer with an `error`."""
    for batch, outputs in predict_batches(predictor, images, batch_size=batch_size):
        names = [images.items[index].name for index in batch.indices]
        readable = iter(predictor.answers(names, outputs, top=top))
        unreadable = iter(batch.unreadable)
        good = set(batch.indices.tolist())
        for index in batch.tried:
            if index in good:
                yield next(readable)
            else:
                yield Answer(name=images.items[index].name, error=next(unreadable).reason)


def predict_batches(
    predictor: Predictor, images: ImageSet, *, batch_size: int = _BATCH
) -> Iterator[tuple[DecodedBatch, Outputs]]:
    """Decode and classify a whole set, batch by batch, in order; a batch is decoded while the one before is classified.

    Yields:
        The batch (with the positions of its readable images) and the network's outputs for them.
    """
    for batch in one_ahead(decode_batches(images, predictor.preprocessing, batch_size=batch_size)):
        yield batch, predictor.outputs(batch.pixels)


def one_ahead(batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
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
    features: NDArray[np.int64] | None = None
    """Feature vectors (N, channels); None from networks of floats."""


def match_classes(predictor: Predictor, images: ImageSet) -> ImageSet:
    """Number the classes of a set as the network does, by id or name.

    Raises:
        DataError: If the network has no labels, or a class folder fits none of them.
    """
    if predictor.labels is None:
        raise DataError("expected a model with class names: class folders are never matched by position")
    return images.relabel(predictor.labels.match(images.classes), predictor.labels.names)


def collect_logits(predictor: Predictor, images: ImageSet, *, batch_size: int = _BATCH) -> Scores:
    """Classify a labelled set.

    Raises:
        DataError: If not one image can be read.
    """
    logits, features, indices, unreadable = [], [], [], list[Unreadable]()
    for batch, outputs in predict_batches(predictor, images, batch_size=batch_size):  # a batch's pixels are not kept
        logits.append(outputs.logits)
        features += [] if outputs.features is None else [outputs.features]
        indices.append(batch.indices)
        unreadable += batch.unreadable
    readable = np.concatenate(indices)
    if not len(readable):
        raise DataError(f"{images.name}: none of {len(images)} images can be read, such as {unreadable[0].name}")
    labels = np.array(images.labels)[readable]
    return Scores(
        logits=np.concatenate(logits), labels=labels, indices=readable, unreadable=tuple(unreadable),
        features=np.concatenate(features) if features else None,
    )  # fmt: skip
