"""The files of every format version, and the tool that writes new ones."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from make_fixtures import describe, fixtures, formula_pixels  # noqa: E402

__all__ = ["FOLDER", "describe", "fixtures", "formula_pixels"]

FOLDER = Path(__file__).parent / "fixtures" / "format"
