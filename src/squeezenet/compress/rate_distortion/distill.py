"""Distillation: train the integers, as they are, to give the float network's predictions.

The forward pass is the integer network's; gradients pass its roundings straight through to latent weights that start at
the integers. Steps are small, so that few integers change, and those for a reason that all photos share. Biases learn
faster. Photos are varied by crops and flips, and the network is judged on photos that take no part.

Use this after rounding; rounding again with the rate term then lowers the bytes that it leaves.

Source: Bengio et al. 2013 (straight-through gradients); Hinton et al. 2015 (distillation).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...spec import Op
from .units import IntegerConv, UnitNet, run_graph

__all__ = ["DistillSettings", "augmented_photos", "distill"]


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How to distil."""

    weight_rate: float = 0.002
    """Learning rate of weights, in weight steps."""
    bias_rate: float = 0.01
    """Learning rate of biases, in output steps."""
    batch: int = 16
    smallest_crop: float = 0.6
    """Side of the smallest crop, as a share of the photo's."""
    variants: int = 8
    """Crops and flips made of each photo, the photo itself among them."""
    checks: int = 6
    """Times to look at the held-out photos, at least."""


class _RoundThrough(torch.autograd.Function):
    """Round and clamp; gradients pass where the clamp leaves the value alone."""

    @staticmethod
    def forward(ctx, y: Tensor, low: int, high: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward((y > low) & (y < high))
        return y.round().clamp_(low, high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (passes,) = ctx.saved_tensors
        return gradient * passes, None, None


def _round_through(y: Tensor, low: int, high: int) -> Tensor:
    result: Tensor = _RoundThrough.apply(y, low, high)  # type: ignore[no-untyped-call]
    return result


def augmented_photos(photos: Tensor, settings: DistillSettings, seed: int) -> Tensor:
    """Make crops and flips.

    Args:
        photos: (N, H, W, 3), uint8, as the network takes them.
        settings: Gives the number of variants and the smallest crop.
        seed: Of the choices.

    Returns:
        (variants, N, H, W, 3), uint8, the photos themselves first.
    """
    generator = torch.Generator().manual_seed(seed)
    count, side = photos.shape[:2]
    variants = [photos]
    for _ in range(settings.variants - 1):
        made = torch.empty_like(photos)
        for index in range(count):
            size, top, left, flip = torch.rand(4, generator=generator).tolist()
            kept = max(1, round(side * (settings.smallest_crop + (1 - settings.smallest_crop) * size)))
            top, left = int(top * (side - kept + 1)), int(left * (side - kept + 1))
            crop = photos[index, top : top + kept, left : left + kept].permute(2, 0, 1)[None].float()
            resized = functional.interpolate(crop, (side, side), mode="bilinear", align_corners=False, antialias=True)
            image = resized[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
            made[index] = image.flip(1) if flip < 0.5 else image
        variants.append(made)
    return torch.stack(variants)


def distill(
    net: UnitNet,
    integers: Mapping[str, IntegerConv],
    photos: Tensor,
    teacher: Tensor,
    seconds: float,
    settings: DistillSettings,
    held_out_kl: Callable[[Mapping[str, IntegerConv]], float],
    *,
    train_weights: bool = True,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, IntegerConv], float]:
    """Train integers for a while and return the best ones seen.

    Args:
        net: The float network, for its units.
        integers: Where to begin; not changed.
        photos: (M, H, W, 3), uint8.
        teacher: The float network's logits on them, (M, classes).
        seconds: Time to spend; one short trial step finds how many steps that is.
        settings: See there.
        held_out_kl: Judges integers on photos that are not among `photos`.
        train_weights: Else biases alone, which leaves the bytes of the weights as they are.
        seed: Of the order of photos.
        progress: Called with the share that is done.
        log: Called with a line at each check.

    Returns:
        Integers and their held-out KL, in nats.
    """
    student = _Student(net, integers)
    groups = [{"params": list(student.biases.values()), "lr": settings.bias_rate, "peak": settings.bias_rate}]
    if train_weights:
        groups.append(
            {"params": list(student.weights.values()), "lr": settings.weight_rate, "peak": settings.weight_rate}
        )
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12)
    generator = torch.Generator().manual_seed(seed)
    log_teacher = teacher.log_softmax(1)
    best, best_kl = dict(integers), held_out_kl(integers)
    log(f"start {best_kl:.4f}")
    started = time.monotonic()
    order = torch.empty(0, dtype=torch.int64)
    next_check = share = 0.0
    next_check = 1 / settings.checks
    while share < 1:
        if len(order) < settings.batch:
            order = torch.randperm(len(photos), generator=generator)
        chosen, order = order[: settings.batch], order[settings.batch :]
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * share)) + 1e-9
        optimizer.zero_grad(set_to_none=True)
        logits = student.logits(net.pixels(photos[chosen]), train_weights=train_weights)
        loss = functional.kl_div(logits.log_softmax(1), log_teacher[chosen], reduction="batchmean", log_target=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        share = (time.monotonic() - started) / seconds
        progress(min(share, 1.0))
        if share >= next_check:
            next_check += 1 / settings.checks
            candidate = student.integers()
            kl = held_out_kl(candidate)
            log(f"{share:.2f} loss {loss.item():.4f} held out {kl:.4f}")
            if kl < best_kl:
                best, best_kl = candidate, kl
    return best, best_kl


class _Student:
    """Latent weights and biases over a network's integers."""

    def __init__(self, net: UnitNet, integers: Mapping[str, IntegerConv]) -> None:
        self._net = net
        self._start = integers
        self.weights = {name: conv.weight.clone().requires_grad_() for name, conv in integers.items()}
        self.biases = {
            name: (conv.bias * conv.step.double()).float().requires_grad_() for name, conv in integers.items()
        }

    def logits(self, x: Tensor, *, train_weights: bool) -> Tensor:
        """Class scores of the integers the latent weights round to, in bfloat16 inside."""

        def convolve(op: Op, x: Tensor) -> Tensor:
            latent = self.weights[op.name]
            rounded = latent.detach().round().clamp_(-127, 127)
            if train_weights:
                rounded = rounded + (latent - latent.detach())
            step = self._start[op.name].step[:, None, None, None]
            weight = (rounded * step).to(torch.bfloat16, memory_format=torch.channels_last)
            y = functional.conv2d(x, weight, self.biases[op.name].bfloat16(), op.stride, op.padding)
            if op.is_head:
                return (y.relu() if op.relu else y).float()
            return _round_through(y, *self._net.clamp(op.output))

        def add(op: Op, a: Tensor, b: Tensor) -> Tensor:
            return _round_through(self._net.add(op, a, b), *self._net.clamp(op.output))

        start = x.to(torch.bfloat16, memory_format=torch.channels_last)
        return run_graph(self._net.spec, start, convolve, add)

    def integers(self) -> dict[str, IntegerConv]:
        """The integers as a file would hold them."""
        result = {}
        for name, conv in self._start.items():
            weight = self.weights[name].detach().round().clamp_(-127, 127)
            bias = self.biases[name].detach().double() / conv.step.double()
            grain = _grain(conv.bias)
            result[name] = IntegerConv(weight, (bias / grain).round() * grain, conv.step)
        return result


def _grain(bias: Tensor) -> float:
    """Largest power of two that divides all biases: the precision that rounding chose for them."""
    grain = 1.0
    while grain < 2**24 and bool((bias % (2 * grain) == 0).all()):
        grain *= 2
    return grain if bool(bias.any()) else 1.0
