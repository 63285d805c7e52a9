"""`ArchSpec`, the description of an architecture from which everything else is derived.

`ArchSpec.graph()` lists the operations of the network in execution order with their shapes; `ArchSpec.walk()` passes
values through them. The torch model, the layer table, the parameter and MAC counts, the file header, the integer
network, the exporters and the sweeps all use one of these. `fire_ops` defines the operations of one Fire module.

Layers have the paper's numbers: `conv1`, `fire2` ... `fire9`, `conv10`. `architectures` has the named networks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from .errors import SpecError

__all__ = ["ArchSpec", "BatchNorm", "Bypass", "FireSpec", "Op", "StemSpec", "check_range", "fire_ops", "pool_size"]

T = TypeVar("T")
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
    ceil_mode: bool = False
    """Whether a pool rounds its output size up."""
    channel_offset: int = 0
    is_head: bool = False

    @property
    def written_channels(self) -> int:
        """Channels of the output tensor that are filled once this operation is done."""
        return self.channel_offset + self.out_channels

    @property
    def products_per_sum(self) -> int:
        """K: number of products that are added up for one output of a convolution."""
        return self.in_channels * self.kernel * self.kernel

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.out_channels * (self.products_per_sum + 1) if self.kind == "conv" else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image; 0 for operations other than convolutions."""
        return self.params and self.out_channels * self.products_per_sum * self.out_size**2


