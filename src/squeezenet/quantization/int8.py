"""Post-training quantisation: int8 weights with a scale per output channel, uint8 activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ..models import SqueezeNet
from ..network import IntegerNetwork
from ..progress import Reporter
from .photos import CalibrationPhotos
from .quantize import activation_ranges, float_convs, input_scale, output_scale, quantize_conv, tensor_quants

__all__ = ["compress_int8", "quantize_int8", "quantize_with_ranges"]


def quantize_int8(model: SqueezeNet, calibration: CalibrationPhotos, reporter: Reporter) -> IntegerNetwork:
    """Quantise a float network with a calibration's ranges, or those that its photos show.

    Args:
        model: Float network, batch norm folded.
        calibration: From `choose_calibration`.
        reporter: Shows how many photos are done.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    if calibration.ranges is not None:
        return quantize_with_ranges(model, calibration.ranges)
    with reporter.task("calibrating", len(calibration.pixels)) as task:

        def watched() -> Iterator[NDArray[np.uint8]]:
            done = 0
            for batch in calibration.batches():
                yield batch
                done += len(batch)
                task.update(done)

        return compress_int8(model, watched())


def compress_int8(model: SqueezeNet, batches: Iterable[NDArray[np.uint8]]) -> IntegerNetwork:
    """Quantise a float network with the activation ranges that pixels show.

    Args:
        model: Float network, batch norm folded.
        batches: Calibration pixels, each (N, H, W, 3), uint8.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    return quantize_with_ranges(model, activation_ranges(model, batches))


def quantize_with_ranges(model: SqueezeNet, ranges: Mapping[str, tuple[float, float]]) -> IntegerNetwork:
    """Quantise a float network with given activation ranges.

    Args:
        model: Float network, batch norm folded.
        ranges: Lowest and highest value of each tensor of `quantized_tensors`; that of the input is not needed.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    quants = tensor_quants(model, ranges)
    convs = float_convs(model)
    params = {
        op.name: quantize_conv(
            op, convs[op.name], in_scale=input_scale(model.spec, op, quants), out_scale=output_scale(op, quants)
        )
        for op in model.spec.convs
    }
    return IntegerNetwork(model.spec, quants, params)
