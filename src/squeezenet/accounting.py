"""Costs of a network per layer: parameters, multiply-accumulates, activation bytes.

Counts are exact and are computed from `ArchSpec.graph()`, without building a network.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .spec import ArchSpec, Op

__all__ = [
    "ALEXNET_FILE_BYTES", "ALEXNET_MACS", "ALEXNET_PARAMS", "LayerCost", "NetworkCost", "network_cost",
    "peak_activation_bytes",
]  # fmt: skip

# AlexNet as the paper compares it (single-crop Caffe model): 240 MB of float32 (Iandola et al. 2016, table 2).
ALEXNET_FILE_BYTES = 240_000_000
ALEXNET_PARAMS = 60_965_224  # CaffeNet/AlexNet with grouped convolutions: 2,334,080 in conv1-5, 58,631,144 in fc6-8
ALEXNET_MACS = 724_406_816  # the same network on one 227x227 crop

FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One row of the paper's table 1: a convolution, a pool or a whole Fire module."""

    name: str
    kind: str
    out_channels: int
    out_size: int
    """Height and width of the output."""
    params: int = 0
    macs: int = 0
    activation_bytes: int = 0
    """Bytes of the uint8 tensors that the integer network writes for this row."""
    kernel: int | None = None
    stride: int | None = None
    squeeze_channels: int | None = None
    expand1x1_channels: int | None = None
    expand3x3_channels: int | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """All rows and their totals."""

    layers: tuple[LayerCost, ...]
    params: int
    macs: int
    activation_bytes: int

    @property
    def fp32_bytes(self) -> int:
        """Bytes of the weights and biases as float32."""
        return FLOAT32_BYTES * self.params


def network_cost(spec: ArchSpec) -> NetworkCost:
    """Count parameters, multiply-accumulates per image and activation bytes of a network.

    Args:
        spec: The architecture. Batch norm is counted as folded, as it is when the network is used.

    Returns:
        Rows in network order (one row per Fire module, including its bypass) and totals.

    Example:
        >>> from squeezenet import named_spec
        >>> network_cost(named_spec("squeezenet1_0")).params
        1248424
    """
    rows: dict[str, list[Op]] = {}
    for op in spec.graph():
        rows.setdefault(op.name.split(".")[0], []).append(op)
    layers = tuple(_row(name, ops, spec) for name, ops in rows.items())
    last = layers[-1]
    layers += (LayerCost(name=f"avgpool{last.name[4:]}", kind="avg_pool", out_channels=last.out_channels, out_size=1),)
    return NetworkCost(
        layers=layers,
        params=sum(layer.params for layer in layers),
        macs=sum(layer.macs for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
    )


def peak_activation_bytes(spec: ArchSpec) -> int:
    """Count the largest sum of uint8 tensors that must exist at the same time, the input included.

    A tensor exists from the first operation that writes it to the last one that reads it. The result is a lower bound
    for an arena that stores whole tensors. The head's sums are not counted, because they are averaged immediately.

    Example:
        >>> from squeezenet.architectures import named_spec
        >>> peak_activation_bytes(named_spec("squeezenet1_1"))
        982144
    """
    ops = spec.graph()
    size = {"input": 3 * spec.input_size**2}
    first, last = {"input": 0}, {"input": 0}
    for index, op in enumerate(ops):
        for name in op.inputs:
            last[name] = index
        if not op.is_head:
            first.setdefault(op.output, index)
            size[op.output] = size.get(op.output, 0) + op.out_channels * op.out_size**2
    return max(
        sum(count for name, count in size.items() if first[name] <= index <= last[name]) for index in range(len(ops))
    )


def _row(name: str, ops: list[Op], spec: ArchSpec) -> LayerCost:
    last = ops[-1]
    is_fire = name.startswith("fire")
    widths = {"kernel": last.kernel, "stride": last.stride}
    if is_fire:
        widths = dataclasses.asdict(spec.fires[int(name[4:]) - 2])
    return LayerCost(
        name=name, kind="fire" if is_fire else last.kind, out_channels=last.written_channels, out_size=last.out_size,
        params=sum(op.params for op in ops), macs=sum(op.macs for op in ops),
        # The head's sums are averaged as they are made; no tensor is written.
        activation_bytes=sum(op.out_channels * op.out_size**2 for op in ops if not op.is_head),
        **widths,
    )  # fmt: skip
