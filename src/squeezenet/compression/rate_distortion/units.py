"""A float network in the units of its integer form: every activation step is 1, so a weight step is a multiplier.

Because ReLU(a x) = a ReLU(x) for a > 0, each channel of an activation can be rescaled at no cost: multiply the weights
that read it, divide the weights that write it. With activation steps of 1, a uint8 tensor minus its zero-point is the
activation itself, and a convolution's multiplier is its weight step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet
from ...models.graph import join, max_pool
from ...network import MAX_ABS_WEIGHT, ConvParams, FloatConv, IntegerNetwork, TensorQuant

from ...network import quantized_source, quantized_tensors  # isort: skip
from ...quantization.quantize import input_quant, required_preprocessing
from ...spec import ArchSpec, Op

__all__ = [
    "IntegerConv", "Integers", "UnitNet", "integer_conv", "nonnegative_tensors", "quantized_forward", "run_graph",
    "to_network",
]  # fmt: skip

_RELU_LEVELS = 255
_SIGNED_ZERO = 128
_SIGNED_LEVELS = MAX_ABS_WEIGHT


@dataclass
class IntegerConv:
    """Integers of one convolution before they are encoded."""

    weight: Tensor
    """(O, I, k, k), integer-valued float32, from -127 to 127."""
    bias: Tensor
    """(O,), integer-valued float64, in units of the sum."""
    step: Tensor
    """(O,), float32: output steps per unit of the sum, the multiplier of the file."""


Integers = Mapping[str, IntegerConv]
"""The integers of a network by convolution."""


@dataclass(frozen=True)
class UnitNet:
    """A float network in activation steps, and the steps, to convert back to real numbers."""

    spec: ArchSpec
    convs: Mapping[str, FloatConv[Tensor]]
    """Weights in output steps per input step, biases in output steps."""
    channel_steps: Mapping[str, Tensor]
    """Real value of a step for each channel of each quantised tensor."""
    zero_points: Mapping[str, int]
    tensor_steps: Mapping[str, float] = field(default_factory=dict)
    """One scale per tensor for the file; for tensors that are added, its ratio to the channels' steps is the same."""

    @classmethod
    def build(
        cls, model: SqueezeNet, channel_ranges: Mapping[str, Tensor], tensor_ranges: Mapping[str, float]
    ) -> UnitNet:
        """Rescale a model, batch norm folded.

        Args:
            model: With its preprocessing.
            channel_ranges: Largest magnitude of each channel of each quantised tensor except the input, (C,).
            tensor_ranges: Largest magnitude of the whole tensor; where tensors are added, ratios of these are used.

        Raises:
            QuantizationError: If the model has no preprocessing, or its stem pads and the mean is not one whole number.
        """
        spec, preprocessing = model.spec, required_preprocessing(model)
        nonnegative = nonnegative_tensors(spec)
        steps = {"input": 1 / torch.tensor(preprocessing.std)}
        zero_points = {"input": input_quant(model).zero_point}
        tensor_steps = {"input": 1.0}
        for name in quantized_tensors(spec)[1:]:
            levels = _RELU_LEVELS if name in nonnegative else _SIGNED_LEVELS
            zero_points[name] = 0 if name in nonnegative else _SIGNED_ZERO
            steps[name] = channel_ranges[name].float() / levels
            tensor_steps[name] = float(np.float32(tensor_ranges[name] / levels))
        convs, modules = {}, model.convs
        for op in spec.convs:
            module = modules[op.name]
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
            convs[op.name] = FloatConv(weight.contiguous(), (bias / out_steps).float())
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
    """Walk the graph to the head's averaged output, (N, classes); `convolve` includes the activation."""
    return spec.walk(x, conv=convolve, pool=max_pool, add=add, join=join).mean((2, 3))


def quantized_forward(net: UnitNet, integers: Integers, x: Tensor) -> Tensor:
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


def to_network(net: UnitNet, integers: Integers) -> IntegerNetwork:
    """Build the `IntegerNetwork` for engines and files."""
    tensors = {name: TensorQuant(net.tensor_steps[name], net.zero_points[name]) for name in quantized_tensors(net.spec)}
    convs = {}
    for op in net.spec.convs:
        conv = integers[op.name]
        arrays = conv.weight.numpy(), conv.bias.numpy(), conv.step.numpy()
        convs[op.name] = ConvParams(arrays[0].astype(np.int8), arrays[1].astype(np.int32), arrays[2].astype(np.float32))
    return IntegerNetwork(net.spec, tensors, convs)


def nonnegative_tensors(spec: ArchSpec) -> set[str]:
    """Names of the tensors without negative values."""
    names: set[str] = set()
    for op in spec.graph():
        if op.relu or (op.kind != "conv" and all(name in names for name in op.inputs)):
            names.add(op.output)
    return names
