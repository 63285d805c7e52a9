"""The files of every format version, and the tool that writes new ones."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from make_fixtures import describe, encoded, fixtures, formula_pixels, in_parts  # noqa: E402

__all__ = ["FOLDER", "describe", "encoded", "fixtures", "formula_pixels", "in_parts"]

FOLDER = Path(__file__).parent / "fixtures" / "format"
