"""The compressed networks that ship with the package: files `NAME.sqz` here, made by `tools/make_models.py`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundled_models"]


def bundled_models() -> dict[str, Path]:
    """Find the networks of this installation: path by name, sorted."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.sqz"))}
