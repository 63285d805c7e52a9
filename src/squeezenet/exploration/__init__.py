"""Exploring architectures: search spaces, studies that survive an interruption, reports.

`explore` finds the best network within limits on bytes and MACs.
"""

from .findings import Finding, StudyResult
from .space import PRESET_NAMES, Range, Space, load_space
from .study import explore

__all__ = ["PRESET_NAMES", "Finding", "Range", "Space", "StudyResult", "explore", "load_space"]
