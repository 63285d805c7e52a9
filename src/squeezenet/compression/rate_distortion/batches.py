"""What distillation learns from: endless batches of pixels.

Use `photo_batches` for a few hundred unlabelled photos, `epoch_batches` for a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["augmented_photos", "epoch_batches", "photo_batches"]


def augmented_photos(photos: Tensor, *, variants: int, smallest_crop: float, seed: int) -> Tensor:
    """Make crops and flips of photos.

    Args:
        photos: (N, H, W, 3), uint8, as the network takes them.
        variants: Versions of each photo, the photo itself among them.
        smallest_crop: Side of the smallest crop, as a share of the photo's.
        seed: Of the choices.

    Returns:
        (variants * N, H, W, 3), uint8, the photos themselves first.
    """
    generator = torch.Generator().manual_seed(seed)
    side = photos.shape[1]
    made = [photos]
    for _ in range(variants - 1):
        version = torch.empty_like(photos)
        for index, photo in enumerate(photos):
            size, top, left, flip = torch.rand(4, generator=generator).tolist()
            kept = max(1, round(side * (smallest_crop + (1 - smallest_crop) * size)))
            top, left = int(top * (side - kept + 1)), int(left * (side - kept + 1))
            crop = photo[top : top + kept, left : left + kept].permute(2, 0, 1)[None].float()
            resized = functional.interpolate(crop, (side, side), mode="bilinear", align_corners=False, antialias=True)
            image = resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
            version[index] = image.flip(1) if flip < 0.5 else image
        made.append(version)
    return torch.cat(made)


def photo_batches(photos: Tensor, *, batch: int, seed: int) -> Iterator[Tensor]:
    """Shuffle photos for ever.

    Args:
        photos: (M, H, W, 3), uint8.
        batch: Photos a batch.
        seed: Of the order.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(photos), generator=generator)
        for start in range(0, max(1, len(photos) - batch + 1), batch):
            yield photos[order[start : start + batch]]


def epoch_batches(epoch: Callable[[int], Iterable[tuple[Tensor, Tensor]]]) -> Iterator[Tensor]:
    """Go through a data set for ever.

    Args:
        epoch: Gives the batches of an epoch by its number: pixels (n, H, W, 3) uint8, augmented, and labels (not used).
    """
    number = 0
    while True:
        is_empty = True
        for pixels, _ in epoch(number):
            if len(pixels):
                is_empty = False
                yield pixels
        if is_empty:
            return
        number += 1
