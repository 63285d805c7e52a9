"""Preprocessing: from image bytes to the uint8 RGB pixels that a network reads.

`load_image` turns any supported file into an upright RGB image; `Preprocessing` is the geometry (resize, crop)
that belongs to a network and is stored in its file. Both are specified in docs/format.md: the same bytes
give the same pixels everywhere. Normalisation is not applied here: engines fold it into conv1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .errors import ImageError
from .images import MAX_IMAGE_PIXELS, Decoded, ImageSource, reading, source_name

__all__ = ["Preprocessing", "ResizeMode", "load_image"]

ResizeMode = Literal["short_side", "squash"]
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MAX_SIZE = 4096


def load_image(source: ImageSource, *, max_pixels: int = MAX_IMAGE_PIXELS) -> Image.Image:
    """Decode the first frame of an image as upright 8-bit RGB.

    EXIF orientation is applied, transparency is laid over white, grey and CMYK become RGB, and 16-bit channels keep
    their high byte.

    Args:
        source: Path, encoded bytes, seekable binary stream, a Pillow image (left as it is), or pixels as a uint8 array
            of shape (H, W, 3), RGB, or (H, W), grey.
        max_pixels: Refuse larger images before decoding them.

    Raises:
        ImageError: If the source is not a readable image of `IMAGE_FORMATS`, is truncated, or is too large.

    Example:
        >>> load_image(np.zeros((2, 3), np.uint8)).size
        (3, 2)
    """
    with reading(source, max_pixels=max_pixels) as decoded:
        image = decoded.rgb()
        return image.copy() if image is source else image


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Geometry and normalisation that a network was trained with.

    Calling it returns the engine's input. It does not apply `mean` and `std`, which float networks use: in compressed
    networks they are folded into conv1.

    Raises:
        ImageError: On construction, if a value is impossible.
    """

    crop_size: int
    """Height and width of the centre crop: the network's input size."""
    resize_size: int
    """Side length to resize to before the crop, in pixels."""
    resize_mode: ResizeMode = "short_side"
    """`short_side` keeps the aspect ratio; `squash` scales both sides to the same size, as the authors' Caffe tools
    did."""
    resample: str = "bilinear"
    """Pillow's antialiased kernel: `bilinear` or `bicubic`."""
    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    """Subtracted from R, G, B, in pixel units 0 to 255."""
    std: tuple[float, float, float] = (64.0, 64.0, 64.0)
    """Divided by after the mean, in pixel units."""

    def __post_init__(self) -> None:
        """Check sizes and names."""
        for name in ("crop_size", "resize_size"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MAX_SIZE:
                raise ImageError(f"expected a whole number from 1 to {_MAX_SIZE} for `{name}`, got {value!r}")
        if self.resize_size < self.crop_size:
            raise ImageError(
                f"expected `resize_size` of at least `crop_size` (={self.crop_size}), got {self.resize_size}"
            )
        if self.resize_mode not in get_args(ResizeMode):
            raise ImageError(f"expected `resize_mode` to be one of {get_args(ResizeMode)}, got {self.resize_mode!r}")
        if self.resample not in _RESAMPLE:
            raise ImageError(f"expected `resample` to be one of {sorted(_RESAMPLE)}, got {self.resample!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(np.isfinite((*self.mean, *self.std))):
            raise ImageError(f"expected three finite numbers each for mean and std, got {self.mean} and {self.std}")
        if min(self.std) <= 0:
            raise ImageError(f"expected a positive `std`, got {self.std}")

    def __call__(self, source: ImageSource) -> NDArray[np.uint8]:
        """Decode, resize and centre-crop one image.

        Returns:
            Pixels, shape (crop_size, crop_size, 3), uint8, RGB.

        Raises:
            ImageError: If the image cannot be read.
        """
        with reading(source) as decoded:
            return self._view(decoded, source)

    def _view(self, decoded: Decoded, source: ImageSource) -> NDArray[np.uint8]:
        image = decoded.image
        width, height = self.resized_size(image.width, image.height)
        if width * max(height, image.height) > MAX_IMAGE_PIXELS:
            # A few pixels wide and many thousands high: a file of some bytes that would resize to gigabytes, in the
            # end or once its columns are resized.
            raise ImageError(
                f"expected at most {MAX_IMAGE_PIXELS} pixels after the resize, got {width}x{max(height, image.height)}"
                f" from {image.width}x{image.height}: crop it first",
                source=source_name(source),
            )
        # Two calls, since Pillow from 13 on takes the rows first where the height shrinks more; the contract does not.
        resample = _RESAMPLE[self.resample]
        resized = decoded.resized(width, resample).resize((width, height), resample)
        left, top = (_crop_offset(side, self.crop_size) for side in resized.size)
        return np.asarray(resized.crop((left, top, left + self.crop_size, top + self.crop_size)))

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize, before the crop."""
        if self.resize_mode == "squash":
            return self.resize_size, self.resize_size
        short = min(width, height)
        # The long side is rounded down, as torchvision's Resize does, but never so far that the crop would not fit.
        return max(self.resize_size * width // short, 1), max(self.resize_size * height // short, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def plain(cls, size: int) -> Preprocessing:
        """Return the preprocessing of networks without their own: short side and centre crop of `size` pixels."""
        return cls(crop_size=size, resize_size=size)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocessing:
        """Build from `to_dict`'s data.

        Raises:
            ImageError: If fields are missing, unknown, of another type, or impossible.
        """
        if not isinstance(data, Mapping):
            raise ImageError(f"expected the fields of a preprocessing, got {data!r}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - known, key=str):
            raise ImageError(f"expected only {sorted(known)} in a preprocessing, got {unknown}")
        try:
            settings = dict(data)
            for key in {"mean", "std"} & set(settings):
                if not all(type(value) in (int, float) for value in settings[key]):
                    raise ImageError(f"expected three numbers for `{key}`, got {settings[key]!r}")
                settings[key] = tuple(float(value) for value in settings[key])
            return cls(**settings)
        except (TypeError, OverflowError) as error:
            raise ImageError(f"expected the fields of a preprocessing, got {dict(data)!r} ({error})") from None


def _crop_offset(side: int, crop: int) -> int:
    return round((side - crop) / 2)  # half to even, as torchvision's CenterCrop does


# The preprocessings of published weights.
TORCHVISION_PREPROCESSING = Preprocessing(
    resize_size=256, crop_size=224, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
CAFFE_PREPROCESSING = Preprocessing(
    resize_size=256, crop_size=227, resize_mode="squash", mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0)
)
