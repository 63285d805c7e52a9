"""Architectures: the only place where a SqueezeNet is written down.

Everything else is derived from an `ArchSpec`: the torch model, the layer table, the parameter
and MAC counts, the file header, the integer network, the exporters and the sweeps. `ArchSpec.graph()`
is what they all read: the operations of the network in execution order, with shapes.

Layers carry the paper's numbers: `conv1`, `fire2` ... `fire9`, `conv10`.

Use this when you need to know what a network looks like without building it (no torch here).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .errors import SpecError

__all__ = [
    "SPEC_NAMES",
    "ArchSpec",
    "BatchNorm",
    "Bypass",
    "FireSpec",
    "Op",
    "StemSpec",
    "metaparameter_spec",
    "named_spec",
    "pools_within",
]

Bypass = Literal["none", "simple", "complex"]
BatchNorm = bool | Literal["squeeze"]

# Largest values a spec may hold. They bound what a hostile file can make a reader allocate.
MAX_CHANNELS = 4096
MAX_FIRES = 64
MAX_CLASSES = 65_535
MAX_INPUT_SIZE = 1024
MAX_WEIGHTS = 1 << 24
MAX_ACTIVATION_ELEMENTS = 1 << 27
MAX_MACS = 1 << 37

# Below this input size the stem keeps full resolution, and pools that would leave the last map smaller than 4x4 go.
SMALL_INPUT = 96
DEFAULT_INPUT_SIZE = 224
_SMALL_LAST_MAP = 4

POOL_KERNEL = 3
POOL_STRIDE = 2


@dataclass(frozen=True, kw_only=True)
class StemSpec:
    """The first convolution, `conv1`, on RGB input."""

    channels: int
    kernel: int
    stride: int
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class FireSpec:
    """Widths of one Fire module (paper section 3.2: s1x1, e1x1, e3x3)."""

    squeeze_channels: int
    expand1x1_channels: int
    expand3x3_channels: int

    @property
    def out_channels(self) -> int:
        """Channels after concatenation."""
        return self.expand1x1_channels + self.expand3x3_channels


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of a network, with the tensors it reads and the tensor it writes.

    Two convolutions may write the same tensor: the branches of a Fire fill
    `[channel_offset, channel_offset + out_channels)` of the concatenated result.
    """

    name: str
    kind: Literal["conv", "max_pool", "add"]
    inputs: tuple[str, ...]
    output: str
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    relu: bool = False
    channel_offset: int = 0
    is_head: bool = False

    @property
    def products_per_sum(self) -> int:
        """K: how many products one output of a convolution adds up."""
        return self.in_channels * self.kernel * self.kernel

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.out_channels * (self.products_per_sum + 1) if self.kind == "conv" else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; 0 for what does not multiply."""
        return self.params and self.out_channels * self.products_per_sum * self.out_size**2


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """A complete SqueezeNet: stem, Fire modules, pools, bypass, head and input size.

    Raises:
        SpecError: On construction, if the network cannot exist or is larger than the limits.

    Source: Iandola et al. 2016, sections 3 to 6.
    """

    stem: StemSpec
    fires: tuple[FireSpec, ...]
    pools: tuple[int, ...]
    """Paper numbers of the layers that a 3x3/2 max pool follows: 1 is conv1, 2 is fire2, ..."""
    input_size: int
    """Height and width of the input in pixels."""
    num_classes: int = 1000
    bypass: Bypass = "none"
    """`simple`: identity around each Fire that keeps its width; `complex`: also a 1x1 convolution around the others."""
    pool_ceil_mode: bool = True
    """Pools round their output size up, as Caffe and torchvision do."""
    squeeze_relu: bool = True
    head_relu: bool = True
    """ReLU between conv10 and the average; the published networks have it, new heads train better without."""
    head_padding: int = 0
    """1 for the authors' Caffe network, 0 for torchvision's."""
    batch_norm: BatchNorm = False
    """Training form only: folded into the convolutions before a network leaves training. `squeeze` normalises the
    squeeze layers alone, whose tensors are small: it keeps every Fire's scale in hand and costs little time."""
    name: str = "custom"

    def __post_init__(self) -> None:
        """Refuse what cannot exist, with the field and the value named."""
        _check_range("stem.channels", self.stem.channels, 1, MAX_CHANNELS)
        _check_range("stem.kernel", self.stem.kernel, 1, 11)
        _check_range("stem.stride", self.stem.stride, 1, 4)
        _check_range("stem.padding", self.stem.padding, 0, self.stem.kernel // 2)
        _check_range("number of fires", len(self.fires), 1, MAX_FIRES)
        for number, fire in enumerate(self.fires, start=2):
            for field in dataclasses.fields(fire):
                _check_range(f"fire{number}.{field.name}", getattr(fire, field.name), 1, MAX_CHANNELS)
            _check_range(f"fire{number} width", fire.out_channels, 1, MAX_CHANNELS)
        for layer in self.pools:
            _check_range("pools", layer, 1, len(self.fires) + 1)
        if list(self.pools) != sorted(set(self.pools)):
            raise SpecError(f"`pools` must be strictly increasing layer numbers, got {self.pools}")
        _check_range("num_classes", self.num_classes, 1, MAX_CLASSES)
        _check_range("input_size", self.input_size, 1, MAX_INPUT_SIZE)
        _check_range("head_padding", self.head_padding, 0, 1)
        if not isinstance(self.batch_norm, bool) and self.batch_norm != "squeeze":
            raise SpecError(f"`batch_norm` must be true, false or 'squeeze', got {self.batch_norm!r}")
        if self.bypass not in get_args(Bypass):
            raise SpecError(f"`bypass` must be one of {get_args(Bypass)}, got {self.bypass!r}")
        weights = elements = macs = 0
        for op in self.graph():
            if op.out_size < 1:
                raise SpecError(
                    f"`input_size` (={self.input_size}) is too small: nothing is left after {op.name};"
                    " use a larger input or fewer pools"
                )
            weights += op.params
            elements += op.out_channels * op.out_size**2
            macs += op.macs
        if weights > MAX_WEIGHTS:
            raise SpecError(f"expected at most {MAX_WEIGHTS} parameters, got {weights}: use narrower layers")
        if elements > MAX_ACTIVATION_ELEMENTS:
            raise SpecError(
                f"expected at most {MAX_ACTIVATION_ELEMENTS} activations an image, got {elements}: use a smaller input"
            )
        if macs > MAX_MACS:
            raise SpecError(
                f"expected at most {MAX_MACS} multiply-accumulates an image, got {macs}: use narrower layers"
            )

    @property
    def head_name(self) -> str:
        """Paper name of the last convolution: `conv10` after eight Fire modules."""
        return f"conv{len(self.fires) + 2}"

    @property
    def convs(self) -> tuple[Op, ...]:
        """The convolutions in network order, the order weights are stored in."""
        return tuple(op for op in self.graph() if op.kind == "conv")

    def graph(self) -> tuple[Op, ...]:
        """List the operations in execution order.

        The network's input is the tensor `input`; the head's tensor is averaged over its positions, which
        is not an operation of its own (the class activation map is that tensor).
        """
        ops: list[Op] = []
        size = self.input_size
        tensor, channels = "input", 3

        def conv(name: str, out_channels: int, **overrides: Any) -> Op:
            settings: dict[str, Any] = {
                "inputs": (tensor,), "output": name, "in_channels": channels, "in_size": size,
                "kernel": 1, "stride": 1, "padding": 0, "relu": True,
            }  # fmt: skip
            settings.update(overrides)
            out_size = _conv_size(settings["in_size"], settings["kernel"], settings["stride"], settings["padding"])
            return Op(name=name, kind="conv", out_channels=out_channels, out_size=out_size, **settings)

        def append(op: Op) -> None:
            nonlocal tensor, channels, size
            ops.append(op)
            tensor, channels, size = op.output, op.out_channels, op.out_size

        def append_pool(layer: int) -> None:
            if layer in self.pools:
                append(
                    Op(
                        name=f"pool{layer}", kind="max_pool", inputs=(tensor,), output=f"pool{layer}",
                        in_channels=channels, out_channels=channels, in_size=size,
                        out_size=_pool_size(size, ceil_mode=self.pool_ceil_mode),
                        kernel=POOL_KERNEL, stride=POOL_STRIDE,
                    )
                )  # fmt: skip

        stem = self.stem
        append(conv("conv1", stem.channels, kernel=stem.kernel, stride=stem.stride, padding=stem.padding))
        append_pool(1)
        for number, fire in enumerate(self.fires, start=2):
            name = f"fire{number}"
            source, source_channels = tensor, channels
            has_identity = self.bypass != "none" and source_channels == fire.out_channels
            has_bypass_conv = self.bypass == "complex" and not has_identity
            joined = f"{name}.expand" if has_identity or has_bypass_conv else name

            append(conv(f"{name}.squeeze", fire.squeeze_channels, relu=self.squeeze_relu))
            ops.append(conv(f"{name}.expand1x1", fire.expand1x1_channels, output=joined))
            ops.append(
                conv(
                    f"{name}.expand3x3", fire.expand3x3_channels, output=joined, kernel=3, padding=1,
                    channel_offset=fire.expand1x1_channels,
                )
            )  # fmt: skip
            tensor, channels = joined, fire.out_channels
            if has_identity or has_bypass_conv:
                other = source
                if has_bypass_conv:
                    bypass = conv(
                        f"{name}.bypass", fire.out_channels, inputs=(source,), in_channels=source_channels, relu=False
                    )
                    ops.append(bypass)
                    other = bypass.output
                append(
                    Op(
                        name=f"{name}.add", kind="add", inputs=(joined, other), output=name,
                        in_channels=channels, out_channels=channels, in_size=size, out_size=size,
                    )
                )  # fmt: skip
            append_pool(number)
        append(conv(self.head_name, self.num_classes, padding=self.head_padding, relu=self.head_relu, is_head=True))
        return tuple(ops)

    def replace(self, **changes: Any) -> ArchSpec:
        """Copy with some fields changed; the copy is checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ArchSpec:
        """Build from `to_dict`'s data.

        Raises:
            SpecError: If fields are missing, unknown, of another type, or impossible.
        """
        if not isinstance(data, Mapping):
            raise SpecError(f"expected the fields of an architecture, got {data!r}")
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known, key=str)
        if unknown:
            raise SpecError(f"expected only {sorted(known)} in a spec, got {unknown}")
        fields = dict(data)
        try:
            fields["stem"] = StemSpec(**fields["stem"])
            fields["fires"] = tuple(FireSpec(**fire) for fire in fields["fires"])
            fields["pools"] = tuple(fields["pools"])
            for key in ("pool_ceil_mode", "squeeze_relu", "head_relu"):
                if not isinstance(fields.get(key, False), bool):
                    raise SpecError(f"expected true or false for `{key}`, got {fields[key]!r}")
            if not isinstance(fields.get("name", ""), str):
                raise SpecError(f"expected text for `name`, got {fields['name']!r}")
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise SpecError(f"expected the fields of an architecture, got {dict(data)!r} ({error})") from None


_PAPER_FIRES = 8
# name -> (stem channels, kernel, pools); the Fire widths are the same in both.
_VERSIONS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "squeezenet1_0": (96, 7, (1, 4, 8)),
    "squeezenet1_1": (64, 3, (1, 3, 5)),
}
_BYPASS_SUFFIXES: dict[str, Bypass] = {"": "none", "_simple_bypass": "simple", "_complex_bypass": "complex"}

SPEC_NAMES: tuple[str, ...] = tuple(version + suffix for version in _VERSIONS for suffix in _BYPASS_SUFFIXES)
"""Names that `named_spec` knows."""


def pools_within(n_fires: int, pools: Sequence[int]) -> tuple[int, ...]:
    """Leave out the pools after layers that a network of `n_fires` Fire modules lacks."""
    return tuple(layer for layer in pools if layer <= n_fires + 1)


def named_spec(name: str, *, input_size: int = DEFAULT_INPUT_SIZE, **options: Any) -> ArchSpec:
    """Look up an architecture of the paper, in the form that suits the input size.

    From 96 pixels on it is the published network; below, its small-image form: a 3x3 stem of stride 1 and padding 1,
    and only the last pools, so that the last map keeps at least 4x4 positions.

    Args:
        name: One of `SPEC_NAMES`.
        input_size: Height and width in pixels.
        options: Other fields of `ArchSpec` (`num_classes`, `head_relu`, `bypass`, ...) and other metaparameters;
            pools after layers that a shorter network lacks are left out.

    Raises:
        SpecError: If the name is unknown or the options make no network.
    """
    for version, (channels, kernel, pools) in _VERSIONS.items():
        for suffix, bypass in _BYPASS_SUFFIXES.items():
            if name == version + suffix:
                settings = {"bypass": bypass, "name": name, **options}
                pools = pools_within(settings.get("n_fires", _PAPER_FIRES), pools)
                return metaparameter_spec(
                    stem_channels=channels, stem_kernel=kernel, pools=pools, input_size=input_size, **settings
                )
    raise SpecError(f"expected one of {', '.join(SPEC_NAMES)}, got {name!r}")


def metaparameter_spec(
    *,
    base_e: int = 128,
    incr_e: int = 128,
    pct_3x3: float = 0.5,
    freq: int = 2,
    squeeze_ratio: float = 0.125,
    n_fires: int = _PAPER_FIRES,
    stem_channels: int = 96,
    stem_kernel: int = 7,
    pools: tuple[int, ...] = (1, 4, 8),
    input_size: int = DEFAULT_INPUT_SIZE,
    **options: Any,
) -> ArchSpec:
    """Build the architecture that the paper's metaparameters describe; the defaults are SqueezeNet 1.0.

    With i counting Fire modules from 0: e_i = base_e + incr_e * floor(i / freq), e_i,3x3 = pct_3x3 * e_i,
    s_i = squeeze_ratio * e_i, each rounded to the nearest whole filter, and at least
    one filter of each kind.

    Args:
        base_e: Expand filters of the first Fire module.
        incr_e: Filters added every `freq` modules.
        pct_3x3: Share of 3x3 filters among the expand filters, 0 to 1.
        freq: Fire modules that share a width.
        squeeze_ratio: Squeeze filters over expand filters.
        n_fires: Number of Fire modules.
        stem_channels: Filters of conv1.
        stem_kernel: Kernel size of conv1 for large inputs (stride 2); small inputs get 3x3 with stride 1.
        pools: Layers followed by a pool, in paper numbers.
        input_size: Height and width in pixels.
        options: Other fields of `ArchSpec`.

    Raises:
        SpecError: If a value is out of range.

    Source: Iandola et al. 2016, section 5.1.
    """
    if not 0 <= pct_3x3 <= 1:
        raise SpecError(f"expected `pct_3x3` from 0 to 1, got {pct_3x3}")
    if not 0 < squeeze_ratio <= 8:
        raise SpecError(f"expected `squeeze_ratio` above 0 and at most 8, got {squeeze_ratio}")
    _check_range("freq", freq, 1, MAX_FIRES)
    _check_range("n_fires", n_fires, 1, MAX_FIRES)
    fires = []
    for i in range(n_fires):
        expand_channels = base_e + incr_e * (i // freq)
        expand3x3_channels = min(max(1, round(pct_3x3 * expand_channels)), expand_channels - 1)
        fires.append(
            FireSpec(
                squeeze_channels=max(1, round(squeeze_ratio * expand_channels)),
                expand1x1_channels=expand_channels - expand3x3_channels,
                expand3x3_channels=expand3x3_channels,
            )
        )
    if input_size < SMALL_INPUT:
        stem = StemSpec(channels=stem_channels, kernel=3, stride=1, padding=1)
        while pools and _size_after_pools(input_size, len(pools)) < _SMALL_LAST_MAP:
            pools = pools[1:]
    else:
        stem = StemSpec(channels=stem_channels, kernel=stem_kernel, stride=2)
    return ArchSpec(stem=stem, fires=tuple(fires), pools=tuple(pools), input_size=input_size, **options)


def _conv_size(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _pool_size(size: int, *, ceil_mode: bool) -> int:
    span = size - POOL_KERNEL + (POOL_STRIDE - 1 if ceil_mode else 0)
    return span // POOL_STRIDE + 1


def _size_after_pools(size: int, count: int) -> int:
    for _ in range(count):
        size = _pool_size(size, ceil_mode=True)
    return size


def _check_range(field: str, value: int, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"expected a whole number for `{field}`, got {value!r}")
    if not lowest <= value <= highest:
        raise SpecError(f"expected `{field}` from {lowest} to {highest}, got {value}")
