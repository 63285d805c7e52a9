"""`squeezenet.describe`: layers and their costs, and how the bytes of a `.sqz` file are distributed."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .accounting import ALEXNET_FILE_BYTES, ALEXNET_MACS, ALEXNET_PARAMS, LayerCost, NetworkCost, network_cost
from .architectures import SPEC_NAMES, named_spec
from .errors import SpecError
from .spec import ArchSpec
from .text import html_table

if TYPE_CHECKING:
    from .fileformat import SqzFile
    from .memory import ChipMemory

__all__ = ["MEMORY_HEADER", "Description", "FileFacts", "StreamFacts", "describe", "file_facts"]

MEMORY_HEADER = ("on a chip", "RAM", "of it arena", "flash memory", "of it constants")
_FILE_FIGURES = ("file_bytes", "ratio_vs_fp32", "ratio_vs_alexnet", "density")


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """The coded integers of one convolution."""

    name: str
    params: int
    """Weights and biases."""
    coded_bytes: int
    density: float
    """Share of the weights that are not zero, 0 to 1."""
    largest_weight: int
    """Largest magnitude, at most 127."""
    entropy_bits: float
    """Order-0 entropy of all weights together, bits: the size with a coder that has no model."""

    @property
    def bits_per_param(self) -> float:
        """Coded bits per parameter."""
        return 8 * self.coded_bytes / self.params


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Contents of a `.sqz` file, and the size of each part."""

    contents: SqzFile
    file_bytes: int
    streams: tuple[StreamFacts, ...]
    container_bytes: dict[str, int]
    """Bytes of ARCH, META and the container around the chunks."""
    fp32_bytes: int
    memory: tuple[ChipMemory, ...] = ()
    """Memory on a microcontroller for each form of exported C; empty without the native engine, which computes it."""

    @property
    def ratio_vs_fp32(self) -> float:
        """Bytes of the same network in float32 divided by the bytes of the file."""
        return self.fp32_bytes / self.file_bytes

    @property
    def ratio_vs_alexnet(self) -> float:
        """AlexNet's 240 MB divided by the bytes of the file, as in the paper."""
        return ALEXNET_FILE_BYTES / self.file_bytes

    @property
    def density(self) -> float:
        """Share of all weights that are not zero, 0 to 1."""
        weights = [params.weight for params in self.contents.network.convs.values()]
        return sum(int((weight != 0).sum()) for weight in weights) / sum(weight.size for weight in weights)

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: part, parameters, bytes, bits per parameter, density."""
        rows = [
            (s.name, f"{s.params:,}", f"{s.coded_bytes:,}", f"{s.bits_per_param:.2f}", f"{100 * s.density:.0f} %")
            for s in self.streams
        ]
        rows += [(name, "", f"{size:,}", "", "") for name, size in self.container_bytes.items()]
        return [*rows, ("total", f"{sum(s.params for s in self.streams):,}", f"{self.file_bytes:,}", "", "")]

    def memory_rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: form of the weights, RAM, its arena, flash memory, its constants; bytes."""
        return [
            (
                f"weights: {m.weights}",
                *(f"{n:,}" for n in (m.ram_bytes, m.arena_bytes, m.flash_bytes, m.constant_bytes)),
            )
            for m in self.memory
        ]


