"""Round a network layer by layer; the inputs of each layer come from the rounded layers before it.

Activations of the float network and of the partly rounded integer network are computed in parallel. Second moments of
the integer activations show how errors can be compensated. Their cross moments with the float activations give the
weights and the bias that best reproduce the float outputs from the integer inputs. K is the number of products per
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...codec.rate import RateModel
from ...codec.weights import FRACTION_BITS, round_multiplier
from ...models.graph import join, max_pool
from ...spec import Op
from .rounding import cholesky_of_inverse, first_guess, refine_rows, round_rows
from .units import IntegerConv, UnitNet, integer_conv

__all__ = ["round_network"]

# Activations of the float and the integer network; half precision represents all values of the latter exactly.
_Streams = tuple[Tensor, Tensor]

_BATCH = 20
_TINY = 2.0**-30
_LARGEST_TARGET = 120  # below 127, to leave room for compensation
_LARGEST_BIAS = 2.0**30
_BIAS_ROOM = 255  # output steps that rounding may add to a bias
# The best values measured (dev/LOG.md):
_DAMPING = 0.1  # share of the mean input energy that is added to the energy of every input
_ROW_POWER = 0.5  # exponent of the rows' sensitivities; 0 treats the outputs of a layer alike
_HEAD_ROW_POWER = 0.0  # the same for the head: gradients are zero for classes that its ReLU sets to zero
_STEP_FACTOR = (
    16.0  # step^2 in units of slope over energy; 6 / ln 2 = 8.66 is the high-rate optimum without a rate term
)
_REFINEMENTS = 6  # passes over a rounded layer that move single weights
_CORRECTION = 1.2  # factor of the correction for errors of earlier layers, which damping makes too small
_MAX_POSITIONS = 300  # positions per photo that are used for second moments
_STEP_FRACTION_BITS = 2  # coarse steps cost less in the file
_BIAS_PRECISION = 0.125  # largest rounding unit of a bias, output steps


def round_network(
    net: UnitNet,
    row_grams: Mapping[str, Tensor],
    photos: NDArray[np.uint8],
    slope: float,
    *,
    seed: int = 0,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, IntegerConv]:
    """Round every convolution at one slope, in nats of KL per bit.

    `row_grams` are the sensitivities from `collect_statistics`, `photos` pixels (N, H, W, 3); `seed` chooses positions.
    """
    generator = torch.Generator().manual_seed(seed)
    x = net.pixels(photos).half()
    integers: dict[str, IntegerConv] = {}
    total_macs = sum(op.macs for op in net.spec.graph())
    done = 0

    def conv(op: Op, streams: _Streams) -> _Streams:
        nonlocal done
        moments = _input_moments(op, net.steps_of(op.inputs[0]), streams, generator)
        integers[op.name] = _round_layer(net, op, moments, row_grams[op.name], slope)
        done += op.macs
        progress(done / total_macs)
        return streams if op.is_head else _convolve_streams(net, op, integers[op.name], streams)

    def pool(op: Op, streams: _Streams) -> _Streams:
        return _batched(partial(max_pool, op), streams[0]), _batched(partial(max_pool, op), streams[1])

    def add(op: Op, a: _Streams, b: _Streams) -> _Streams:
        sums = [net.add(op, *(x.float() for x in terms)) for terms in zip(a, b, strict=True)]
        return sums[0].half(), sums[1].round_().clamp_(*net.clamp(op.output)).half()

    def concatenate(op: Op, a: _Streams, b: _Streams) -> _Streams:
        return join(op, a[0], b[0]), join(op, a[1], b[1])

    net.spec.walk((x, x), conv=conv, pool=pool, add=add, join=concatenate)
    return integers


@dataclass
class _Moments:
    """Moments of a layer's inputs: sums over positions, means over photos."""

    integer: Tensor
    """(K, K): covariance of the integer stream's columns."""
    cross: Tensor
    """(K, K): covariance of the float stream's columns (rows) with the integer stream's (columns)."""
    integer_mean: Tensor
    float_mean: Tensor
    energy: float
    """Mean variance of a column, in the integer or the float stream, whichever is larger."""
    real_energy: float
    """Sum of the squares of a photo's columns, mean included, in real units: what statistics were taken on."""


