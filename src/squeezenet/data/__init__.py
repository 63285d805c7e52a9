"""Images on disk: folders, zips and the embedded digits; checks and decoding. No torch here.

Use this when you need labelled images: `open_data`, then `check_data`, then `decode_batches`.
"""

from .check import DataCheck, check_data
from .decode import DecodedBatch, Unreadable, decode_batches
from .imageset import ImageItem, ImageSet, open_data

__all__ = [
    "DataCheck",
    "DecodedBatch",
    "ImageItem",
    "ImageSet",
    "Unreadable",
    "check_data",
    "decode_batches",
    "open_data",
]
