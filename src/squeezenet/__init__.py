"""SqueezeNet: train an image classifier, squeeze it below half a megabyte, run the same integers everywhere.

The names below need no torch, except the last group, which imports it on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .accounting import network_cost
from .classifier import Classifier, Prediction
from .errors import SqueezeNetError
from .fileformat import SqzFile, read_sqz, write_sqz
from .labels import Labels
from .preprocess import Preprocessing, load_image
from .spec import ArchSpec, FireSpec, StemSpec, metaparameter_spec, named_spec

if TYPE_CHECKING:
    from .models import SqueezeNet, create_model, load_model, squeezenet1_0, squeezenet1_1

__version__ = "0.1.0"

__all__ = [
    "ArchSpec",
    "Classifier",
    "FireSpec",
    "Labels",
    "Prediction",
    "Preprocessing",
    "SqueezeNet",
    "SqueezeNetError",
    "SqzFile",
    "StemSpec",
    "create_model",
    "load_image",
    "load_model",
    "metaparameter_spec",
    "named_spec",
    "network_cost",
    "read_sqz",
    "squeezenet1_0",
    "squeezenet1_1",
    "write_sqz",
]

_TORCH_NAMES = frozenset({"SqueezeNet", "create_model", "load_model", "squeezenet1_0", "squeezenet1_1"})


def __getattr__(name: str) -> Any:
    if name in _TORCH_NAMES:
        from . import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
