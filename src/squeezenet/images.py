"""Reading image files with Pillow: recognised by content, within limits on pixels and memory.

`Image.open` is not used, because its limit and its warnings are settings of the whole process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ImageError

__all__ = [
    "IMAGE_FORMATS", "MAX_FILE_BYTES", "MAX_IMAGE_PIXELS", "SIGNATURE_BYTES", "Decoded", "ImageSource", "image_size",
    "is_image_start", "is_one_image", "reading", "source_name",
]  # fmt: skip

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
MAX_IMAGE_PIXELS = 100_000_000
"""Largest number of pixels of one image, and of all images that a process decodes at the same time."""
MAX_FILE_BYTES = 256_000_000
SIGNATURE_BYTES = 32

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow prints about damaged files

_STRIP_PIXELS = 1 << 20
_MAX_DECODER_BYTES = 500_000_000
# What decoders need per pixel that hold an image more than once; the others stay below the limit for all images.
_DECODER_BYTES = {"WEBP": 16, "JPEG2000": 19, "AVIF": 10, "HEIF": 10}
_MODE_BYTES = {"F": 7, "LAB": 10}  # as if: their conversion takes the most time per pixel
_PPM_HEADER = rb"P[1-6f](?:(?:\s|#[^\r\n]*+[\r\n])++[^\s#]++){2}"
_PPM_HEADER_BYTES, _PPM_TEXT_BYTES = 4096, 8_000_000
_EXIF_ORIENTATION = 274
_ORIENTED_BY = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_TRANSPOSITIONS = dict(zip((2, 3, 4, 5, 6, 7, 8), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))
_EXPECTED = f"expected an image ({', '.join(IMAGE_FORMATS)})"

# How files begin, the format in Pillow's table, and the module that puts it there.
_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG", "JpegImagePlugin"),
    (rb"\x89PNG\r\n\x1a\n", "PNG", "PngImagePlugin"),
    (rb"GIF8[79]a", "GIF", "GifImagePlugin"),
    (rb"RIFF....WEBP", "WEBP", "WebPImagePlugin"),
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP", "BmpImagePlugin"),
    (rb"II[*+]\0|II\0\*|MM\0[*+]|MM\*\0", "TIFF", "TiffImagePlugin"),
    (rb"....ftyp(avi[fs]|(mi[af][f12]|msf1)....(....)*?avi[fs])", "AVIF", "AvifImagePlugin"),
    (rb"....ftyp(he[iv][cxms]|mi[af][f12]|msf1)", "HEIF", ""),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000", "Jpeg2KImagePlugin"),
    (rb"P[1-6f][\s#]", "PPM", "PpmImagePlugin"),
    (rb"\0\0\x01\0[^\0]\0", "ICO", "IcoImagePlugin"),
)

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]
"""One image: a path, encoded bytes, a seekable binary stream, a Pillow image, or uint8 pixels (H, W, 3) or (H, W)."""


def is_image_start(start: bytes) -> bool:
    """Return whether the first `SIGNATURE_BYTES` of a file are those of an image that can be read, or of HEIC."""
    return any(re.match(pattern, start, re.DOTALL) for pattern, _, _ in _SIGNATURES)


def is_one_image(images: object) -> bool:
    """Whether an argument is one `ImageSource` and not a collection of them."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)) or hasattr(images, "read"):
        return True
    if not hasattr(images, "__array__"):
        return False
    array = np.asarray(images)
    return array.ndim != 4 and array.dtype.kind not in "OU"  # a column of paths is a collection


def source_name(source: ImageSource) -> str:
    """The name of an image in messages."""
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "image"


def image_size(start: bytes) -> tuple[int, int] | None:
    """Read width and height from the beginning of a file; None if more of the file is needed, or it is not an
    image.
    """
    with contextlib.suppress(Exception), _open_bytes(start) as image:  # Pillow's plugins raise almost anything
        return image.size
    return None


