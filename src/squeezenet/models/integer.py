"""The integer network in torch: bit-identical inference for checks, and the way back to a trainable float network.

Use this when you want to fine-tune from a `.sqz` file, or to compare torch with the engines.
"""

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
from .squeezenet import SqueezeNet, model_from_convs

__all__ = ["dequantize", "integer_logits", "model_from_sqz"]


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
    model = model_from_convs(network.spec, network.dequantized_convs(contents.preprocessing_or_default))
    model.labels, model.preprocessing = contents.labels, contents.preprocessing
    model.provenance = dict(contents.facts)
    return model.eval()


@torch.inference_mode()
def integer_logits(network: IntegerNetwork, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Run an integer network in torch, with convolutions in float64, which holds every sum exactly.

    A second, independent implementation of what `engine.reference` defines; slow.

    Args:
        network: The integers.
        pixels: Raw RGB, shape (N, H, W, 3), uint8.

    Returns:
        Shape (N, classes), float64, bit-identical to the engines'.
    """
    live = {"input": torch.from_numpy(pixels).permute(0, 3, 1, 2)}
    for op in network.spec.graph():
        if op.kind == "max_pool":
            # Values 0 to 255 are exact in float32, which torch can pool.
            pooled = F.max_pool2d(
                live[op.inputs[0]].float(), op.kernel, op.stride, ceil_mode=network.spec.pool_ceil_mode
            )
            live[op.output] = pooled.to(torch.uint8)
        elif op.kind == "add":
            out = network.tensor(op.output)
            terms = [_in_steps_of(out, network.tensor(name), live[name]) for name in op.inputs]
            live[op.output] = _clamp(terms[0] + terms[1], out.zero_point)
        else:
            sums = _sums(network, op, live[op.inputs[0]])
            multiplier = torch.from_numpy(network.convs[op.name].multiplier)
            if op.is_head:
                totals = sums.clamp(min=0) if op.relu else sums
                logits: NDArray[np.float64] = (totals.sum(dim=(2, 3)) * multiplier.double() / op.out_size**2).numpy()
                return logits
            y = _clamp(sums.float() * multiplier[:, None, None], network.tensor(op.output).zero_point)
            live[op.output] = torch.cat([live[op.output], y], dim=1) if op.channel_offset else y
    raise AssertionError("a graph ends with its head")


def _sums(network: IntegerNetwork, op: Op, x: Tensor) -> Tensor:
    params = network.convs[op.name]
    zero_point = network.tensor(op.inputs[0]).zero_point
    weight, bias = (torch.from_numpy(values).double() for values in (params.weight, params.bias))
    return F.conv2d(x.double() - zero_point, weight, bias, stride=op.stride, padding=op.padding)


def _in_steps_of(out: TensorQuant, quant: TensorQuant, x: Tensor) -> Tensor:
    return (x.float() - quant.zero_point) * torch.tensor(np.float32(quant.scale / out.scale))


def _clamp(values: Tensor, zero_point: int) -> Tensor:
    return values.round().clamp(-zero_point, 255 - zero_point).add(zero_point).to(torch.uint8)
