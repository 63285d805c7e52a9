"""`find_model`, which resolves the MODEL argument of every command. No torch here."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .bundled import bundled_models
from .container import SIGNATURE
from .errors import ModelNotFoundError
from .files import cache_folder
from .text import printable

__all__ = [
    "DEFAULT_ORDER", "FOREIGN_SUFFIXES", "IMAGENET", "MODEL_SUFFIXES", "PUBLISHED_NAMES", "RUN_WEIGHTS", "Found",
    "default_model", "find_model", "imagenet_path", "model_names",
]  # fmt: skip

DEFAULT_ORDER = ("imagenette", "cifar10")
"""Networks to use if none is named, in order of preference."""

IMAGENET = "imagenet"
"""Name of torchvision's 1.1 in int8, which is created on first use and kept in the cache."""

PUBLISHED_NAMES = ("squeezenet1_0", "squeezenet1_1")
"""Architectures whose published float weights are downloaded on first use."""

RUN_WEIGHTS = ("best.safetensors", "last.safetensors")
"""Weight files of a run folder, in order of preference."""

MODEL_SUFFIXES = (".sqz", ".safetensors", ".net")

FOREIGN_SUFFIXES = (
    ".pth", ".pt", ".ckpt", ".bin", ".tar", ".onnx", ".h5", ".hdf5", ".keras", ".caffemodel", ".param", ".tflite",
)  # fmt: skip
"""Suffixes of files of other programs that can be imported."""

_ACCEPTED = (
    "a .sqz, .safetensors or .net file, a file to import (docs/import.md), a folder that `squeezenet train` wrote"
)

Kind = Literal["sqz", "safetensors", "net", "foreign", "published", "imagenet"]


@dataclass(frozen=True)
class Found:
    """The file or name that a MODEL argument stands for."""

    kind: Kind
    path: Path | None
    """The file; None if it has to be downloaded or created first."""
    name: str
    """As the user wrote it, for messages."""


def default_model() -> str | None:
    """Return the name of the network to use if none is named; None if the package contains none."""
    found = bundled_models()
    return next((name for name in (*DEFAULT_ORDER, *found) if name in found), None)


def imagenet_path() -> Path:
    """Path in the cache of the file for `imagenet`."""
    return cache_folder() / "imagenet-squeezenet1_1-int8-2.sqz"  # 2: activation ranges measured on photos


def model_names() -> tuple[str, ...]:
    """Every name that a MODEL can be, besides files and folders."""
    return (*bundled_models(), IMAGENET, *PUBLISHED_NAMES)


def find_model(model: str | os.PathLike[str]) -> Found:
    """Resolve a MODEL argument; at most the first bytes of a file are read.

    Names of the package have priority over files: `imagenette` is the network that ships with the package,
    `./imagenette` a folder.

    Args:
        model: A name of `model_names()`, a `.sqz`, `.safetensors` or `.net` file, a file of another program that can
            be imported, or a folder that `train` wrote, whose best weights are used.

    Raises:
        ModelNotFoundError: If no such MODEL exists; the message lists the existing names and suggests the nearest one.

    Example:
        >>> find_model("imagenette").kind
        'sqz'
    """
    name = os.fspath(model)
    if isinstance(model, str):
        if model in (bundled := bundled_models()):
            return Found("sqz", bundled[model], name)
        if model == IMAGENET:
            path = imagenet_path()
            return Found("imagenet", path if path.is_file() else None, name)
        if model in PUBLISHED_NAMES:
            return Found("published", None, name)
    path = Path(model)
    if name and os.path.isdir(path):
        return _run_folder(path, name)
    if not os.path.isfile(path):  # also where the system refuses even the question
        raise _not_found(path, name)
    return Found(_kind_of(path, name), path, name)


def _run_folder(path: Path, name: str) -> Found:
    for weights in RUN_WEIGHTS:
        if (path / weights).is_file():
            return Found("safetensors", path / weights, name)
    raise ModelNotFoundError(
        f"expected a run folder with {' or '.join(RUN_WEIGHTS)}, got a folder without", source=printable(name)
    )


def _kind_of(path: Path, name: str) -> Kind:
    with path.open("rb") as stream:
        if stream.read(len(SIGNATURE)) == SIGNATURE:
            return "sqz"
    suffix = path.suffix.lower()
    if suffix in MODEL_SUFFIXES:
        return suffix[1:]  # type: ignore[return-value]
    if suffix in FOREIGN_SUFFIXES:
        if not any((path.parent / weights).is_file() for weights in RUN_WEIGHTS):
            return "foreign"
        advice = f"expected a MODEL, got a file of a run folder: use the folder, {printable(path.parent)}"
    else:
        advice = f"expected a MODEL, got another kind of file: a MODEL is {_ACCEPTED}, or {_one_of_the_names()}"
    raise ModelNotFoundError(advice, source=printable(name))


def _not_found(path: Path, name: str) -> ModelNotFoundError:
    if name and os.path.exists(path):
        return ModelNotFoundError("expected a file, got a folder or a device", source=printable(name))
    shown = printable(str(name)[:200])
    if "://" in name:
        return ModelNotFoundError(f"expected a MODEL on this machine, got the URL {shown!r}: download it first")
    accepted = f"a MODEL is {_ACCEPTED}, or {_one_of_the_names()}"
    if path.suffix or len(path.parts) > 1:
        return ModelNotFoundError(f"no such file or folder; {accepted}", source=shown)
    nearest = difflib.get_close_matches(name, model_names(), n=1)
    advice = f"did you mean {nearest[0]}? A{accepted[1:]}" if nearest else accepted
    return ModelNotFoundError(f"there is no MODEL {shown!r}: {advice}")


def _one_of_the_names() -> str:
    return f"one of the names {', '.join(model_names())}"
