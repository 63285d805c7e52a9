"""What the loss feels: gradients of the log-likelihood of labels drawn from the float network's own predictions.

Second moments of these gradients are the Fisher information, which is also the curvature of KL(float || compressed), so
no true label is needed. Collected once on the float network, in real units; `UnitNet` rescales them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet
from ...spec import Op
from .units import run_graph

__all__ = ["Statistics", "collect_statistics"]


@dataclass(frozen=True)
class Statistics:
    """What `collect_statistics` finds, in real units."""

    row_grams: dict[str, Tensor]
    """By convolution, (O, O): mean over photos of D D^T, D = d log p / dW the (O, K) gradient of one photo."""
    channel_max: dict[str, Tensor]
    """By tensor that convolutions or additions write, (C,): largest magnitude of each channel."""


def collect_statistics(
    model: SqueezeNet,
    images: Callable[[int, int], Tensor],
    count: int,
    *,
    seed: int = 0,
    samples: int = 2,
    batch: int = 10,
    progress: Callable[[float], None] = lambda share: None,
) -> Statistics:
    """Run photos through a model and sample gradients.

    Args:
        model: In eval mode.
        images: Gives the normalised images of a range of photos, (n, 3, H, W).
        count: Photos.
        seed: Of the labels drawn.
        samples: Labels drawn for each photo.
        batch: Photos at a time.
        progress: Called with the share that is done.
    """
    generator = torch.Generator().manual_seed(seed)
    row_grams = {op.name: torch.zeros(op.out_channels, op.out_channels) for op in model.spec.convs}
    channel_max: dict[str, Tensor] = {}
    for start in range(0, count, batch):
        run = _Recorder(model, channel_max)
        log_p = run(images(start, min(start + batch, count))).log_softmax(1)
        labels = torch.multinomial(log_p.detach().exp(), samples, replacement=True, generator=generator)
        for sample in range(samples):
            chosen = log_p.gather(1, labels[:, sample : sample + 1]).sum()
            gradients = torch.autograd.grad(chosen, list(run.outputs.values()), retain_graph=sample + 1 < samples)
            for name, gradient_NOHW in zip(run.outputs, gradients, strict=True):
                d_NOK = torch.bmm(gradient_NOHW.flatten(2), run.columns[name].transpose(1, 2))
                d_OM = d_NOK.transpose(0, 1).flatten(1)
                row_grams[name] += d_OM @ d_OM.t() / (samples * count)
        progress(min(start + batch, count) / count)
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
