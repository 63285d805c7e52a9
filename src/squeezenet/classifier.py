"""Predict with a `.sqz` file; no torch needed.

Use this when you have a compressed model and images.
"""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .engine import NativeEngine, ReferenceEngine, native_kernels
from .fileformat import SqzFile, read_sqz
from .network import IntegerNetwork
from .preprocess import ImageSource, Preprocessing

__all__ = ["Classifier", "EngineName", "Prediction", "rank"]

EngineName = Literal["auto", "native", "reference"]

_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One class and how sure the network is of it."""

    index: int
    label: str
    probability: float
    """Softmax of the logits, 0 to 1."""


def rank(logits: NDArray[np.float64], top: int) -> list[tuple[int, float]]:
    """Find the most probable classes.

    Args:
        logits: Class scores of one image, shape (classes,).
        top: How many classes to return, at least 1; all of them if there are fewer.

    Returns:
        Output position and softmax probability, most probable first; equal scores in output order.
    """
    if top < 1:
        raise ValueError(f"expected `top` of at least 1, got {top}")
    exponentials = np.exp(logits - logits.max())
    probabilities = exponentials / exponentials.sum()
    return [(int(index), float(probabilities[index])) for index in np.argsort(-logits, kind="stable")[:top]]


class Classifier:
    """A compressed network, ready to run.

    Example:
        >>> from squeezenet import Classifier
        >>> classifier = Classifier("flowers.sqz")           # doctest: +SKIP
        >>> classifier.predict(["rose.jpg"], top=1)          # doctest: +SKIP
        [[Prediction(index=7, label='rose', probability=0.98)]]
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | SqzFile,
        *,
        engine: EngineName = "auto",
        threads: int | None = None,
    ) -> None:
        """Load a model.

        Args:
            model: Path of a `.sqz` file, or its contents.
            engine: `auto` takes the fastest engine there is; all give the same bits.
            threads: Threads of the native engine, by default one for each core.

        Raises:
            FormatError: If the file is damaged or no `.sqz` file.
            ImportError: If `engine` is `native` and the native engine was not built.
        """
        if engine not in get_args(EngineName):
            raise ValueError(f"expected `engine` to be one of {get_args(EngineName)}, got {engine!r}")
        contents = model if isinstance(model, SqzFile) else read_sqz(model)
        self.contents = contents
        self.spec = contents.network.spec
        self.labels = contents.labels
        self.preprocessing: Preprocessing = contents.preprocessing_or_default
        self._engine = _build_engine(contents.network, engine, threads)

    @property
    def unknown_below(self) -> float | None:
        """Probability below which a best answer is better given as "unknown"; None if the file does not say."""
        return self.contents.unknown_below

    @property
    def engine(self) -> NativeEngine | ReferenceEngine:
        """What runs the network."""
        return self._engine

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores from pixels that are already of the network's size.

        Args:
            pixels: Raw RGB, shape (N, H, W, 3), uint8.

        Returns:
            Shape (N, classes), float64, bit-identical on every engine.
        """
        return self._engine.logits(pixels)

    def predict(self, images: ImageSource | Iterable[ImageSource], *, top: int = 5) -> list[list[Prediction]]:
        """Classify images: paths, encoded bytes, binary streams or Pillow images, one or many.

        Args:
            images: Any number of them, in any mix; read a few at a time.
            top: How many classes to return for each, most probable first.

        Returns:
            A list for each image; a class without a name is called by its number.

        Raises:
            ImageError: If one cannot be read; the message names it.
        """
        single = isinstance(images, (str, os.PathLike, bytes, Image.Image)) or hasattr(images, "read")
        sources: Iterator[ImageSource] = iter([images] if single else images)  # type: ignore[list-item, arg-type]
        names = self.labels.names if self.labels else [str(index) for index in range(self.spec.num_classes)]
        predictions: list[list[Prediction]] = []
        while batch := [self.preprocessing(source) for source in itertools.islice(sources, _BATCH)]:
            predictions += (
                [Prediction(index, names[index], probability) for index, probability in rank(row, top)]
                for row in self.logits(np.stack(batch))
            )
        return predictions

    def activation_maps(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation maps of pixels that are already of the network's size.

        Args:
            pixels: Raw RGB, shape (N, H, W, 3), uint8.

        Returns:
            Shape (N, h, w, classes), float64; the mean over h and w is `logits`.
        """
        return self._engine.activation_map(pixels)

    def activation_map(self, image: ImageSource, *, target: int | None = None) -> NDArray[np.float64]:
        """Show where the network sees a class.

        Args:
            image: One image, as for `predict`.
            target: Output position of the class; the most probable one by default.

        Returns:
            Shape (h, w), float64: the head's tensor for that class, whose mean is its logit.

        Raises:
            ImageError: If the image cannot be read.
            ValueError: If there is no such class.
        """
        if target is not None and not 0 <= target < self.spec.num_classes:
            raise ValueError(f"expected `target` from 0 to {self.spec.num_classes - 1}, got {target}")
        pixels = self.preprocessing(image)[None]
        maps = self.activation_maps(pixels)[0]
        if target is None:
            target = int(self.logits(pixels)[0].argmax())
        chosen: NDArray[np.float64] = maps[:, :, target]
        return chosen


def _build_engine(network: IntegerNetwork, engine: EngineName, threads: int | None) -> NativeEngine | ReferenceEngine:
    if engine == "native" or (engine == "auto" and native_kernels()):
        return NativeEngine(network, threads=threads)
    if engine == "auto":
        _warn_of_slow_engine()
    return ReferenceEngine(network)


@functools.cache  # once a process, however many models it loads
def _warn_of_slow_engine() -> None:
    warnings.warn(
        "the native engine was not built, NumPy does its work some 20 times slower:"
        " install a C compiler (Debian: apt install gcc) and reinstall squeezenet to get it",
        stacklevel=4,
    )
