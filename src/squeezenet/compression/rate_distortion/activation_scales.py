"""Activation steps, one per channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...network import quantized_source
from ...spec import ArchSpec

__all__ = ["choose_ranges"]

_SMALLEST_SHARE = 1 / 256  # of the tensor's range: channels that never fire on the photos still may elsewhere
_CHANNEL_EXPONENT = 0.5  # 0 is one range per tensor, 1 each channel's own; the mean of both measured best


def choose_ranges(spec: ArchSpec, channel_max: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Choose channel and tensor ranges, the arguments of `UnitNet.build`, from the maxima of `collect_statistics`."""
    tensor_ranges = {name: float(maxima.max()) or 1.0 for name, maxima in channel_max.items()}
    shapes = {
        name: (maxima / tensor_ranges[name]).clamp(min=_SMALLEST_SHARE) ** _CHANNEL_EXPONENT
        for name, maxima in channel_max.items()
    }
    for group in _added_together(spec):
        joint = torch.stack([shapes[name] for name in group]).amax(0)
        shapes.update(dict.fromkeys(group, joint))
    return {name: tensor_ranges[name] * shape for name, shape in shapes.items()}, tensor_ranges


def _added_together(spec: ArchSpec) -> list[set[str]]:
    """Sets of tensors that are connected by additions, also through pools."""
    groups: list[set[str]] = []
    for op in spec.graph():
        if op.kind == "add":
            names = {op.output, *(quantized_source(spec, name) for name in op.inputs)}
            for group in [group for group in groups if group & names]:
                names |= group
                groups.remove(group)
            groups.append(names)
    return groups
