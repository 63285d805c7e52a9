"""A float network in the units of its integer form: every activation step is 1, so a weight step is a multiplier.

ReLU lets a positive scale pass, so each channel of an activation tensor may have a step of its own: it multiplies the
consumer's weights and divides the producer's, costs no byte and no arithmetic. In these units a uint8 tensor minus its
zero-point is the activation itself, and the multiplier of a convolution's output channel is its weight step.

Use this to move between a torch model, the float network that rounding starts from, and an `IntegerNetwork`.

Legend: N images, C channels, O output channels, I input channels, k kernel size, K = I*k*k products a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...errors import QuantizationError
from ...models import SqueezeNet
from ...network import ConvParams, IntegerNetwork, TensorQuant, quantized_source, quantized_tensors
from ...spec import ArchSpec, Op

__all__ = [
    "IntegerConv",
    "UnitConv",
    "UnitNet",
    "integer_conv",
    "nonnegative_tensors",
    "quantized_forward",
    "run_graph",
    "to_network",
]

_RELU_LEVELS = 255
_SIGNED_ZERO = 128
_SIGNED_LEVELS = 127


@dataclass(frozen=True)
class UnitConv:
    """Float weights and bias of one convolution in activation steps."""

    weight: Tensor
    """(O, I, k, k), output steps per input step."""
    bias: Tensor
    """(O,), output steps."""


@dataclass
class IntegerConv:
    """Integers of one convolution on their way to a file."""

    weight: Tensor
    """(O, I, k, k), integer-valued float32, from -127 to 127."""
    bias: Tensor
    """(O,), integer-valued float64, in units of the sum."""
    step: Tensor
    """(O,), float32: output steps per unit of the sum, the multiplier of the file."""


@dataclass(frozen=True)
class UnitNet:
    """A float network in activation steps, and what leads back to real numbers."""

    spec: ArchSpec
    convs: Mapping[str, UnitConv]
    channel_steps: Mapping[str, Tensor]
    """Real value of a step for each channel of each quantised tensor."""
    zero_points: Mapping[str, int]
    tensor_steps: Mapping[str, float] = field(default_factory=dict)
    """One scale a tensor for the file; tensors that meet in an addition differ from their channels by one factor."""

    @classmethod
    def build(
        cls, model: SqueezeNet, channel_ranges: Mapping[str, Tensor], tensor_ranges: Mapping[str, float]
    ) -> UnitNet:
        """Rescale a model.

        Args:
            model: Batch norm folded, with its preprocessing.
            channel_ranges: Largest magnitude that each channel of each quantised tensor but the input may show, (C,).
            tensor_ranges: The same for the tensor as a whole; ratios of these are used where tensors are added.
        """
        spec, preprocessing = model.spec, model.preprocessing
        if preprocessing is None:
            raise QuantizationError("expected a model that knows its preprocessing, got one without")
        nonnegative = nonnegative_tensors(spec)
        steps = {"input": 1 / torch.tensor(preprocessing.std)}
        zero_points = {"input": _input_zero(spec, preprocessing.mean)}
        tensor_steps = {"input": 1.0}
        for name in quantized_tensors(spec)[1:]:
            levels = _RELU_LEVELS if name in nonnegative else _SIGNED_LEVELS
            zero_points[name] = 0 if name in nonnegative else _SIGNED_ZERO
            steps[name] = channel_ranges[name].float() / levels
            tensor_steps[name] = float(np.float32(tensor_ranges[name] / levels))
        convs = {}
        for op in spec.convs:
            module = model.convs[op.name]
            assert module.bias is not None
            source = quantized_source(spec, op.inputs[0])
            in_steps = steps[source]
            out_steps = torch.ones(op.out_channels)
            if not op.is_head:
                out_steps = steps[op.output][op.channel_offset : op.channel_offset + op.out_channels]
            weight, bias = module.weight.detach().float(), module.bias.detach().double()
            if source == "input":
                shift = (zero_points["input"] - torch.tensor(preprocessing.mean)) * in_steps
                bias = bias + torch.einsum("oikl,i->o", weight.double(), shift.double())
            weight = weight * in_steps[None, :, None, None] / out_steps[:, None, None, None]
            convs[op.name] = UnitConv(weight.contiguous(), (bias / out_steps).float())
        return cls(spec, convs, steps, zero_points, tensor_steps)

    def steps_of(self, tensor: str) -> Tensor:
        """Real value of a step for each channel of any tensor of the graph; a pooled tensor has its input's."""
        return self.channel_steps[quantized_source(self.spec, tensor)]

    def clamp(self, tensor: str) -> tuple[int, int]:
        """Smallest and largest value of a quantised tensor, its zero-point subtracted."""
        zero = self.zero_points[tensor]
        return -zero, 255 - zero

    def pixels(self, photos: NDArray[np.uint8] | Tensor) -> Tensor:
        """Turn pixels (N, H, W, 3) into the network's input (N, 3, H, W), float32, zero-point subtracted."""
        x_NHWC = torch.as_tensor(photos).float() - self.zero_points["input"]
        return x_NHWC.permute(0, 3, 1, 2)

    def logits(self, x: Tensor, watch: Callable[[Op, Tensor], None] = lambda op, y: None) -> Tensor:
        """Compute the float network's class scores, (N, classes), from `pixels`; `watch` sees each convolution."""

        def convolve(op: Op, x: Tensor) -> Tensor:
            conv = self.convs[op.name]
            y = functional.conv2d(x, conv.weight, conv.bias, op.stride, op.padding)
            if op.relu:
                y = y.relu_()
            watch(op, y)
            return y.float() if op.is_head else y

        return run_graph(self.spec, x, convolve, self.add)

    def add(self, op: Op, a: Tensor, b: Tensor) -> Tensor:
        """Sum two tensors in the steps of the output."""
        out = self.tensor_steps[op.output]
        left, right = (self.tensor_steps[quantized_source(self.spec, name)] / out for name in op.inputs)
        return a * left + b * right


