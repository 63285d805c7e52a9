"""Images on disk: folders, zips, tar shards and the embedded digits; checks and decoding. No torch here.

`open_data` finds the images, `check_data` finds damaged files, `decode_batches` decodes.
"""

from .check import DataCheck, check_data
from .decode import DecodedBatch, Unreadable, decode_batches
from .imageset import DataSource, ImageItem, ImageSet, open_data
from .layout import Split
from .sources import expand_pattern

__all__ = [
    "DataCheck", "DataSource", "DecodedBatch", "ImageItem", "ImageSet", "Split", "Unreadable", "check_data",
    "decode_batches", "expand_pattern", "open_data",
]  # fmt: skip
