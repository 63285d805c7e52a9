"""Small image files for tests."""

import io

import numpy as np
from PIL import Image


def png(value=0, size=(4, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def contents_of(name, number):
    """A small image, or something else for names of other files."""
    is_text = name.endswith((".txt", ".md", ".csv", ".json", ".xml", ".db", ".ini", "DS_Store"))
    return b"text" if is_text else png(number)


def write_tree(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents_of(name, number))
    return root


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(width=48, height=32, mode="RGB"):
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2).astype(np.uint8)
    return Image.fromarray(np.stack([ramp, ramp // 2, 255 - ramp], axis=-1)).convert(mode)
