"""What every compression method takes and returns."""

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
    """What a method works on."""

    model: SqueezeNet
    """Float network, batch norm folded, in evaluation mode."""
    photos: CalibrationPhotos
    data: ImageSet | None
    """Labelled images to train on, numbered as the model numbers its classes."""
    unlabelled: ImageSet | None
    """Photos without labels to distil on."""
    overhead_bytes: int
    """What the file takes besides its coded weights."""
    points_lost: Callable[[IntegerNetwork], float] | None
    """Top-1 of the float network minus that of an integer network on labelled images, percent."""
    reporter: Reporter


@dataclass(frozen=True, kw_only=True)
class RDPoint:
    """One network that the search of `RateDistortion` looked at."""

    stage: Literal["round", "distil"]
    slope: float
    """Nats per bit."""
    file_bytes: int
    kl: float
    """On held-out photos, nats; by a float simulation of the engine."""


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """What distillation on photos without labels changed: mean KL(float || compressed), nats.

    Measured by a float simulation of the engine, on photos that were not trained on. Where the KL on the calibration
    photos falls much less, what the network is used for and what it was distilled on are too different.
    """

    kl_before: float
    """On the calibration photos set aside, of which the network is chosen: never below `kl_after`."""
    kl_after: float
    own_kl_before: float
    """On photos of the set that it was distilled on."""
    own_kl_after: float

    @property
    def has_helped(self) -> bool:
        """Whether a better network was found; otherwise the file is the one before distillation."""
        return self.kl_after < self.kl_before


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The integers that a method found, and what it measured."""

    network: IntegerNetwork
    weights: bytes | None = None
    """The integers as `encode_weights` writes them, where the method needed their size anyway."""
    file_bytes: int | None = None
    """Size of the file with these weights, where the method measured it."""
    held_out_logits: NDArray[np.float64] | None = None
    """Class scores of the held-out photos by the engine, (N, classes), where the method measured them."""
    held_out_kl: float | None = None
    """Mean KL(float || engine) over these photos, nats."""
    meets_target: bool = True
    """Whether the budget was kept; otherwise this is the nearest network that was found."""
    points: tuple[RDPoint, ...] = ()
    """Everything that the search looked at."""
    distilled: Distilled | None = None
    """What distillation on unlabelled photos changed."""
    layers_2016: tuple[LayerSizes, ...] = ()
    """Sizes under the paper's storage scheme, from `DeepCompression`."""


def refuse_options(is_wrong: bool, reason: str) -> None:
    """Raise a `CompressionError` if options do not go together; they are named in backticks."""
    if is_wrong:
        raise CompressionError(reason)
