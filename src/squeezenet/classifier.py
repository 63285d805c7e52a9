"""`Classifier`, which predicts with a `.sqz` file, and its base class `Predictor`. No torch here."""

from __future__ import annotations

import abc
import functools
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .engine import NativeEngine, ReferenceEngine, native_kernels
from .errors import ModelNotFoundError
from .fileformat import SqzFile, read_sqz
from .images import ImageSource, is_one_image
from .labels import Labels
from .native_library import why_not_loaded
from .network import IntegerNetwork
from .preprocess import Preprocessing
from .spec import ArchSpec
from .text import printable
from .unknown import UnknownRule
from .zoo import find_model

__all__ = ["Answer", "Classifier", "EngineName", "Outputs", "Prediction", "Predictor", "rank", "sqz_path"]

EngineName = Literal["auto", "native", "reference"]

_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    probability: float
    """Softmax of the logits, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The predictions for one image, or the reason why there are none."""

    name: str
    """Path or name of the image."""
    predictions: tuple[Prediction, ...] = ()
    """Most probable first; empty if the image could not be read."""
    is_unknown: bool | None = None
    """Whether the photo probably shows none of the classes; None if the network has no rule to decide this."""
    error: str | None = None
    """Why the image could not be read."""


class Outputs(NamedTuple):
    """The outputs of a network for a batch of images."""

    logits: NDArray[np.float64]
    """Class scores, (N, classes)."""
    features: NDArray[np.int64] | None
    """Feature vectors, (N, channels); None from float networks."""


def rank(logits: NDArray[np.float64], top: int, temperature: float = 1.0) -> list[tuple[int, float]]:
    """Find the `top` (at least 1) most probable classes from the class scores of one image, shape (classes,).

    Returns:
        Pairs of output position and probability, most probable first; equal scores are in output order. Probabilities
        are the softmax of the scores divided by `temperature`.
    """
    if top < 1:
        raise ValueError(f"expected `top` of at least 1, got {top}")
    exponentials = np.exp((logits - logits.max()) / temperature)
    probabilities = exponentials / exponentials.sum()
    return [(int(index), float(probabilities[index])) for index in np.argsort(-logits, kind="stable")[:top]]


