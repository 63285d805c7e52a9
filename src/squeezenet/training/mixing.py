"""TrivialAugment, mixup and cutmix, on whole batches, from torch's generator, which every step seeds anew."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import MissingDependencyError
from .recipe import Recipe

__all__ = ["mix", "trivial_augment"]

_Op = Callable[[Tensor, Tensor], Tensor]


def mix(pixels_NHWC: Tensor, labels: Tensor, recipe: Recipe, num_classes: int) -> tuple[Tensor, Tensor]:
    """Blend each image with another of the batch, as the recipe sets.

    Args:
        pixels_NHWC: Float, 0 to 255.
        labels: Classes, shape (N,).
        recipe: Its `mixup` and `cutmix` hold.
        num_classes: Width of the targets.

    Returns:
        Pixels, and the targets as shares of classes, shape (N, num_classes), float32.

    Source: Zhang et al. 2018 (mixup); Yun et al. 2019 (cutmix).
    """
    targets = F.one_hot(labels, num_classes).float()
    is_mixup = recipe.mixup > 0 and (recipe.cutmix == 0 or bool(torch.rand(()) < 0.5))
    alpha = recipe.mixup if is_mixup else recipe.cutmix
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    partner = torch.randperm(len(labels)).to(labels.device)
    if is_mixup:
        pixels_NHWC = torch.lerp(pixels_NHWC[partner], pixels_NHWC, share)
    else:
        height, width = pixels_NHWC.shape[1:3]
        cut = (1 - share) ** 0.5
        y, x = (int(torch.randint(side, ())) for side in (height, width))
        top, bottom = (int(min(max(y + sign * cut * height / 2, 0), height)) for sign in (-1, 1))
        left, right = (int(min(max(x + sign * cut * width / 2, 0), width)) for sign in (-1, 1))
        pixels_NHWC = pixels_NHWC.clone()
        pixels_NHWC[:, top:bottom, left:right] = pixels_NHWC[partner, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
    return pixels_NHWC, torch.lerp(targets[partner], targets, share)


def trivial_augment(pixels_NHWC: Tensor) -> Tensor:
    """Change every image, pixels from 0 to 255, by one operation of random kind and strength; returns float32.

    Raises:
        MissingDependencyError: If kornia is not installed.

    Source: Mueller and Hutter 2021, "TrivialAugment", the wide space without posterize and equalize, which kornia
    computes image by image.
    """
    ops = _ops()
    kinds = torch.randint(len(ops) + 1, (len(pixels_NHWC),))  # the last kind leaves the image as it is
    strengths = (torch.rand(len(pixels_NHWC)) * 2 - 1).to(pixels_NHWC.device)
    x_NCHW = pixels_NHWC.permute(0, 3, 1, 2).float() / 255
    for kind, op in enumerate(ops):
        rows = torch.nonzero(kinds == kind).flatten().to(pixels_NHWC.device)
        if len(rows):
            x_NCHW[rows] = op(x_NCHW[rows], strengths[rows]).clamp(0, 1)
    return (x_NCHW * 255).permute(0, 2, 3, 1)


def _ops() -> list[_Op]:
    """Operations on images (n, 3, H, W) from 0 to 1 and strengths (n,) from -1 to 1."""
    with MissingDependencyError.named():
        from kornia import enhance
        from kornia.geometry import transform

    shear = functools.partial(transform.shear, padding_mode="zeros", align_corners=False)

    def along(amounts: Tensor, axis: int) -> Tensor:
        other = torch.zeros_like(amounts)
        return torch.stack([amounts, other] if axis == 0 else [other, amounts], dim=1)

    # Strengths at their ends are those of the wide space: 135 degrees, shear by 1, 32 pixels of 224, colours from
    # almost nothing to twice as much.
    return [
        lambda x, s: transform.rotate(x, 135 * s),
        lambda x, s: shear(x, along(0.99 * s, 0)),
        lambda x, s: shear(x, along(0.99 * s, 1)),
        lambda x, s: transform.translate(x, along(s * x.shape[3] / 7, 0)),
        lambda x, s: transform.translate(x, along(s * x.shape[2] / 7, 1)),
        lambda x, s: x * (1 + 0.99 * s).view(-1, 1, 1, 1),
        lambda x, s: enhance.adjust_saturation(x, 1 + 0.99 * s),
        lambda x, s: torch.lerp(x.mean((1, 2, 3), keepdim=True).expand_as(x), x, (1 + 0.99 * s).view(-1, 1, 1, 1)),
        lambda x, s: torch.lerp(_blurred(x), x, (1 + 0.99 * s).view(-1, 1, 1, 1)),
        lambda x, s: torch.where(x >= s.abs().view(-1, 1, 1, 1), 1 - x, x),
        lambda x, s: (x - (low := x.amin((2, 3), keepdim=True))) / (x.amax((2, 3), keepdim=True) - low + 1e-6),
    ]  # fmt: skip


def _blurred(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
