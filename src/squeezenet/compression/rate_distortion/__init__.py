"""Compression to a budget of bytes or of KL from unlabelled photos: bytes are spent where the loss feels them.

Use `compress_rate_distortion`.
"""

from .distill import DistillSettings
from .search import RDPoint, RDResult, RDSettings, compress_rate_distortion

__all__ = ["DistillSettings", "RDPoint", "RDResult", "RDSettings", "compress_rate_distortion"]