class Predictor(abc.ABC):
    """A network that classifies images: `Classifier` for `.sqz` files, `FloatPredictor` for torch models.

    Subclasses implement `logits` and `activation_maps`; all other methods use these.
    """

    spec: ArchSpec
    preprocessing: Preprocessing
    labels: Labels | None
    provenance: object = None
    """How the network was made, as plain data; None if this is not known."""
    temperature: float = 1.0
    """Number by which logits are divided before they are converted to probabilities."""
    unknown: UnknownRule | None = None
    """The rule that decides from features whether a photo shows none of the classes; None if the file has no rule."""
    unknown_below: float | None = None
    """Without a rule: if the largest probability is below this, the photo is unknown; None if it was not measured."""

    @abc.abstractmethod
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores (N, classes) from pixels of the network's size: raw RGB, (N, H, W, 3), uint8."""

    @abc.abstractmethod
    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation maps (N, h, w, classes), whose mean over h and w is `logits`."""

    def outputs(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Compute class scores and feature vectors, (N, H, W, 3) as for `logits`."""
        return Outputs(self.logits(pixels), None)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each output; its number where the network has no labels."""
        return self.labels.names if self.labels else tuple(map(str, range(self.spec.num_classes)))

    def answers(self, names: Sequence[str], outputs: Outputs, *, top: int = 5) -> list[Answer]:
        """Convert the outputs for a batch of images to their `top` most probable classes; `names` are the images'
        names.
        """
        is_unknown: list[bool] | None = None
        if self.unknown is not None and outputs.features is not None:
            is_unknown = self.unknown.is_unknown(outputs.features).tolist()
        answers, classes = [], self.class_names
        for index, (name, logits) in enumerate(zip(names, outputs.logits, strict=True)):
            best = tuple(Prediction(i, classes[i], share) for i, share in rank(logits, top, self.temperature))
            if is_unknown is not None:
                unknown: bool | None = is_unknown[index]
            else:
                unknown = None if self.unknown_below is None else best[0].probability < self.unknown_below
            answers.append(Answer(name=name, predictions=best, is_unknown=unknown))
        return answers

    def predict(self, images: ImageSource | Iterable[ImageSource], *, top: int = 5) -> list[list[Prediction]]:
        """Classify images, one or many.

        Args:
            images: Paths, encoded bytes, binary streams, Pillow images or uint8 arrays (H, W, 3), in any mix. They are
                read a few at a time.
            top: Number of classes to return for each image.

        Returns:
            One list per image, the most probable class first.

        Raises:
            ImageError: If an image cannot be read; the message names it.
        """
        predictions: list[list[Prediction]] = []
        for batch in self._batches(images):
            answers = self.answers([""] * len(batch), Outputs(self.logits(batch), None), top=top)
            predictions += (list(answer.predictions) for answer in answers)
        return predictions

    def _batches(self, images: ImageSource | Iterable[ImageSource]) -> Iterator[NDArray[np.uint8]]:
        """Pixels of images, a few at a time."""
        sources: Iterator[ImageSource] = iter([images] if is_one_image(images) else images)  # type: ignore[list-item, arg-type]
        while batch := [self.preprocessing(source) for source in itertools.islice(sources, _BATCH)]:
            yield np.stack(batch)

    def activation_map(self, image: ImageSource, *, target: int | None = None) -> NDArray[np.float64]:
        """Compute where in an image the network sees a class.

        Args:
            image: One image, as for `predict`.
            target: Output position of the class; by default the most probable class.

        Returns:
            The class activation map, shape (h, w), float64. Its mean is the logit of the class.

        Raises:
            ImageError: If the image cannot be read.
            ValueError: If `target` is not an output position of the network.
        """
        if target is not None and not 0 <= target < self.spec.num_classes:
            raise ValueError(f"expected `target` from 0 to {self.spec.num_classes - 1}, got {target}")
        pixels = self.preprocessing(image)[None]
        maps = self.activation_maps(pixels)[0]
        if target is None:
            target = int(self.logits(pixels)[0].argmax())
        chosen: NDArray[np.float64] = maps[:, :, target]
        return chosen


class Classifier(Predictor):
    """A compressed network, ready to run.

    Example:
        >>> from squeezenet import Classifier
        >>> classifier = Classifier("imagenette")
        >>> classifier.spec.input_size, classifier.class_names[:2]
        (128, ('cassette_player', 'chain_saw'))
    """

    def __init__(
        self, model: str | os.PathLike[str] | SqzFile, *, engine: EngineName = "auto", threads: int | None = None
    ) -> None:
        """Load a model.

        Args:
            model: Path of a `.sqz` file, the name of a network that ships with the package, or a file's contents.
            engine: `auto` chooses the fastest engine available; all engines compute the same bits.
            threads: Number of threads of the native engine, by default one per core.

        Raises:
            ModelNotFoundError: If no network has this name or path, or it is a float network.
            FormatError: If the file is damaged.
            ImportError: If `engine` is `native` and the native engine was not built.
        """
        if engine not in get_args(EngineName):
            raise ValueError(f"expected `engine` to be one of {get_args(EngineName)}, got {engine!r}")
        contents = model if isinstance(model, SqzFile) else read_sqz(sqz_path(model))
        self.contents = contents
        self.provenance = contents.facts.get("provenance")
        self.spec = contents.network.spec
        self.labels = contents.labels
        self.preprocessing = contents.preprocessing_or_default
        self.temperature = contents.temperature
        self.unknown = contents.unknown
        self.unknown_below = contents.unknown_below
        self._options = (engine, threads)
        self.engine = _build_engine(contents.network, engine, threads)
        """The engine that runs the network."""

    def __getstate__(self) -> dict[str, object]:
        """Return the contents of the file, without the engine: copying and unpickling create a new engine."""
        return {name: value for name, value in vars(self).items() if name != "engine"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.engine = _build_engine(self.contents.network, *self._options)

    def features(self, images: ImageSource | Iterable[ImageSource]) -> NDArray[np.int64]:
        """Compute the feature vectors of images: the input of the head, summed over positions (docs/format.md).

        Similar images have vectors of similar direction. `teach` makes new heads from feature vectors.

        Args:
            images: As for `predict`.

        Returns:
            Shape (N, channels of the last Fire module), int64; bit-identical on every engine.

        Raises:
            ImageError: If an image cannot be read; the message names it.

        Example:
            >>> import numpy as np
            >>> grey = np.full((128, 128, 3), 128, np.uint8)
            >>> Classifier("imagenette").features([grey, grey]).shape
            (2, 512)
        """
        rows = [self.engine.features(batch) for batch in self._batches(images)]
        return np.concatenate(rows) if rows else np.empty((0, self.spec.num_features), np.int64)

    def outputs(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Compute class scores and features in one run; see `Predictor.outputs`."""
        return Outputs(*self.engine.outputs(pixels))

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores, bit-identical on every engine; see `Predictor.logits`."""
        return self.engine.logits(pixels)

    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation maps; see `Predictor.activation_maps`."""
        return self.engine.activation_map(pixels)


def sqz_path(model: str | os.PathLike[str]) -> Path:
    """Find the compressed file that a MODEL names.

    Raises:
        ModelNotFoundError: If the name is unknown, belongs to a float network, or is `imagenet` and this is not yet
            in the cache.
    """
    found = find_model(model)
    if found.kind == "imagenet" and found.path is None:
        raise ModelNotFoundError(
            'imagenet is not in the cache yet: `squeezenet.open_model("imagenet")` fetches and compresses it, once'
        )
    if found.kind not in ("sqz", "imagenet") or found.path is None:
        raise ModelNotFoundError(
            f"expected a .sqz file, got the float network {printable(found.name)!r}:"
            " run `squeezenet compress` on it first"
        )
    return found.path


def _build_engine(network: IntegerNetwork, engine: EngineName, threads: int | None) -> NativeEngine | ReferenceEngine:
    if engine == "native" or (engine == "auto" and native_kernels()):
        return NativeEngine(network, threads=threads)
    if engine == "auto":
        _warn_of_slow_engine()
    return ReferenceEngine(network)


@functools.cache  # once per process, however many models it loads
def _warn_of_slow_engine() -> None:
    warnings.warn(f"{why_not_loaded()}; until then NumPy is used, about 20 times slower", stacklevel=4)
