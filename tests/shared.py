"""Where tests find the data and weights that lie beside the project."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def shared_path(name: str) -> Path:
    """Path of a shared file, such as "data/imagenet-500.zip"; skips the test, naming the file, where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs ../shared/{name}")
    return path