def _input_moments(op: Op, in_steps: Tensor, streams: _Streams, generator: torch.Generator) -> _Moments:
    float_stream, integer_stream = streams
    count, size, positions = len(integer_stream), op.products_per_sum, op.out_size**2
    sums, squares = torch.zeros(2, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    integer, cross = torch.zeros(size, size), torch.zeros(size, size)
    kept = min(positions, _MAX_POSITIONS)
    is_same = float_stream is integer_stream
    for start in range(0, count, _BATCH):
        chosen = torch.randperm(positions, generator=generator)[:kept]
        q_KM = _columns(op, integer_stream[start : start + _BATCH], chosen)
        f_KM = q_KM if is_same else _columns(op, float_stream[start : start + _BATCH], chosen)
        integer += q_KM @ q_KM.t()
        sums[0] += q_KM.sum(1)
        sums[1] += f_KM.sum(1)
        squares += f_KM.square().sum(1)
        if not is_same:
            cross += f_KM @ q_KM.t()
    scale = positions / kept
    mean_q, mean_f = sums / (count * kept)
    h = (integer.double() / count - kept * torch.outer(mean_q, mean_q)) * scale
    c = h if is_same else (cross.double() / count - kept * torch.outer(mean_f, mean_q)) * scale
    float_energy = float((squares / count - kept * mean_f.square()).mean() * scale)
    raw = (h.diagonal() + positions * mean_q.square()).reshape(op.in_channels, -1).sum(1)
    if op.inputs[0] == "input":  # the float network sees its pixels without their mean
        raw = h.diagonal().reshape(op.in_channels, -1).sum(1)
    real_energy = float(raw @ in_steps.double().square())
    return _Moments(h, c, mean_q, mean_f, max(float(h.diagonal().mean()), float_energy), real_energy)


def _columns(op: Op, x: Tensor, chosen: Tensor) -> Tensor:
    """Unfolded inputs at some positions, (K, photos * positions)."""
    if op.padding:
        x = functional.pad(x, (op.padding,) * 4)
    width = x.shape[3]
    corners = chosen // op.out_size * op.stride * width + chosen % op.out_size * op.stride
    taps = torch.tensor([row * width + column for row in range(op.kernel) for column in range(op.kernel)])
    index = (corners + taps[:, None]).flatten()
    x_CNTM = x.flatten(2).transpose(0, 1)[:, :, index].reshape(*x.shape[1::-1], len(taps), len(chosen))
    columns: Tensor = x_CNTM.transpose(1, 2).flatten(2).flatten(0, 1).float()
    return columns


def _round_layer(net: UnitNet, op: Op, moments: _Moments, row_gram: Tensor, slope: float) -> IntegerConv:
    conv = net.convs[op.name]
    weight = conv.weight.flatten(1).double()
    # Damped by the larger energy: if the integer stream is almost zero, its moments are not reliable.
    damping = torch.eye(len(moments.integer), dtype=torch.float64) * (_DAMPING * moments.energy + _TINY)
    damped = moments.integer + damping
    best = torch.linalg.solve(damped, (weight @ (moments.cross + damping)).t()).t()
    target = weight + _CORRECTION * (best - weight)
    upper, energy = cholesky_of_inverse(damped)
    # A unit of squared error of a row's weight, times its column's energy, costs this many nats: half the Fisher
    # information is the curvature of the KL.
    cost = 0.5 * _row_sensitivity(net, op, row_gram.diagonal()) / max(moments.real_energy, _TINY)
    ideal = (_STEP_FACTOR * slope / (cost * energy.mean()).clamp(min=_TINY**4)).sqrt()
    largest = target.abs().amax(1).clamp(min=_TINY)
    # Rows that the loss is not sensitive to get a step that makes them zero, but not an infinite one.
    ideal = torch.minimum(torch.maximum(ideal, largest / _LARGEST_TARGET), 4 * largest)
    # A pruned filter has a bias, and that must fit into its units.
    ideal = torch.maximum(ideal, (conv.bias.double().abs() + _BIAS_ROOM) / _LARGEST_BIAS)
    # The head's rows share one step, so a precise step costs almost nothing; a coarse one would change abruptly.
    fraction_bits = FRACTION_BITS if op.is_head else _STEP_FRACTION_BITS
    step = torch.from_numpy(round_multiplier(ideal.numpy(), fraction_bits))
    scaled = (target / step.double()[:, None]).float()
    bit_price = (slope / (cost * step.double().square()).clamp(min=_TINY**4)).float()
    upper, energy = upper.float(), energy.float()
    shape, rounded = conv.weight.shape, first_guess(scaled)
    for _ in range(2):
        rate = RateModel.fit(rounded.reshape(shape).numpy().astype(np.int64))
        rounded = round_rows(scaled, upper, energy, bit_price, rate)
    moments32 = damped.float()
    for _ in range(_REFINEMENTS):
        rate = RateModel.fit(rounded.reshape(shape).numpy().astype(np.int64))
        rounded = refine_rows(scaled, rounded, moments32, bit_price, rate)
    bias = conv.bias.double() + weight @ moments.float_mean
    bias -= (rounded.double() * step.double()[:, None]) @ moments.integer_mean
    return IntegerConv(rounded.reshape(shape), _round_bias(bias, step), step)


def _row_sensitivity(net: UnitNet, op: Op, row_energy: Tensor) -> Tensor:
    """Fisher information of each row, (O,), in the units of the output's steps, towards equality by `_ROW_POWER`."""
    out_steps = torch.ones(op.out_channels, dtype=torch.float64)
    if not op.is_head:
        steps = net.channel_steps[op.output][op.channel_offset : op.channel_offset + op.out_channels]
        out_steps = steps.double()
    sensitivity = row_energy.double() * out_steps.square()
    power = _HEAD_ROW_POWER if op.is_head else _ROW_POWER
    shaped: Tensor = sensitivity.clamp(min=1e-12 * float(sensitivity.max()) + 1e-30) ** power
    return shaped * (sensitivity.sum() / shaped.sum())


def _round_bias(bias: Tensor, step: Tensor) -> Tensor:
    """Biases in units of the sum, their low bits zero where those are below `_BIAS_PRECISION` output steps."""
    grain = 2.0 ** float((_BIAS_PRECISION / step.double()).log2().floor().clamp(min=0).min())
    rounded: Tensor = (bias / step.double() / grain).round() * grain
    return rounded


def _convolve_streams(net: UnitNet, op: Op, conv: IntegerConv, streams: _Streams) -> _Streams:
    unit = net.convs[op.name]

    def as_float(x: Tensor) -> Tensor:
        y = functional.conv2d(x, unit.weight, unit.bias, op.stride, op.padding)
        return y.relu_() if op.relu else y

    return _batched(as_float, streams[0]), _batched(lambda x: integer_conv(net, op, conv, x), streams[1])


def _batched(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(x[start : start + _BATCH].float()).half() for start in range(0, len(x), _BATCH)])