def fire_ops(
    fire: FireSpec,
    *,
    in_channels: int,
    size: int = 1,
    name: str = "fire",
    source: str = "input",
    bypass: Bypass = "none",
    squeeze_relu: bool = True,
) -> tuple[Op, ...]:
    """List the operations of one Fire module in execution order; the last one completes the tensor `name`.

    Args:
        fire: Widths of the module.
        in_channels: Channels of the tensor it reads.
        size: Height and width of that tensor, which the module keeps.
        name: Prefix of the operations' names.
        source: Name of the tensor it reads.
        bypass: As in `ArchSpec`.
        squeeze_relu: ReLU after the squeeze convolution.

    Raises:
        SpecError: If a width is out of range or `bypass` is not one of the three.

    Example:
        >>> fire = FireSpec(squeeze_channels=16, expand1x1_channels=64, expand3x3_channels=64)
        >>> [op.name for op in fire_ops(fire, in_channels=128, bypass="simple")]
        ['fire.squeeze', 'fire.expand1x1', 'fire.expand3x3', 'fire.add']

    Source: Iandola et al. 2016, sections 3.1 and 6.
    """
    check_range(f"{name}.in_channels", in_channels, 1, MAX_CHANNELS)
    for field in dataclasses.fields(fire):
        check_range(f"{name}.{field.name}", getattr(fire, field.name), 1, MAX_CHANNELS)
    check_range(f"{name} width", fire.out_channels, 1, MAX_CHANNELS)
    if bypass not in get_args(Bypass):
        raise SpecError(f"`bypass` must be one of {get_args(Bypass)}, got {bypass!r}")
    has_identity = bypass != "none" and in_channels == fire.out_channels
    has_bypass_conv = bypass == "complex" and not has_identity
    joined = f"{name}.expand" if has_identity or has_bypass_conv else name
    squeezed, width = f"{name}.squeeze", fire.squeeze_channels
    ops = [
        _conv_op(squeezed, source, in_channels, width, size, relu=squeeze_relu),
        _conv_op(f"{name}.expand1x1", squeezed, width, fire.expand1x1_channels, size, output=joined),
        _conv_op(
            f"{name}.expand3x3", squeezed, width, fire.expand3x3_channels, size, output=joined,
            kernel=3, padding=1, channel_offset=fire.expand1x1_channels,
        ),
    ]  # fmt: skip
    if has_bypass_conv:
        ops.append(_conv_op(f"{name}.bypass", source, in_channels, fire.out_channels, size, relu=False))
        source = f"{name}.bypass"
    if joined != name:
        ops.append(
            Op(
                name=f"{name}.add", kind="add", inputs=(joined, source), output=name, in_channels=fire.out_channels,
                out_channels=fire.out_channels, in_size=size, out_size=size,
            )
        )  # fmt: skip
    return tuple(ops)


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """A complete SqueezeNet: stem, Fire modules, pools, bypass, head and input size.

    Raises:
        SpecError: On construction, if the network is impossible or exceeds the limits of docs/format.md.

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
    """`simple`: identity around each Fire with as many outputs as inputs; `complex`: also a 1x1 convolution around the
    others."""
    pool_ceil_mode: bool = True
    """Pools round their output size up, as Caffe and torchvision do."""
    squeeze_relu: bool = True
    head_relu: bool = True
    """ReLU between conv10 and the average. The published networks have it; new heads train better without it."""
    head_padding: int = 0
    """1 for the authors' Caffe network, 0 for torchvision's."""
    batch_norm: BatchNorm = False
    """Batch norm during training; it is folded into the convolutions before a network is saved. `squeeze` normalises
    only the squeeze layers. Their tensors are small, so this costs little time, and it controls the scale of every
    Fire."""
    name: str = "custom"

    def __post_init__(self) -> None:
        """Check that the architecture can exist; an error names the field and its value."""
        check_range("stem.channels", self.stem.channels, 1, MAX_CHANNELS)
        check_range("stem.kernel", self.stem.kernel, 1, 11)
        check_range("stem.stride", self.stem.stride, 1, 4)
        check_range("stem.padding", self.stem.padding, 0, self.stem.kernel // 2)
        check_range("number of fires", len(self.fires), 1, MAX_FIRES)
        for layer in self.pools:
            check_range("pools", layer, 1, len(self.fires) + 1)
        if list(self.pools) != sorted(set(self.pools)):
            raise SpecError(f"`pools` must be strictly increasing layer numbers, got {self.pools}")
        check_range("num_classes", self.num_classes, 1, MAX_CLASSES)
        check_range("input_size", self.input_size, 1, MAX_INPUT_SIZE)
        check_range("head_padding", self.head_padding, 0, 1)
        if not isinstance(self.batch_norm, bool) and self.batch_norm != "squeeze":
            raise SpecError(f"`batch_norm` must be true, false or 'squeeze', got {self.batch_norm!r}")
        graph = self.graph()
        for op in graph:
            if op.out_size < 1:
                raise SpecError(
                    f"`input_size` (={self.input_size}) is too small: nothing is left after {op.name};"
                    " use a larger input or fewer pools"
                )
        elements = sum(op.out_channels * op.out_size**2 for op in graph)
        for what, count, most, advice in (
            ("parameters", sum(op.params for op in graph), MAX_WEIGHTS, "narrower layers"),
            ("activations per image", elements, MAX_ACTIVATION_ELEMENTS, "a smaller input"),
            ("multiply-accumulates per image", sum(op.macs for op in graph), MAX_MACS, "narrower layers"),
        ):
            if count > most:
                raise SpecError(f"expected at most {most} {what}, got {count}: use {advice}")

    @property
    def head_name(self) -> str:
        """Paper name of the last convolution: `conv10` after eight Fire modules."""
        return f"conv{len(self.fires) + 2}"

    @property
    def num_features(self) -> int:
        """Channels of the tensor that the head reads: the length of an image's feature vector."""
        last = self.fires[-1]
        return last.expand1x1_channels + last.expand3x3_channels

    @property
    def convs(self) -> tuple[Op, ...]:
        """The convolutions in network order, which is also the order in which weights are stored."""
        return tuple(op for op in self.graph() if op.kind == "conv")

    def graph(self) -> tuple[Op, ...]:
        """List the operations in execution order.

        The network's input is the tensor `input`. The output of the head is the class activation map; its average
        over positions, the logits, is not a separate operation.
        """
        return self._graph

    @functools.cached_property
    def _graph(self) -> tuple[Op, ...]:
        stem = self.stem
        ops = [
            _conv_op(
                "conv1", "input", 3, stem.channels, self.input_size,
                kernel=stem.kernel, stride=stem.stride, padding=stem.padding,
            )
        ]  # fmt: skip
        ops += self._pools_after(1, ops[-1])
        for number, fire in enumerate(self.fires, start=2):
            last = ops[-1]
            ops += fire_ops(
                fire, in_channels=last.written_channels, size=last.out_size, name=f"fire{number}", source=last.output,
                bypass=self.bypass, squeeze_relu=self.squeeze_relu,
            )  # fmt: skip
            ops += self._pools_after(number, ops[-1])
        last = ops[-1]
        head = _conv_op(
            self.head_name, last.output, last.written_channels, self.num_classes, last.out_size,
            padding=self.head_padding, relu=self.head_relu, is_head=True,
        )  # fmt: skip
        return (*ops, head)

    def walk(
        self,
        x: T,
        *,
        conv: Callable[[Op, T], T],
        pool: Callable[[Op, T], T],
        add: Callable[[Op, T, T], T],
        join: Callable[[Op, T, T], T],
        see: Callable[[str, T], None] = lambda name, value: None,
    ) -> T:
        """Pass a value of any kind through the network: a tensor, a pair of tensors, the name of a node.

        A value is released after the last operation that reads it.

        Args:
            x: Value of the tensor `input`.
            conv: Computes the output of a convolution, including its ReLU, from its input.
            pool: Computes the output of a max pool from its input.
            add: Computes the output of a bypass's addition from its two inputs.
            join: Concatenates the two branches of a Fire module; its first argument is the operation of the second.
            see: Called with the name and the value of each complete tensor of the graph, the input first.

        Returns:
            The result of `conv` for the head.

        Example:
            >>> from squeezenet import named_spec
            >>> keep = lambda op, *values: values[-1]
            >>> join = lambda op, a, b: a + b
            >>> named_spec("squeezenet1_1").walk(3, conv=lambda op, c: op.out_channels, pool=keep, add=keep, join=join)
            1000
        """
        graph = self.graph()
        last_use = {name: op.name for op in graph for name in op.inputs}
        last_part = {op.output: op.name for op in graph}
        live = {"input": x}
        see("input", x)
        del x  # `live` alone holds values
        for op in graph:
            if op.kind == "add":
                y = add(op, live[op.inputs[0]], live[op.inputs[1]])
            else:
                y = (conv if op.kind == "conv" else pool)(op, live[op.inputs[0]])
            if op.channel_offset:
                y = join(op, live[op.output], y)
            live[op.output] = y
            for name in op.inputs:
                if last_use[name] == op.name:
                    live.pop(name)
            if last_part[op.output] == op.name:
                see(op.output, y)
        return y

    def _pools_after(self, layer: int, last: Op) -> tuple[Op, ...]:
        """The max pool after a layer whose last operation is given, or nothing."""
        if layer not in self.pools:
            return ()
        name, channels = f"pool{layer}", last.written_channels
        pool = Op(
            name=name, kind="max_pool", inputs=(last.output,), output=name, in_channels=channels, out_channels=channels,
            in_size=last.out_size, out_size=pool_size(last.out_size, ceil_mode=self.pool_ceil_mode),
            kernel=POOL_KERNEL, stride=POOL_STRIDE, ceil_mode=self.pool_ceil_mode,
        )  # fmt: skip
        return (pool,)

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


def pool_size(size: int, *, ceil_mode: bool) -> int:
    """Height and width after a max pool of 3x3 with stride 2, in pixels."""
    span = size - POOL_KERNEL + (POOL_STRIDE - 1 if ceil_mode else 0)
    return span // POOL_STRIDE + 1


def check_range(field: str, value: int, lowest: int, highest: int) -> None:
    """Accept a whole number from `lowest` to `highest`.

    Raises:
        SpecError: If `value` is not such a number; the message names `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"expected a whole number for `{field}`, got {value!r}")
    if not lowest <= value <= highest:
        raise SpecError(f"expected `{field}` from {lowest} to {highest}, got {value}")


def _conv_op(name: str, source: str, in_channels: int, out_channels: int, in_size: int, **fields: Any) -> Op:
    settings = {"output": name, "relu": True, "kernel": 1, "stride": 1, "padding": 0, **fields}
    out_size = (in_size + 2 * settings["padding"] - settings["kernel"]) // settings["stride"] + 1
    return Op(
        name=name, kind="conv", inputs=(source,), in_channels=in_channels, out_channels=out_channels, in_size=in_size,
        out_size=out_size, **settings,
    )  # fmt: skip
