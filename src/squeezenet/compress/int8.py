"""Post-training quantisation: int8 weights with a scale per output channel, uint8 activations.

Use this when accuracy matters more than bytes, or as the starting point of a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..models import SqueezeNet
from ..network import Network
from .quantize import activation_ranges, float_convs, input_scale, output_scale, quantize_conv, tensor_quants

__all__ = ["compress_int8"]


def compress_int8(model: SqueezeNet, batches: Iterable[NDArray[np.uint8]]) -> Network:
    """Quantise a float network without training.

    Args:
        model: Float network, batch norm folded.
        batches: Calibration pixels, each (N, H, W, 3), uint8; they set the activation scales.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    quants = tensor_quants(model, activation_ranges(model, batches))
    convs = float_convs(model)
    params = {
        op.name: quantize_conv(
            op, convs[op.name], in_scale=input_scale(model.spec, op, quants), out_scale=output_scale(op, quants)
        )
        for op in model.spec.convs
    }
    return Network(model.spec, quants, params)
