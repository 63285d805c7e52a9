"""Steps of activations, a step for each channel."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...network import quantized_source
from ...spec import ArchSpec

__all__ = ["choose_ranges"]

_SMALLEST_SHARE = 1 / 256  # of the tensor's range: channels that never fire on the photos still may elsewhere


def choose_ranges(
    spec: ArchSpec, channel_max: Mapping[str, Tensor], *, channel_exponent: float, clip: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Choose channel and tensor ranges.

    Args:
        spec: The architecture.
        channel_max: From `collect_statistics`.
        channel_exponent: 0 for one range a tensor, 1 for each channel's own maximum, between for a geometric mean.
        clip: Share of the range to keep.

    Returns:
        Arguments of `UnitNet.build`.
    """
    tensor_ranges = {name: float(maxima.max()) or 1.0 for name, maxima in channel_max.items()}
    shapes = {
        name: (maxima / tensor_ranges[name]).clamp(min=_SMALLEST_SHARE) ** channel_exponent
        for name, maxima in channel_max.items()
    }
    for group in _added_together(spec):
        joint = torch.stack([shapes[name] for name in group]).amax(0)
        shapes.update(dict.fromkeys(group, joint))
    return {name: clip * tensor_ranges[name] * shape for name, shape in shapes.items()}, tensor_ranges


def _added_together(spec: ArchSpec) -> list[set[str]]:
    """Sets of tensors that additions tie together, pools looked through."""
    groups: list[set[str]] = []
    for op in spec.graph():
        if op.kind == "add":
            names = {op.output, *(quantized_source(spec, name) for name in op.inputs)}
            for group in [group for group in groups if group & names]:
                names |= group
                groups.remove(group)
            groups.append(names)
    return groups
