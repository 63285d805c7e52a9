"""Distillation: train the integers directly to reproduce the float network's predictions.

The forward pass is that of the integer network. Gradients pass through its roundings unchanged to latent weights,
which start at the integers. Learning rates are small, so that a weight changes only if many photos agree, and latent
weights are averaged over time. The network is selected on held-out photos. A prediction has only a few numbers per
photo, but the features have thousands: matching the features of the last Fire too makes better use of each photo.

Source: Bengio et al. 2013 (straight-through gradients); Hinton et al. 2015 (distillation); Romero et al. 2014
(features).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet, normalize_pixels
from ...network import MAX_ABS_WEIGHT, FloatConv
from ...quantization.quantize import required_preprocessing
from ...spec import ArchSpec, Op
from .units import IntegerConv, Integers, UnitNet, run_graph

__all__ = ["DistillSettings", "Length", "Rate", "distill"]

_TINY = 2.0**-30
_CHECKS = 16  # measurements of held-out KL and bytes during a training
_SLOPE_CHANGE = 1.4  # factor of the slope at a check, if the bytes are above or below the share to use
_SHARE_TO_USE = 0.997  # target, as a share of the bytes allowed


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Settings of distillation; the defaults are for a few hundred photos."""

    weight_rate: float = 0.002
    """Learning rate of weights, in weight steps."""
    bias_rate: float = 0.01
    """Learning rate of biases, in output steps."""
    features: float = 0.0
    """Weight of the squared error of features, relative to the squares of the features; it is added to the nats."""
    averaging: float = 0.98
    """Decay per step of the average of latent weights."""
    trains_head: bool = True
    """Whether the last layer is trained too; photos of only a few classes are not enough to train it."""
    patience: int = _CHECKS
    """End after this number of checks (of 16) in a row in which the network was not better on held-out photos."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The number of bytes allowed, and the cost of a bit."""

    slope: float
    """Initial cost of a bit, nats."""
    max_bytes: float
    measure: Callable[[Integers], int]
    """Function that computes the bytes of a file with given integers."""


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length of the training: one of the two fields."""

    seconds: float | None = None
    steps: int | None = None

    @property
    def is_zero(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.steps or self.seconds)

    def share(self, steps: int, seconds: float) -> float:
        """Share of the training that is over."""
        done, of = (seconds, self.seconds) if self.steps is None else (steps, self.steps)
        return done / of if of else 1.0


def distill(
    net: UnitNet,
    integers: Integers,
    batches: Iterator[Tensor],
    length: Length,
    settings: DistillSettings,
    held_out_kl: Callable[[Integers], float],
    *,
    answers_of: SqueezeNet | None = None,
    rate: Rate | None = None,
    device: torch.device | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> tuple[Integers, float]:
    """Train integers for a while and return the best ones seen, with their `held_out_kl`.

    With a rate, the loss is that of rounding: nats plus slope times bits. The slope is changed so that the bytes stay
    within what is allowed; integers above it are not returned, unless all are.

    Args:
        net: The float network that was rounded; the teacher.
        integers: Integers to start from; they are not changed.
        batches: Endless batches of pixels (n, H, W, 3), uint8.
        length: When to stop; learning rates fall to zero by then.
        settings: Learning rates and weights of the loss.
        held_out_kl: Function that measures the KL of integers on photos that are not in `batches`.
        answers_of: Float network whose class scores are the targets instead of those of `net`; its features are not.
        rate: Bytes allowed. Without it the size is not controlled, and changes by about one per cent.
        device: Device to train on; by default the CPU.
        progress: Called with the share that is done.
    """
    device = device or torch.device("cpu")
    kept = set() if settings.trains_head else {op.name for op in net.spec.convs if op.is_head}
    teacher, student = _Teacher(net, device, answers_of), _Student(net, integers, device, kept)
    groups = [
        {"params": [latent for latent in latents.values() if latent.requires_grad], "peak": peak}
        for latents, peak in ((student.biases, settings.bias_rate), (student.weights, settings.weight_rate))
    ]
    optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-12)
    best = _Best(integers, held_out_kl, rate)
    started = time.monotonic()
    steps, share, next_check = 0, length.share(0, 0.0), 1 / _CHECKS
    while share < 1 and best.looks_in_vain < settings.patience:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * share))
        optimizer.zero_grad(set_to_none=True)
        _loss(student, teacher, next(batches).to(device), settings.features).backward()  # type: ignore[no-untyped-call]
        student.charge(best.slope)
        optimizer.step()
        student.average(min(settings.averaging, (1 + steps) / (10 + steps)))
        steps += 1
        share = length.share(steps, time.monotonic() - started)
        progress(min(share, 1.0))
        if share >= next_check:
            next_check += 1 / _CHECKS
            best.look_at(student.integers())
    return best.integers, best.kl


class _Best:
    """The best integers seen, and the slope that keeps their bytes within what is allowed."""

    def __init__(self, integers: Integers, held_out_kl: Callable[[Integers], float], rate: Rate | None) -> None:
        self._held_out_kl, self._rate = held_out_kl, rate
        self.slope = rate.slope if rate else 0.0
        self.integers, self.kl = integers, held_out_kl(integers)
        self._excess = max(0.0, rate.measure(integers) - rate.max_bytes) if rate else 0.0
        self.looks_in_vain = 0

    def look_at(self, candidate: Integers) -> None:
        kl, excess = self._held_out_kl(candidate), 0.0
        self.looks_in_vain += 1
        if self._rate:
            n_bytes = self._rate.measure(candidate)
            excess = max(0.0, n_bytes - self._rate.max_bytes)
            is_above = n_bytes > _SHARE_TO_USE * self._rate.max_bytes
            self.slope *= _SLOPE_CHANGE if is_above else 1 / _SLOPE_CHANGE
        if (excess, kl) < (self._excess, self.kl):
            self.integers, self.kl, self._excess, self.looks_in_vain = candidate, kl, excess, 0


def _loss(student: _Student, teacher: _Teacher, pixels: Tensor, features_weight: float) -> Tensor:
    # Labels are not used, even if they are known: on images that trained the float network they do more harm than
    # good (dev/LOG.md).
    expected, expected_features = teacher(pixels)
    logits, features = student(pixels)
    loss = functional.kl_div(logits.log_softmax(1), expected.log_softmax(1), reduction="batchmean", log_target=True)
    if features_weight:
        for found, target in zip(features, expected_features, strict=True):
            error = (found.float() - target.float()).square().mean() / target.float().square().mean().clamp(min=_TINY)
            loss = loss + features_weight / len(features) * error
    return loss


def _feature_ops(spec: ArchSpec) -> set[str]:
    """The convolutions whose outputs are matched: those that write the last tensor before the head."""
    output = spec.convs[-2].output
    return {op.name for op in spec.convs if op.output == output}


class _Teacher:
    """The float network in activation steps, in bfloat16, which is precise enough for targets."""

    def __init__(self, net: UnitNet, device: torch.device, answers_of: SqueezeNet | None) -> None:
        self._model = copy.deepcopy(answers_of).to(device, torch.bfloat16) if answers_of is not None else None
        self._matched = _feature_ops(net.spec)
        convs = {}
        for name, conv in net.convs.items():
            weight = conv.weight.to(device, torch.bfloat16, memory_format=torch.channels_last)
            convs[name] = FloatConv(weight, conv.bias.to(device, torch.bfloat16))
        self._net = replace(net, convs=convs)

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Class scores (n, classes), and features in activation steps."""
        features = []

        def watch(op: Op, y: Tensor) -> None:
            if op.name in self._matched:
                features.append(y)

        x = self._net.pixels(pixels).to(torch.bfloat16, memory_format=torch.channels_last)
        logits = self._net.logits(x, watch)
        if self._model is not None:
            x = normalize_pixels(pixels, required_preprocessing(self._model))
            logits = self._model(x.to(torch.bfloat16)).float()
        return logits, features


