"""Exploring architectures: search spaces, studies that survive being cut off, reports.

Use this when you want the best network under so many bytes or MACs for data of your own: `explore`.
"""

from .findings import Finding, StudyResult
from .space import PRESET_NAMES, Range, Space, load_space
from .study import explore

__all__ = ["PRESET_NAMES", "Finding", "Range", "Space", "StudyResult", "explore", "load_space"]
