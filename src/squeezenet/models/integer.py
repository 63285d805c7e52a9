"""The integer network in torch: bit-identical inference for checks, and the way back to a trainable float network."""

from __future__ import annotations

import os

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..fileformat import SqzFile, read_sqz
from ..network import IntegerNetwork, TensorQuant
from ..spec import Op
from .graph import join, max_pool
from .squeezenet import SqueezeNet
from .tensors import model_from_convs

__all__ = ["dequantize", "integer_logits", "integer_outputs", "model_from_sqz"]


def model_from_sqz(path: str | os.PathLike[str]) -> SqueezeNet:
    """Load a `.sqz` file as a float torch module.

    Raises:
        FormatError: If the file is damaged or no `.sqz` file.
    """
    return dequantize(read_sqz(path))


def dequantize(contents: SqzFile) -> SqueezeNet:
    """Build the float network that an integer network stands for, activations not rounded.

    The normalisation is taken out of conv1 again, so the model reads the same images as the one that was compressed.
    """
    network = contents.network
    model = model_from_convs(network.spec, network.dequantize(contents.preprocessing_or_default).convs)
    model.labels, model.preprocessing = contents.labels, contents.preprocessing
    model.provenance = dict(contents.facts)
    return model.eval()


def integer_logits(network: IntegerNetwork, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute class scores (N, classes), float64; see `integer_outputs`."""
    return integer_outputs(network, pixels)[0]


@torch.inference_mode()
def integer_outputs(
    network: IntegerNetwork, pixels: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Run an integer network in torch on raw RGB pixels (N, H, W, 3), uint8; a second, independent implementation.

    Slow: convolutions are in float64, which holds every sum exactly.

    Returns:
        Class scores (N, classes), float64, and feature vectors (N, channels), int64, bit-identical to the engines'.
    """
    features = torch.empty(0)

    def conv(op: Op, x: Tensor) -> Tensor:
        nonlocal features
        sums = _sums(network, op, x)
        multiplier = torch.from_numpy(network.convs[op.name].multiplier)
        if op.is_head:
            features = (x.long() - network.tensor(op.inputs[0]).zero_point).sum(dim=(2, 3))
            totals = sums.clamp(min=0) if op.relu else sums
            return totals.sum(dim=(2, 3)) * multiplier.double() / op.out_size**2
        return _clamp(sums.float() * multiplier[:, None, None], network.tensor(op.output).zero_point)

    def pool(op: Op, x: Tensor) -> Tensor:
        return max_pool(op, x.float()).to(torch.uint8)  # 0 to 255 are exact in float32, which torch can pool

    def add(op: Op, *inputs: Tensor) -> Tensor:
        out = network.tensor(op.output)
        terms = [_in_steps_of(out, network.tensor(name), x) for name, x in zip(op.inputs, inputs, strict=True)]
        return _clamp(terms[0] + terms[1], out.zero_point)

    x = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(0, 3, 1, 2)
    logits: NDArray[np.float64] = network.spec.walk(x, conv=conv, pool=pool, add=add, join=join).numpy()
    return logits, features.numpy()


def _sums(network: IntegerNetwork, op: Op, x: Tensor) -> Tensor:
    params = network.convs[op.name]
    zero_point = network.tensor(op.inputs[0]).zero_point
    weight, bias = (torch.from_numpy(values).double() for values in (params.weight, params.bias))
    return F.conv2d(x.double() - zero_point, weight, bias, stride=op.stride, padding=op.padding)


def _in_steps_of(out: TensorQuant, quant: TensorQuant, x: Tensor) -> Tensor:
    return (x.float() - quant.zero_point) * torch.tensor(np.float32(quant.scale / out.scale))


def _clamp(values: Tensor, zero_point: int) -> Tensor:
    return values.round().clamp(-zero_point, 255 - zero_point).add(zero_point).to(torch.uint8)