class _Student:
    """Latent weights and biases over a network's integers."""

    def __init__(self, net: UnitNet, integers: Integers, device: torch.device, kept: set[str]) -> None:
        """Train all convolutions but those in `kept`."""
        self._net, self._start, self._matched = net, integers, _feature_ops(net.spec)
        self._steps = {name: conv.step.to(device)[:, None, None, None] for name, conv in integers.items()}
        self.weights = {name: conv.weight.to(device, copy=True) for name, conv in integers.items()}
        self.biases = {name: (conv.bias * conv.step.double()).float().to(device) for name, conv in integers.items()}
        self._latents = [*self.biases.values(), *self.weights.values()]
        self._average = [latent.clone() for latent in self._latents]
        for latents in (self.biases, self.weights):
            for name in latents.keys() - kept:
                latents[name].requires_grad_()

    def __call__(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Like `_Teacher`, for the integers that the latent weights round to; computed in bfloat16."""
        features = []

        def convolve(op: Op, x: Tensor) -> Tensor:
            latent = self.weights[op.name]
            rounded = latent.detach().round().clamp_(-MAX_ABS_WEIGHT, MAX_ABS_WEIGHT) + (latent - latent.detach())
            weight = (rounded * self._steps[op.name]).to(torch.bfloat16, memory_format=torch.channels_last)
            y = functional.conv2d(x, weight, self.biases[op.name].bfloat16(), op.stride, op.padding)
            if op.is_head:
                return (y.relu() if op.relu else y).float()
            y = _round_through(y, *self._net.clamp(op.output))
            if op.name in self._matched:
                features.append(y)
            return y

        def add(op: Op, a: Tensor, b: Tensor) -> Tensor:
            return _round_through(self._net.add(op, a, b), *self._net.clamp(op.output))

        x = self._net.pixels(pixels).to(torch.bfloat16, memory_format=torch.channels_last)
        return run_graph(self._net.spec, x, convolve, add), features

    @torch.no_grad()
    def charge(self, slope: float) -> None:
        """Add the cost of bits to the gradients: slope times the derivative of 2 log2(1 + 2 |w|).

        So the first step away from zero costs 3.2 bits and the next 1.5, about what the coder charges.
        """
        for latent in self.weights.values() if slope else ():
            if latent.grad is not None:
                latent.grad += latent.sign() * (4 / math.log(2) * slope) / (1 + 2 * latent.abs())

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Update the running average of the latent values."""
        torch._foreach_lerp_(self._average, self._latents, 1 - decay)

    def integers(self) -> dict[str, IntegerConv]:
        """The integers for a file, rounded from the average of the latent values."""
        result, n_convs = {}, len(self._start)
        averages = zip(self._average[:n_convs], self._average[n_convs:], strict=True)
        for (name, conv), (bias, weight) in zip(self._start.items(), averages, strict=True):
            grain = _grain(conv.bias)
            result[name] = replace(
                conv,
                weight=weight.cpu().round().clamp_(-MAX_ABS_WEIGHT, MAX_ABS_WEIGHT),
                bias=(bias.cpu().double() / conv.step.double() / grain).round() * grain,
            )
        return result


class _RoundThrough(torch.autograd.Function):
    """Round and clamp; gradients pass where the value was not clamped."""

    @staticmethod
    def forward(ctx, y: Tensor, low: int, high: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(y)
        ctx.range = low, high
        return y.round().clamp_(low, high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (y,) = ctx.saved_tensors
        # One pass over both tensors; comparisons of bfloat16 and a product with a mask took a third of a step.
        return torch.ops.aten.hardtanh_backward(gradient, y, *ctx.range), None, None


def _round_through(y: Tensor, low: int, high: int) -> Tensor:
    result: Tensor = _RoundThrough.apply(y, low, high)  # type: ignore[no-untyped-call]
    return result


def _grain(bias: Tensor) -> float:
    """Largest power of two that divides all biases: the precision that rounding chose for them."""
    grain = 1.0
    while grain < 2**24 and bool((bias % (2 * grain) == 0).all()):
        grain *= 2
    return grain if bool(bias.any()) else 1.0
