"""Sources of activation ranges for compression: photos, published ranges or synthetic pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..data import ImageSet, Unreadable, decode_batches
from ..data.imageset import evenly_spaced
from ..errors import DataError
from ..models import SqueezeNet
from ..preprocess import Preprocessing
from .published_ranges import published_ranges
from .quantize import activation_ranges, required_preprocessing

__all__ = [
    "CalibrationPhotos", "CalibrationSource", "calibration_from_images", "calibration_without_photos",
    "choose_calibration", "is_held_out", "leaf_pictures", "noise_pictures",
]  # fmt: skip

CalibrationSource = Literal["photos", "published activation ranges", "synthetic pictures"]

_HELD_OUT_EVERY = 5
_PICTURES_OF_A_KIND = 64
_LEAVES = 400  # shapes in a picture
_NOISE_RANGE_FACTOR = 2.0  # photographs reach about twice as far as noise; 2 to 2.5 are equally good (dev/LOG.md)


def is_held_out(n_photos: int) -> NDArray[np.bool_]:
    """Mask of the photos that are held out for measuring, shape (n_photos,): every fifth."""
    return np.asarray(np.arange(n_photos) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1)


class CalibrationPhotos:
    """Pixels to calibrate on, and a fifth of the photos, held out for measuring."""

    all_pixels: NDArray[np.uint8]
    """(N, H, W, 3)"""
    pixels: NDArray[np.uint8]
    """The pixels to calibrate on."""
    held_out: NDArray[np.uint8]
    """The held-out pixels; none if the pixels are not photos."""
    held_out_indices: NDArray[np.int64]
    """Positions of the held-out photos in their set."""
    source: CalibrationSource
    """Source of the activation ranges, for messages."""
    unreadable: tuple[Unreadable, ...]
    """Photos that were chosen and could not be read."""
    ranges: Mapping[str, tuple[float, float]] | None
    """Smallest and largest value of each quantised tensor, if they do not come from `pixels`; None with photos."""

    def __init__(
        self,
        pixels: NDArray[np.uint8],
        *,
        indices: NDArray[np.int64] | None = None,
        source: CalibrationSource = "photos",
        ranges: Mapping[str, tuple[float, float]] | None = None,
        unreadable: Sequence[Unreadable] = (),
    ) -> None:
        """Hold out every fifth photo; `indices` are the positions of the images in their set."""
        self.unreadable = tuple(unreadable)
        held = is_held_out(len(pixels)) & (source == "photos")
        self.all_pixels, self.pixels, self.held_out = pixels, pixels[~held], pixels[held]
        self.held_out_indices = indices[held] if indices is not None else np.zeros(0, np.int64)
        self.source, self.ranges = source, ranges

    @property
    def is_synthetic(self) -> bool:
        """Whether there are no photos, so that fidelity cannot be measured."""
        return self.source != "photos"

    def batches(self, batch_size: int = 25) -> list[NDArray[np.uint8]]:
        """The pixels to calibrate on, in batches."""
        return list(_batches(self.pixels, batch_size))


def choose_calibration(
    model: SqueezeNet, images: ImageSet | None, *, n_photos: int = 250, takes_ranges: bool = True
) -> CalibrationPhotos:
    """Choose at most `n_photos` photos to calibrate on or, if there are none, published ranges or synthetic pictures.

    `takes_ranges`: whether published ranges can be used; a method that needs pixels gets synthetic pictures only.

    Raises:
        DataError: If none of the photos can be read.
        QuantizationError: If the model has no preprocessing.
    """
    if images is None:
        return calibration_without_photos(model, takes_ranges=takes_ranges)
    return calibration_from_images(images, required_preprocessing(model), n_images=n_photos)


def calibration_from_images(images: ImageSet, preprocessing: Preprocessing, *, n_images: int) -> CalibrationPhotos:
    """Decode up to `n_images` photos, evenly spaced over the set; unreadable ones are left out.

    Raises:
        DataError: If none can be read.
    """
    chosen = np.array(evenly_spaced(len(images), n_images), np.int64)
    batches = list(decode_batches(images.subset(chosen.tolist()), preprocessing))
    pixels = np.concatenate([batch.pixels for batch in batches])
    if not len(pixels):
        raise DataError(f"{images.name}: none of {len(chosen)} photos could be read")
    unreadable = [entry for batch in batches for entry in batch.unreadable]
    indices = chosen[np.concatenate([batch.indices for batch in batches])]
    return CalibrationPhotos(pixels, indices=indices, unreadable=unreadable)


def calibration_without_photos(model: SqueezeNet, *, takes_ranges: bool = True) -> CalibrationPhotos:
    """Take the published ranges of published weights; for other networks, twice the range that noise shows.

    The pixels are `noise_pictures` and `leaf_pictures` in turn.

    Raises:
        QuantizationError: If the model has no preprocessing.
    """
    size = required_preprocessing(model).crop_size
    noise = noise_pictures(size)
    pixels = np.stack([noise, leaf_pictures(size)], axis=1).reshape(-1, size, size, 3)
    if takes_ranges and (published := published_ranges(model)):
        return CalibrationPhotos(pixels, source="published activation ranges", ranges=published)
    shown = activation_ranges(model, _batches(noise, 16))
    ranges = {name: (_NOISE_RANGE_FACTOR * low, _NOISE_RANGE_FACTOR * high) for name, (low, high) in shown.items()}
    return CalibrationPhotos(pixels, source="synthetic pictures", ranges=ranges)


def noise_pictures(size: int) -> NDArray[np.uint8]:
    """Make pictures (64, size, size, 3) with the power spectrum of photographs, whose amplitude falls as 1/frequency.

    They are the same in every call; each fills the range of uint8.

    Source: Field 1987 (statistics of natural images).
    """
    images = _noise(np.random.default_rng(0), _PICTURES_OF_A_KIND, size)
    images -= images.min(axis=(1, 2, 3), keepdims=True)
    images *= 255 / images.max(axis=(1, 2, 3), keepdims=True).clip(1e-9)
    return np.rint(images).astype(np.uint8).transpose(0, 2, 3, 1)


def leaf_pictures(size: int) -> NDArray[np.uint8]:
    """Make pictures (64, size, size, 3), uint8, of overlapping shapes under noise: edges at all scales.

    They are the same in every call.

    Source: Lee, Mumford and Huang 2001 (occlusion models for natural images: "dead leaves").
    """
    rng = np.random.default_rng(0)
    textures = _noise(rng, _PICTURES_OF_A_KIND, size)
    textures *= rng.uniform(0, 50, (len(textures), 1, 1, 1)) / textures.std(axis=(1, 2, 3), keepdims=True).clip(1e-9)
    return np.stack([_leaves(rng, texture) for texture in textures.transpose(0, 2, 3, 1)])


def _leaves(rng: np.random.Generator, texture: NDArray[np.float64]) -> NDArray[np.uint8]:
    size = len(texture)
    smallest, largest = 0.01 * size, 0.5 * size
    radii = (smallest**-2 - rng.uniform(size=_LEAVES) * (smallest**-2 - largest**-2)) ** -0.5  # density r**-3
    radii[:10] = np.sort(rng.uniform(0.2 * size, largest, 10))[::-1]  # the ground, hardly any of it is left bare
    palette = _noise(rng, 1, 64)[0].reshape(3, -1).T
    palette = rng.uniform(60, 190) + 70 * palette / palette.std()
    image = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(image)
    for radius in radii:
        corners = int(rng.choice([3, 4, 5, 24]))
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 1, corners) * (corners < 24)
        stretch, turn = np.exp(rng.normal(0, 0.25)), rng.uniform(0, np.pi)
        outline = radius * (stretch * np.cos(angles) + 1j * np.sin(angles) / stretch) * np.exp(1j * turn)
        outline += complex(*rng.uniform(-0.1 * size, 1.1 * size, 2))
        color = palette[rng.integers(len(palette))].clip(0, 255).astype(int).tolist()
        draw.polygon(list(zip(outline.real.tolist(), outline.imag.tolist(), strict=True)), fill=tuple(color))
    pixels: NDArray[np.uint8] = np.rint((np.asarray(image) + texture).clip(0, 255)).astype(np.uint8)
    return pixels


def _noise(rng: np.random.Generator, count: int, size: int) -> NDArray[np.float64]:
    """Noise of amplitude 1/frequency, shape (count, 3, size, size)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    # Channels of photographs move together: what they share is twice as strong as what is their own.
    own, common = (rng.normal(size=(2, count, channels, *frequency.shape)) for channels in (3, 1))
    spectrum = (own + 2 * common) / frequency
    noise: NDArray[np.float64] = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(size, size))
    return noise


def _batches(pixels: NDArray[np.uint8], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pixels), batch_size):
        yield pixels[start : start + batch_size]
