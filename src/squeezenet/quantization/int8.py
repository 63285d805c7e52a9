"""Post-training quantisation: int8 weights with a scale per output channel, uint8 activations.

Use this when accuracy matters more than bytes, or as the starting point of a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..models import SqueezeNet
from ..network import IntegerNetwork
from ..progress import Reporter
from .photos import CalibrationPhotos
from .quantize import activation_ranges, float_convs, input_scale, output_scale, quantize_conv, tensor_quants

__all__ = ["compress_int8", "quantize_int8"]


def compress_int8(model: SqueezeNet, batches: Iterable[NDArray[np.uint8]]) -> IntegerNetwork:
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
    return IntegerNetwork(model.spec, quants, params)


def quantize_int8(model: SqueezeNet, calibration: CalibrationPhotos, reporter: Reporter) -> IntegerNetwork:
    """Quantise a float network on calibration photos and show how far it is; see `compress_int8`."""
    with reporter.task("calibrating", len(calibration.pixels)) as task:

        def watched() -> Iterator[NDArray[np.uint8]]:
            done = 0
            for batch in calibration.batches():
                yield batch
                done += len(batch)
                task.update(done)

        return compress_int8(model, watched())