def run_graph(
    spec: ArchSpec, x: Tensor, convolve: Callable[[Op, Tensor], Tensor], add: Callable[[Op, Tensor, Tensor], Tensor]
) -> Tensor:
    """Walk the graph; `convolve` includes the activation. Returns the head's output averaged over its positions."""
    live = {"input": x}
    graph = spec.graph()
    last_use = {name: op.name for op in graph for name in op.inputs}
    for op in graph:
        source = live[op.inputs[0]]
        if op.kind == "max_pool":
            live[op.output] = functional.max_pool2d(source, op.kernel, op.stride, ceil_mode=spec.pool_ceil_mode)
        elif op.kind == "add":
            live[op.output] = add(op, source, live[op.inputs[1]])
        else:
            y = convolve(op, source)
            if op.is_head:
                return y.mean((2, 3))
            # The first branch of a Fire waits for the second, which completes the concatenation.
            live[op.output] = torch.cat([live[op.output], y], 1) if op.output in live else y
        for name in op.inputs:
            if last_use[name] == op.name:
                del live[name]
    raise AssertionError("a graph ends with its head")


def quantized_forward(net: UnitNet, integers: Mapping[str, IntegerConv], x: Tensor) -> Tensor:
    """Compute what the engines compute, up to float32 rounding: class scores (N, classes) from `UnitNet.pixels`."""

    def convolve(op: Op, x: Tensor) -> Tensor:
        return integer_conv(net, op, integers[op.name], x)

    def add(op: Op, a: Tensor, b: Tensor) -> Tensor:
        return net.add(op, a, b).round_().clamp_(*net.clamp(op.output))

    return run_graph(net.spec, x, convolve, add)


def integer_conv(net: UnitNet, op: Op, conv: IntegerConv, x: Tensor) -> Tensor:
    """One convolution with its rounding and clamp; the head's is in logits."""
    y = functional.conv2d(x, conv.weight, conv.bias.float(), op.stride, op.padding)
    y *= conv.step[:, None, None]
    if op.is_head:
        return y.relu_() if op.relu else y
    return y.round_().clamp_(*net.clamp(op.output))


def to_network(net: UnitNet, integers: Mapping[str, IntegerConv]) -> IntegerNetwork:
    """Make the integer network that engines run and files hold."""
    tensors = {name: TensorQuant(net.tensor_steps[name], net.zero_points[name]) for name in quantized_tensors(net.spec)}
    convs = {}
    for op in net.spec.convs:
        conv = integers[op.name]
        convs[op.name] = ConvParams(
            conv.weight.numpy().astype(np.int8),
            conv.bias.numpy().astype(np.int32),
            conv.step.numpy().astype(np.float32),
        )
    return IntegerNetwork(net.spec, tensors, convs)


def nonnegative_tensors(spec: ArchSpec) -> set[str]:
    """Tensors that hold no negative number."""
    names: set[str] = set()
    for op in spec.graph():
        if op.relu or (op.kind != "conv" and all(name in names for name in op.inputs)):
            names.add(op.output)
    return names


def _input_zero(spec: ArchSpec, mean: tuple[float, float, float]) -> int:
    """Padding shows the network its mean, so a padded stem needs a pixel value for it."""
    if not spec.stem.padding:
        return 0
    if len(set(mean)) > 1 or mean[0] != int(mean[0]):
        raise QuantizationError(
            f"expected one whole-numbered mean for a stem that pads, got {mean}: train with (pixel - 128) / 64"
        )
    return int(mean[0])