@dataclass(frozen=True, kw_only=True)
class Description:
    """An architecture, the cost of each layer, and facts about the file, if there is one."""

    spec: ArchSpec
    cost: NetworkCost
    file: FileFacts | None = None

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: layer, filter/stride, output, widths of a Fire, parameters, MACs, activation bytes."""
        size = self.spec.input_size
        total = (f"{count:,}" for count in (self.cost.params, self.cost.macs, self.cost.activation_bytes))
        return [
            ("input", "", f"{size}x{size}x3", "", "", "", "", "", ""),
            *map(_layer_row, self.cost.layers),
            ("total", "", "", "", "", "", *total),
            ("AlexNet", "", "", "", "", "", f"{ALEXNET_PARAMS:,}", f"{ALEXNET_MACS:,}", ""),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        spec, cost = self.spec, self.cost
        layers = (dataclasses.asdict(layer).items() for layer in cost.layers)
        data = {
            "name": spec.name, "input_size": spec.input_size, "num_classes": spec.num_classes,
            "params": cost.params, "macs": cost.macs,
            "activation_bytes": cost.activation_bytes, "fp32_bytes": cost.fp32_bytes,
            "layers": [{key: value for key, value in layer if value is not None} for layer in layers],
            "spec": spec.to_dict(),
            "alexnet": {"params": ALEXNET_PARAMS, "macs": ALEXNET_MACS, "file_bytes": ALEXNET_FILE_BYTES},
        }  # fmt: skip
        if self.file:
            contents = self.file.contents
            data |= {name: getattr(self.file, name) for name in _FILE_FIGURES}
            data |= {
                "stream_bytes": {s.name: s.coded_bytes for s in self.file.streams} | self.file.container_bytes,
                "labels": list(contents.labels.names) if contents.labels else None,
                "preprocessing": contents.preprocessing.to_dict() if contents.preprocessing else None,
                "facts": dict(contents.facts),
                "memory": {
                    m.weights: {"ram_bytes": m.ram_bytes, "flash_bytes": m.flash_bytes, "layer_bytes": dict(m.layers)}
                    for m in self.file.memory
                },
            }
        return data

    def _repr_html_(self) -> str:
        header = ("layer", "filter/stride", "output", "s1x1", "e1x1", "e3x3", "params", "MACs", "activation bytes")
        page = html_table(header, self.rows())
        if self.file:
            page += html_table(("part", "params", "bytes", "bits/param", "density"), self.file.rows())
            page += html_table(MEMORY_HEADER, self.file.memory_rows())
        return page


def describe(
    model: str | os.PathLike[str] | SqzFile, *, input_size: int | None = None, num_classes: int | None = None
) -> Description:
    """Describe the layers and costs of a network, without running it.

    Args:
        model: The name of an architecture (one of `SPEC_NAMES`), any MODEL (see `find_model`), or the contents of a
            file. For a name of published weights, the architecture is described; nothing is downloaded.
        input_size: Height and width in pixels, for the name of an architecture. By default 227 for 1.0, as in the
            paper's table, and 224 for 1.1.
        num_classes: Number of outputs, for the name of an architecture; 1000 by default.

    Raises:
        SpecError: If options are given for something other than an architecture, or the architecture is impossible.
        ModelNotFoundError: If there is no such model.
        FormatError: If a `.sqz` file is damaged.

    Example:
        >>> describe("squeezenet1_1").cost.params
        1235496
        >>> describe("imagenette").file.file_bytes < 160_000
        True
    """
    if isinstance(model, str) and model in SPEC_NAMES:
        # The paper's table of 1.0 holds for 227 pixels, which Caffe cropped to; 1.1 was published at 224.
        size = 227 if model.startswith("squeezenet1_0") else 224
        size = size if input_size is None else input_size
        spec = named_spec(model, input_size=size, num_classes=1000 if num_classes is None else num_classes)
        return Description(spec=spec, cost=network_cost(spec))
    if input_size is not None or num_classes is not None:
        raise SpecError("`input_size` and `num_classes` apply only to the name of an architecture")
    from .fileformat import SqzFile, encode_sqz, read_bytes
    from .zoo import find_model

    facts = None
    if isinstance(model, SqzFile):
        facts = file_facts(encode_sqz(model))
    elif (found := find_model(model)).kind in ("sqz", "imagenet") and found.path:
        facts = file_facts(read_bytes(found.path), source=found.path)
    elif found.kind == "imagenet":
        spec = named_spec("squeezenet1_1")
    else:
        from .models import load_model

        spec = load_model(model).spec
    spec = facts.contents.network.spec if facts else spec
    return Description(spec=spec, cost=network_cost(spec), file=facts)


def file_facts(data: bytes, *, source: str | os.PathLike[str] | None = None) -> FileFacts:
    """Measure the size of each part of an encoded file.

    Args:
        data: The whole file.
        source: Its path, for error messages.

    Raises:
        FormatError: If the file is damaged.
    """
    from .errors import FormatError
    from .fileformat import decode_sqz, stream_bytes
    from .memory import WEIGHTS, chip_memory
    from .native_library import load_library

    try:
        contents = decode_sqz(data)
        sizes = stream_bytes(data)
    except FormatError as error:
        raise (error if source is None else error.at(source)) from None
    spec = contents.network.spec
    streams = []
    for op in spec.convs:
        weight = contents.network.convs[op.name].weight
        streams.append(StreamFacts(
            name=op.name, params=op.params, coded_bytes=sizes.pop(op.name), density=float((weight != 0).mean()),
            largest_weight=int(abs(weight.astype(int)).max()), entropy_bits=_entropy_bits(weight),
        ))  # fmt: skip
    return FileFacts(
        contents=contents, file_bytes=len(data), streams=tuple(streams), container_bytes=sizes,
        fp32_bytes=network_cost(spec).fp32_bytes,
        memory=tuple(chip_memory(contents, len(data), form) for form in WEIGHTS) if load_library() else (),
    )  # fmt: skip


def _entropy_bits(weight: Any) -> float:
    import numpy as np

    counts = np.bincount(weight.reshape(-1).astype(np.int64) + 128)
    shares = counts[counts > 0] / weight.size
    return float(-(shares * np.log2(shares)).sum() * weight.size)


def _layer_row(layer: LayerCost) -> tuple[str, ...]:
    size = f"{layer.out_size}x{layer.out_size}x{layer.out_channels}"
    filter_ = f"{layer.kernel}x{layer.kernel}/{layer.stride}" if layer.kernel else ""
    widths = (layer.squeeze_channels, layer.expand1x1_channels, layer.expand3x3_channels)
    counts = (layer.params, layer.macs, layer.activation_bytes)
    return (
        layer.name,
        filter_,
        size,
        *(str(width or "") for width in widths),
        *(f"{n:,}" if n else "" for n in counts),
    )
