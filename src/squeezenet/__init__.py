"""SqueezeNet: train an image classifier, squeeze it below half a megabyte, run the same integers everywhere.

Names are imported on first use, so that `import squeezenet` costs nothing; only those of `models` need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accounting import network_cost
    from .classifier import Classifier, Prediction
    from .errors import SqueezeNetError
    from .fileformat import SqzFile, read_sqz, write_sqz
    from .labels import Labels
    from .models import SqueezeNet, create_model, load_model, squeezenet1_0, squeezenet1_1
    from .preprocess import Preprocessing, load_image
    from .spec import ArchSpec, FireSpec, StemSpec, metaparameter_spec, named_spec

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

_HOMES = {
    "accounting": ("network_cost",),
    "classifier": ("Classifier", "Prediction"),
    "errors": ("SqueezeNetError",),
    "fileformat": ("SqzFile", "read_sqz", "write_sqz"),
    "labels": ("Labels",),
    "models": ("SqueezeNet", "create_model", "load_model", "squeezenet1_0", "squeezenet1_1"),
    "preprocess": ("Preprocessing", "load_image"),
    "spec": ("ArchSpec", "FireSpec", "StemSpec", "metaparameter_spec", "named_spec"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