@dataclass(frozen=True)
class Decoded:
    """An upright image that is converted to 8-bit RGB in strips, to save memory."""

    image: Image.Image
    _grey_factor: float | None
    _drawn: tuple[int, int, int, int] | None = None  # the part of a GIF's canvas that its first frame covers

    def strips(self) -> Iterator[tuple[int, Image.Image]]:
        """Yield the first row of each strip, and its pixels."""
        image = self.image
        if image.mode == "RGB" and not image.has_transparency_data and not self._drawn:
            yield 0, image
            return
        rows = max(1, _STRIP_PIXELS // image.width)
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            strip = _strip_to_rgb(strip, self._grey_factor)
            yield top, _white_outside(strip, top, self._drawn) if self._drawn else strip

    def resized(self, width: int, resample: Image.Resampling) -> Image.Image:
        """Scale the rows to a width; the height stays."""
        whole = Image.new("RGB", (width, self.image.height))
        for top, strip in self.strips():
            whole.paste(strip if width == strip.width else strip.resize((width, strip.height), resample), (0, top))
        return whole

    def rgb(self) -> Image.Image:
        """The whole image; the one that was given if it is RGB already."""
        strips = self.strips()
        first = next(strips)[1]
        return first if first.height == self.image.height else self.resized(self.image.width, Image.Resampling.NEAREST)


@contextlib.contextmanager
def reading(
    source: ImageSource, *, max_pixels: int = MAX_IMAGE_PIXELS, draft: Callable[[Image.Image], object] | None = None
) -> Iterator[Decoded]:
    """Decode the first frame, for use within the block.

    Threads wait before they decode so that all blocks together hold at most `MAX_IMAGE_PIXELS`.

    Args:
        source: See `load_image`.
        max_pixels: Refuse larger images before decoding them.
        draft: Called with the image before it is decoded, to ask for a smaller size.

    Raises:
        ImageError: See `load_image`.
    """
    name = source_name(source)
    with _errors_about(name):
        image = _open(source)
        needed = max(_DECODER_BYTES.get(image.format or "", 1), _MODE_BYTES.get(image.mode, 1))
        limit = min(max_pixels, _MAX_DECODER_BYTES // needed)
        if image.width * image.height > limit:
            kind = f" of {image.format} ({image.mode})" if limit < max_pixels else ""
            raise ImageError(
                f"expected at most {limit} pixels{kind}, got {image.width}x{image.height}: scale it down first"
            )
        if draft:
            draft(image)
    with _PIXELS.take(image.width * image.height):
        with _errors_about(name):
            if image is not source:
                _prepare_transparency(image)
            drawn = _drawn_part(image)
            image.load()
            image = _upright(image, is_file=image is not source)
            decoded = Decoded(image, _grey_factor(image), drawn)
        yield decoded


@contextlib.contextmanager
def _errors_about(name: str) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise error.at(name) from None
    except FileNotFoundError:
        raise ImageError("no such file", source=name) from None
    except Exception as error:  # Pillow's plugins raise almost anything on broken files
        raise ImageError(f"cannot be decoded ({type(error).__name__}: {error})", source=name) from None


def _open(source: Any) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    if hasattr(source, "__array__") and not isinstance(source, (str, bytes)):
        return _from_array(np.asarray(source))
    if isinstance(source, (str, os.PathLike)):
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("expected a file, got a directory or a device")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"expected at most {MAX_FILE_BYTES} bytes, got {status.st_size}")
        source = Path(source).read_bytes()
    elif hasattr(source, "read"):
        if source.seekable():
            source.seek(0)
        source = source.read(MAX_FILE_BYTES + 1)
    if not isinstance(source, (bytes, bytearray, memoryview)):
        raise ImageError(
            "expected a path, encoded bytes, a binary stream, a Pillow image or a uint8 array,"
            f" got {type(source).__name__}"
        )
    if not len(source):
        raise ImageError("the file is empty")
    if len(source) > MAX_FILE_BYTES:
        raise ImageError(f"expected at most {MAX_FILE_BYTES} bytes, got more")
    return _open_bytes(source)


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or 0 in pixels.shape:
        raise ImageError(
            f"expected an array of shape (H, W, 3) or (H, W) and dtype uint8, got {pixels.shape} {pixels.dtype}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _open_bytes(data: bytes | bytearray | memoryview) -> Image.Image:
    start = bytes(data[:SIGNATURE_BYTES])
    _, kind, plugin = next((row for row in _SIGNATURES if re.match(row[0], start, re.DOTALL)), ("", "", ""))
    if not kind:
        raise ImageError(f"{_EXPECTED}, got something else")
    if kind == "HEIF":
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            raise ImageError("a HEIC image needs another package: pip install pillow-heif") from None
    else:
        importlib.import_module(f"PIL.{plugin}")
    if kind == "PPM":
        _check_ppm(data)
    factory, _ = Image.OPEN.get(kind, (None, None))
    if factory is None:
        raise ImageError(f"this Pillow was built without {kind}")
    try:
        image = factory(io.BytesIO(data), "")
        if kind == "ICO":
            image = image.ico.frame(0)  # type: ignore[attr-defined]  # the largest, of the size it really has
    except (SyntaxError, IndexError, TypeError, struct.error):
        raise ImageError(f"{_EXPECTED}, got something else") from None
    tags = getattr(image, "tag_v2", {})
    if kind == "TIFF" and (tiles := getattr(image, "tile", None)):
        covered = tuple(max(tile[1][side] for tile in tiles) for side in (2, 3))
        if covered[0] < image.width or covered[1] < image.height:
            raise ImageError(f"the file ends early: it holds {covered[0]}x{covered[1]} of {image.width}x{image.height}")
    if kind == "TIFF" and (tags.get(254, 0) & 1 or 50706 in tags):  # a preview, DNG's version
        raise ImageError("a camera's raw file: export it as JPEG first")
    return image


def _check_ppm(data: bytes | bytearray | memoryview) -> None:
    """Raise for an image that Pillow's PPM reader, which reads single bytes in Python, would need minutes for."""
    if not re.match(_PPM_HEADER, bytes(data[:_PPM_HEADER_BYTES])):
        raise ImageError(f"expected a PPM, PGM or PBM header of at most {_PPM_HEADER_BYTES} bytes, got something else")
    if data[1] in b"123" and len(data) > _PPM_TEXT_BYTES:
        raise ImageError(
            f"expected at most {_PPM_TEXT_BYTES} bytes of pixels as text, got {len(data)}: convert it first"
        )


def _upright(image: Image.Image, *, is_file: bool) -> Image.Image:
    try:
        # Only EXIF counts, as in browsers; XMP and text chunks do not.
        exif = Image.Exif() if is_file else image.getexif()
        if is_file and "exif" in image.info:
            exif.load(image.info["exif"])
        orientation = exif.get(_EXIF_ORIENTATION)
    except Exception:  # a broken EXIF block does not affect the pixels
        orientation = None
    if (method := _TRANSPOSITIONS.get(orientation or 1)) is not None:
        image = image.transpose(method)
        is_file = True
    for key in _ORIENTED_BY if is_file else ():  # whoever reads the result must not turn it again
        image.info.pop(key, None)
    return image


def _drawn_part(image: Image.Image) -> tuple[int, int, int, int] | None:
    tiles: Any = getattr(image, "tile", None)
    if image.format != "GIF" or not tiles or tiles[0][1] == (0, 0, *image.size):
        return None
    left, top, right, bottom = tiles[0][1]
    return left, top, right, bottom


def _prepare_transparency(image: Image.Image) -> None:
    """Convert the transparent colour of a PNG from the file's bit depth to that of the decoded pixels."""
    tiles: Any = getattr(image, "tile", None)
    stored = tiles[0][3] if tiles else ""
    colour = image.info.get("transparency")
    if stored in ("L;2", "L;4") and isinstance(colour, int):
        image.info["transparency"] = colour * (85 if stored == "L;2" else 17)
    elif stored == "RGB;16B" and colour is not None:
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _grey_factor(image: Image.Image) -> float | None:
    """Factor that scales grey of 16 bits, 32 bits or floats to 0 to 255; None for images of 8 bits."""
    if image.mode[0] not in "IF":
        return None
    if image.mode.startswith("I;16") or image.format == "PNG":
        return 1 / 256
    _, high = image.getextrema()
    if image.mode == "I":
        return 1.0 if high <= 255 else 1 / 256  # type: ignore[operator]
    return 255.0 if high <= 1 else 1.0  # type: ignore[operator]


def _strip_to_rgb(strip: Image.Image, factor: float | None) -> Image.Image:
    if factor is not None:
        values, transparent = np.asarray(strip), strip.info.get("transparency")
        # High bytes of whole numbers, the nearest whole number of floats.
        if strip.mode.startswith("I;16"):
            grey = (values >> 8).astype(np.uint8)
        else:
            scaled = np.floor(values * np.float64(factor) + 0.5 * (strip.mode == "F"))
            grey = np.nan_to_num(scaled.clip(0, 255), nan=0).astype(np.uint8)
        if transparent is not None:
            grey[values == transparent] = 255
        strip = Image.fromarray(grey)
    elif strip.has_transparency_data:
        rgba = strip if strip.mode == "RGBA" else strip.convert("RGBA")  # which copies
        strip = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return strip.convert("RGB")


def _white_outside(strip: Image.Image, top: int, drawn: tuple[int, int, int, int]) -> Image.Image:
    """Make the canvas outside of the frame white; Pillow fills it with a colour of the GIF's palette."""
    left, first, right, last = drawn
    box = (left, max(first - top, 0), right, min(last - top, strip.height))
    white = Image.new("RGB", strip.size, "white")
    if box[1] < box[3]:
        white.paste(strip.crop(box), box)
    return white


class _PixelBudget:
    """Limits the number of pixels that the threads of this process decode at the same time."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._free, self._changed = MAX_IMAGE_PIXELS, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, MAX_IMAGE_PIXELS)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_PIXELS = _PixelBudget()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_PIXELS.reset)  # the threads that hold pixels do not exist there
