"""Images on disk: folders, zips and the embedded digits; checks and decoding. No torch here.

Use this when you need labelled images: `open_data`, then `check_data`, then `decode_batches`.
"""

from .check import DataCheck, check_data
from .decode import DecodedBatch, Unreadable, decode_batches
from .imageset import DataSource, ImageItem, ImageSet, Split, open_data
from .sources import expand_pattern

__all__ = [
    "DataCheck",
    "DataSource",
    "DecodedBatch",
    "ImageItem",
    "ImageSet",
    "Split",
    "Unreadable",
    "check_data",
    "decode_batches",
    "expand_pattern",
    "open_data",
]
