"""Post-training quantisation: int8 weights with a scale per output channel, uint8 activations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ..models import SqueezeNet
from ..network import MAX_ABS_WEIGHT, IntegerNetwork
from ..progress import Reporter
from .photos import CalibrationPhotos
from .quantize import activation_ranges, float_convs, input_scale, output_scale, quantize_conv, tensor_quants

__all__ = ["compress_int8", "quantize_int8", "quantize_with_ranges"]


def quantize_int8(model: SqueezeNet, calibration: CalibrationPhotos, reporter: Reporter) -> IntegerNetwork:
    """Quantise a float network, batch norm folded, with a calibration's ranges or those that its photos show.

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
                task.update(done := done + len(batch))

        return compress_int8(model, watched())


def compress_int8(model: SqueezeNet, batches: Iterable[NDArray[np.uint8]]) -> IntegerNetwork:
    """Quantise a float network with the activation ranges that pixels (N, H, W, 3) show, as `quantize_with_ranges`."""
    return quantize_with_ranges(model, activation_ranges(model, batches))


def quantize_with_ranges(
    model: SqueezeNet, ranges: Mapping[str, tuple[float, float]], *, one_step: bool = False
) -> IntegerNetwork:
    """Quantise a float network with given activation ranges.

    Args:
        model: Batch norm folded.
        ranges: Lowest and highest value of each tensor of `quantized_tensors`; that of the input is not needed.
        one_step: Give all output channels of a layer the same weight step, so that equal weights are equal integers.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    quants, convs, params = tensor_quants(model, ranges), float_convs(model), {}
    for op in model.spec.convs:
        in_scale, out_scale = input_scale(model.spec, op, quants), output_scale(op, quants)
        largest = np.abs(convs[op.name].weight).max() or 1.0
        step = np.full(op.out_channels, largest / MAX_ABS_WEIGHT) if one_step else None
        params[op.name] = quantize_conv(op, convs[op.name], in_scale=in_scale, out_scale=out_scale, step=step)
    return IntegerNetwork(model.spec, quants, params)
