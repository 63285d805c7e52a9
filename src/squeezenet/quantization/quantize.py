"""Conversion of float convolutions to the integers of an `IntegerNetwork`.

The steps every compressor shares: fold the pixel normalisation into conv1, choose activation scales from observed
ranges, round weights and biases to the file's grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec.weights import round_multiplier
from ..errors import QuantizationError
from ..models import SqueezeNet, normalize_pixels
from ..models.graph import join, max_pool
from ..network import INT32_MAX, MAX_ABS_WEIGHT, ConvParams, FloatConv, TensorQuant, quantized_source, quantized_tensors
from ..preprocess import Preprocessing
from ..spec import ArchSpec, Op

__all__ = [
    "activation_ranges", "float_convs", "input_quant", "input_scale", "output_scale", "quantize_conv",
    "required_preprocessing", "run_graph", "tensor_quants",
]  # fmt: skip


def required_preprocessing(model: SqueezeNet) -> Preprocessing:
    """Return the model's preprocessing.

    Raises:
        QuantizationError: If it has none: its integer form would not define the pixels it reads.
    """
    if model.preprocessing is None:
        raise QuantizationError(
            "expected a model with its preprocessing, got one without: set `model.preprocessing` to the one it was"
            " trained with"
        )
    return model.preprocessing


def input_quant(model: SqueezeNet) -> TensorQuant:
    """Raw pixels as a tensor: one step per pixel value.

    A stem that pads does so with the zero-point, which must then be what normalises to 0: the mean.

    Raises:
        QuantizationError: If the stem pads and the mean is not one whole number for R, G and B.
    """
    if model.spec.stem.padding == 0:
        return TensorQuant(1.0, 0)
    mean = required_preprocessing(model).mean
    if len(set(mean)) > 1 or mean[0] != int(mean[0]) or not 0 <= mean[0] <= 255:
        raise QuantizationError(
            f"expected one whole pixel mean for R, G and B, since conv1 pads, got {mean}:"
            " train with mean 128 and std 64"
        )
    return TensorQuant(1.0, int(mean[0]))


def float_convs(model: SqueezeNet) -> dict[str, FloatConv[NDArray[np.float64]]]:
    """Read the convolutions in float64; conv1 with the pixel normalisation folded in, so that it reads raw pixels.

    Raises:
        QuantizationError: If batch norm is not folded or the preprocessing has no integer form.
    """
    if model.spec.batch_norm:
        raise QuantizationError("expected a network with its batch norm folded: call `fold_batch_norm` first")
    convs = {}
    for name, module in model.convs.items():
        assert module.bias is not None
        weight, bias = (values.detach().double().cpu().numpy() for values in (module.weight, module.bias))
        convs[name] = FloatConv(weight, bias)
    preprocessing = required_preprocessing(model)
    stem = convs["conv1"]
    weight = stem.weight / np.array(preprocessing.std)[:, None, None]
    offset = input_quant(model).zero_point - np.array(preprocessing.mean)
    convs["conv1"] = FloatConv(weight, stem.bias + (weight * offset[:, None, None]).sum(axis=(1, 2, 3)))
    return convs


def run_graph(model: SqueezeNet, x: Tensor, visit: Callable[[str, Tensor], None] = lambda name, tensor: None) -> Tensor:
    """Run a float network operation by operation, showing every tensor of `spec.graph()` on the way.

    Args:
        model: The network; its dropout is not applied.
        x: Normalised images, shape (N, 3, H, W).
        visit: Called with each tensor's name and values, the branches of a Fire once concatenated.

    Returns:
        The head's tensor after its ReLU, shape (N, classes, h, w).
    """
    modules = model.convs

    def conv(op: Op, x: Tensor) -> Tensor:
        y: Tensor = modules[op.name](x)
        return torch.relu(y) if op.relu else y

    return model.spec.walk(x, conv=conv, pool=max_pool, add=lambda op, a, b: a + b, join=join, see=visit)


@torch.inference_mode()
def activation_ranges(model: SqueezeNet, batches: Iterable[NDArray[np.uint8]]) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each quantised tensor over calibration pixels (N, H, W, 3).

    The full range, not a percentile: clipping costs more than the coarser steps do (dev/LOG.md).
    """
    names = set(quantized_tensors(model.spec))
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, tensor: Tensor) -> None:
        if name in names:
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = (min(low, float(tensor.min())), max(high, float(tensor.max())))

    preprocessing = required_preprocessing(model)
    for pixels in batches:
        run_graph(model, normalize_pixels(pixels, preprocessing), widen)
    return ranges


def tensor_quants(model: SqueezeNet, ranges: Mapping[str, tuple[float, float]]) -> dict[str, TensorQuant]:
    """Scales and zero-points that cover the ranges; the zero-point is 0 where nothing is negative."""
    quants = {"input": input_quant(model)}
    for name in quantized_tensors(model.spec):
        if name != "input":
            low, high = ranges[name]
            # A tensor that is always 0 still needs a scale; 1 is as good as any.
            scale = float(np.float32((high - low) / 255)) or 1.0
            quants[name] = TensorQuant(scale, min(255, round(-low / scale)))
    return quants


def output_scale(op: Op, quants: Mapping[str, TensorQuant]) -> float:
    """Scale of the tensor that a convolution writes; 1 for the head, whose result is the logit."""
    return 1.0 if op.is_head else quants[op.output].scale


def input_scale(spec: ArchSpec, op: Op, quants: Mapping[str, TensorQuant]) -> float:
    """Scale of the tensor that an operation reads; pools do not change it."""
    return quants[quantized_source(spec, op.inputs[0])].scale


def quantize_conv(
    op: Op, conv: FloatConv[NDArray[np.float64]], *, in_scale: float, out_scale: float,
    step: NDArray[np.float64] | None = None,
) -> ConvParams:  # fmt: skip
    """Round a convolution to the nearest integers.

    Args:
        op: The operation.
        conv: Its real weights.
        in_scale: Scale of its input tensor.
        out_scale: Scale of its output tensor, 1 for the head.
        step: Wanted real value of one weight step, (output channels,); by default the smallest that reaches the
            largest weight of each. The step used is the next larger one that a file can hold.

    Raises:
        QuantizationError: If a sum would leave int32 (checked by `IntegerNetwork`), or a bias does.
    """
    if step is None:
        largest = np.abs(conv.weight).max(axis=(1, 2, 3))
        # An output without weights only needs a step that holds its bias.
        step = np.where(largest > 0, largest, np.abs(conv.bias) + 1e-6) / MAX_ABS_WEIGHT
    multiplier = round_multiplier(step * in_scale / out_scale)
    exact_step = multiplier.astype(np.float64) * out_scale / in_scale
    weight = np.rint(conv.weight / exact_step[:, None, None, None]).clip(-MAX_ABS_WEIGHT, MAX_ABS_WEIGHT)
    bias = np.rint(conv.bias / (exact_step * in_scale))
    if np.abs(bias).max() > INT32_MAX:
        raise QuantizationError(f"{op.name}: a bias of {np.abs(bias).max():.3g} steps does not fit int32")
    return ConvParams(weight.astype(np.int8), bias.astype(np.int32), multiplier)
