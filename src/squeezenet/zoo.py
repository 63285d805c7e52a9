"""Compressed networks that come with the package: files `bundled/NAME.sqz`, made by `tools/make_models.py`.

Use this when somebody names a network, or none at all.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["DEFAULT_ORDER", "IMAGENET_FILE", "bundled_models", "default_model"]

DEFAULT_ORDER = ("imagenette", "cifar10")
"""Networks to take where none is named, the most useful for photos first."""

IMAGENET_FILE = "imagenet-squeezenet1_1-int8.sqz"
"""Name in the cache of what `--model imagenet` makes of torchvision's weights."""


def bundled_models() -> dict[str, Path]:
    """Find the networks of this installation: path by name, sorted."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "bundled").glob("*.sqz"))}


def default_model() -> str | None:
    """Name the network to take where none is named; None if the package came without any."""
    found = bundled_models()
    return next((name for name in (*DEFAULT_ORDER, *found) if name in found), None)
