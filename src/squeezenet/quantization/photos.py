"""Photos that show a compressor what the network's activations look like.

Use this when a compressor needs pixels and the user gave a DATA argument, or nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..data import ImageSet, decode_batches
from ..data.imageset import evenly_spaced
from ..errors import DataError
from ..preprocess import Preprocessing

__all__ = ["CalibrationPhotos", "calibration_from_images", "calibration_from_noise", "is_held_out"]

_HELD_OUT_EVERY = 5
_NOISE_IMAGES = 64


def is_held_out(n_photos: int) -> NDArray[np.bool_]:
    """Which of some photos are set aside to measure on, shape (n_photos,): every fifth."""
    held: NDArray[np.bool_] = np.arange(n_photos) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return held


class CalibrationPhotos:
    """Pixels to calibrate on, and a fifth of them set aside to measure on."""

    def __init__(
        self, pixels: NDArray[np.uint8], *, indices: NDArray[np.int64] | None = None, is_synthetic: bool = False
    ) -> None:
        """Split pixels, shape (N, H, W, 3), uint8: every fifth image is set aside, if there are five.

        `indices` are the images' positions in the set they come from.
        """
        held = is_held_out(len(pixels)) & (not is_synthetic)
        self.all_pixels = pixels
        self.pixels = pixels[~held]
        self.held_out = pixels[held]
        self.is_synthetic = is_synthetic
        self.held_out_indices = indices[held] if indices is not None else np.zeros(0, np.int64)

    def batches(self, batch_size: int = 25) -> list[NDArray[np.uint8]]:
        """The pixels to calibrate on, in batches."""
        return [self.pixels[start : start + batch_size] for start in range(0, len(self.pixels), batch_size)]


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
    return CalibrationPhotos(pixels, indices=chosen[np.concatenate([batch.indices for batch in batches])])


def calibration_from_noise(preprocessing: Preprocessing, *, seed: int = 0) -> CalibrationPhotos:
    """Make pictures with the power spectrum of photographs (amplitude falls as 1/frequency), for want of any.

    Source: Field 1987 (statistics of natural images).
    """
    size = preprocessing.crop_size
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = 1
    # Channels of photographs move together: what they share is twice as strong as what is their own.
    own, common = (rng.normal(size=(2, _NOISE_IMAGES, channels, *frequency.shape)) for channels in (3, 1))
    spectrum = (own + 2 * common) / frequency
    images = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(size, size))
    images -= images.min(axis=(1, 2, 3), keepdims=True)
    images *= 255 / images.max(axis=(1, 2, 3), keepdims=True).clip(1e-9)
    return CalibrationPhotos(np.rint(images).astype(np.uint8).transpose(0, 2, 3, 1), is_synthetic=True)
