"""Compression to a budget from unlabelled photos: bytes are spent where the loss is sensitive to them."""

from .batches import Lessons
from .distill import DistillSettings
from .search import compress_rate_distortion

__all__ = ["DistillSettings", "Lessons", "compress_rate_distortion"]
