"""Compressed networks that come with the package: files `models/NAME.sqz`, made by `tools/make_models.py`.

Use this when somebody names a network, or none at all.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["DEFAULT_ORDER", "IMAGENET_FILE", "bundled_models", "default_model"]

DEFAULT_ORDER = ("imagenette", "cifar10")
"""Networks to take where none is named, the most useful for photos first."""

IMAGENET_FILE = "imagenet-squeezenet1_1-int8.sqz"
"""Name in the cache of what `--model imagenet` makes of torchvision's weights."""


def bundled_models() -> dict[str, Path]:
    """Find the networks of this installation: path by name, sorted."""
    folder = resources.files("squeezenet") / "models"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".sqz")]
    return {entry.name.removesuffix(".sqz"): Path(str(entry)) for entry in sorted(files, key=lambda entry: entry.name)}


def default_model() -> str | None:
    """Name the network to take where none is named; None if the package came without any."""
    found = bundled_models()
    return next((name for name in (*DEFAULT_ORDER, *found) if name in found), None)
