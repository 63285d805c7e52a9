"""Sensitivities: gradients of the log-likelihood of labels drawn from the float network's own predictions.

Their second moments are the Fisher information, which is also the curvature of KL(float || compressed), so that no true
label is needed. Collected once on the float network, in real units; `UnitNet` rescales them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet, normalize_pixels
from ...quantization.quantize import required_preprocessing
from ...spec import Op
from .units import run_graph

__all__ = ["Statistics", "collect_statistics"]

_LABELS_DRAWN = 2  # for each photo
_BATCH = 10


@dataclass(frozen=True)
class Statistics:
    """The result of `collect_statistics`, in real units."""

    row_grams: dict[str, Tensor]
    """For each convolution, (O, O): the mean over photos of D D^T, where D = d log p / dW, (O, K), is one photo's
    gradient."""
    channel_max: dict[str, Tensor]
    """For each tensor that convolutions or additions write, (C,): largest magnitude of each channel."""


def collect_statistics(
    model: SqueezeNet,
    photos: NDArray[np.uint8],
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> Statistics:
    """Run photos (N, H, W, 3) through a model in evaluation mode and sample gradients; `seed` draws the labels."""
    generator = torch.Generator().manual_seed(seed)
    preprocessing = required_preprocessing(model)
    row_grams = {op.name: torch.zeros(op.out_channels, op.out_channels) for op in model.spec.convs}
    channel_max: dict[str, Tensor] = {}
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        run = _Recorder(model, channel_max)
        log_p = run(normalize_pixels(batch, preprocessing)).log_softmax(1)
        labels = torch.multinomial(log_p.detach().exp(), _LABELS_DRAWN, replacement=True, generator=generator)
        for sample in range(_LABELS_DRAWN):
            chosen = log_p.gather(1, labels[:, sample : sample + 1]).sum()
            gradients = torch.autograd.grad(chosen, list(run.outputs.values()), retain_graph=sample + 1 < _LABELS_DRAWN)
            for name, gradient_NOHW in zip(run.outputs, gradients, strict=True):
                d_NOK = torch.bmm(gradient_NOHW.flatten(2), run.columns[name].transpose(1, 2))
                d_OM = d_NOK.transpose(0, 1).flatten(1)
                row_grams[name] += d_OM @ d_OM.t() / (_LABELS_DRAWN * len(photos))
        progress((start + len(batch)) / len(photos))
    return Statistics(row_grams, channel_max)


class _Recorder:
    """Runs a batch and keeps what each convolution read, unfolded to (N, K, positions), and wrote before its ReLU."""

    def __init__(self, model: SqueezeNet, channel_max: dict[str, Tensor]) -> None:
        self._spec, self._convs = model.spec, model.convs
        self._channel_max = channel_max
        self._widths = {name: op.in_channels for op in model.spec.graph() for name in op.inputs}
        self.columns: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, images: Tensor) -> Tensor:
        return run_graph(self._spec, images, self._convolve, self._add)

    def _convolve(self, op: Op, x: Tensor) -> Tensor:
        conv = self._convs[op.name]
        self.columns[op.name] = functional.unfold(x.detach(), op.kernel, padding=op.padding, stride=op.stride)
        y = functional.conv2d(x, conv.weight.detach(), conv.bias, op.stride, op.padding)
        self.outputs[op.name] = y.requires_grad_()
        activation = y.relu() if op.relu else y
        if not op.is_head:
            self._note_range(op, activation)
        return activation

    def _add(self, op: Op, a: Tensor, b: Tensor) -> Tensor:
        self._note_range(op, a + b)
        return a + b

    def _note_range(self, op: Op, y: Tensor) -> None:
        seen = self._channel_max.setdefault(op.output, torch.zeros(self._widths[op.output]))
        channels = slice(op.channel_offset, op.channel_offset + op.out_channels)
        seen[channels] = torch.maximum(seen[channels], y.detach().abs().amax((0, 2, 3)))
