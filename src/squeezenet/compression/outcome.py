"""The input and the result of every compression method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..data import ImageSet
from ..errors import CompressionError
from ..models import SqueezeNet
from ..network import IntegerNetwork
from ..progress import Reporter
from ..quantization.photos import CalibrationPhotos
from .deep.huffman import LayerSizes

__all__ = ["Distilled", "Job", "Outcome", "RDPoint", "refuse_options"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """The input of a method."""

    model: SqueezeNet
    """Float network, batch norm folded, in evaluation mode."""
    photos: CalibrationPhotos
    data: ImageSet | None
    """Labelled images to train on, numbered as the model numbers its classes."""
    unlabelled: ImageSet | None
    """Photos without labels to distil on."""
    overhead_bytes: int
    """Bytes of the file without its coded weights."""
    points_lost: Callable[[IntegerNetwork], float] | None
    """Top-1 of the float network minus that of an integer network on labelled images, percent."""
    reporter: Reporter


@dataclass(frozen=True, kw_only=True)
class RDPoint:
    """One network that the search of `RateDistortion` evaluated."""

    stage: Literal["round", "distil"]
    slope: float
    """Nats per bit."""
    file_bytes: int
    kl: float
    """On held-out photos, nats; by a float simulation of the engine."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Effect of distillation on photos without labels: mean KL(float || compressed), nats.

    Measured by a float simulation of the engine, on photos that were not trained on. If the KL on the calibration
    photos falls much less than on the unlabelled photos, the two sets are too different.
    """

    kl_before: float
    """On the held-out calibration photos, by which the network is selected: never below `kl_after`."""
    kl_after: float
    own_kl_before: float
    """On held-out photos of the unlabelled set."""
    own_kl_after: float

    @property
    def has_helped(self) -> bool:
        """Whether distillation found a better network; otherwise the result is the file before distillation."""
        return self.kl_after < self.kl_before


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The integers that a method found, and its measurements."""

    network: IntegerNetwork
    weights: bytes | None = None
    """The result of `encode_weights`, if the method has computed it."""
    file_bytes: int | None = None
    """Size of the file with these weights, if the method measured it."""
    held_out_logits: NDArray[np.float64] | None = None
    """Class scores of the held-out photos by the engine, (N, classes), if the method computed them."""
    held_out_kl: float | None = None
    """Mean KL(float || engine) over these photos, nats."""
    meets_target: bool = True
    """Whether the budget was met; otherwise this is the closest network that was found."""
    points: tuple[RDPoint, ...] = ()
    """Every network that the search evaluated."""
    distilled: Distilled | None = None
    """Effect of distillation on unlabelled photos."""
    layers_2016: tuple[LayerSizes, ...] = ()
    """Sizes under the paper's storage scheme, from `DeepCompression`."""


def refuse_options(is_wrong: bool, reason: str) -> None:
    """Raise a `CompressionError` for options that cannot be combined; the message names them in backticks."""
    if is_wrong:
        raise CompressionError(reason)
