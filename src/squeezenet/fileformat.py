"""`.sqz` files: reading, writing and measuring them.

The chunk `ARCH` holds the architecture and its activation scales, `WGHT` one coded stream per convolution, and `META`
labels, preprocessing and facts. The module `container` reads and writes the frame around the chunks. docs/format.md is
normative. To predict with a file, use `Classifier`.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from .codec.native_weights import decode_convs_fast, encode_convs_fast
from .codec.weights import choose_fresh
from .container import DEFAULT_LIMITS, Fields, Limits, decode_meta, encode_meta, join_chunks, split_chunks, varint
from .errors import (
    BadTable,
    DataError,
    FormatError,
    ImageError,
    LimitExceeded,
    QuantizationError,
    SpecError,
    UnsupportedVersion,
)
from .files import atomic_write
from .labels import Labels
from .network import IntegerNetwork, TensorQuant, check_tensors, quantized_tensors
from .preprocess import Preprocessing
from .spec import ArchSpec, Bypass, FireSpec, StemSpec
from .unknown import UNKNOWN_CHUNK, UnknownRule

__all__ = [
    "Limits", "SqzFile", "carried_facts", "decode_sqz", "encode_sqz", "encode_weights", "join_streams",
    "overhead_bytes", "read_bytes", "read_encoded", "read_sqz", "split_streams", "stream_bytes", "temperature_in",
    "with_facts", "write_sqz",
]  # fmt: skip

VERSION: Final = 2
"""Newest version of the format. A file without fresh streams is of version 1, which older readers can read."""

_BYPASS_CODES: tuple[Bypass, ...] = ("none", "simple", "complex")
_ARCH_HEADER = struct.Struct("<BHHBHBBBB")
_FIRE = struct.Struct("<HHH")
_TENSOR = struct.Struct("<fB")
_MAX_NAME_BYTES = 64
_RESERVED_KEYS = ("labels", "preprocessing")
_RANGES = {"unknown_below": (0, 1), "temperature": (0.01, 100)}


class _Described(Protocol):
    """A network with the metadata that a file keeps, such as a torch model."""

    labels: Labels | None
    preprocessing: Preprocessing | None
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SqzFile:
    """Contents of a `.sqz` file."""

    network: IntegerNetwork
    labels: Labels | None = None
    preprocessing: Preprocessing | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further metadata, plain JSON: provenance, measured accuracy."""
    unknown: UnknownRule | None = None
    """The rule that decides whether a photo shows none of the classes; None if the file has no rule."""

    @classmethod
    def of(cls, model: _Described, network: IntegerNetwork, **compressed: Any) -> SqzFile:
        """Combine the integers of a compressed model with the model's labels, preprocessing, temperature and
        provenance.

        Args:
            model: The float network that was compressed.
            network: Its integers.
            compressed: Description of the compression for the provenance: the method's name and further facts.
        """
        facts = carried_facts(model.provenance, compressed)
        return cls(network=network, labels=model.labels, preprocessing=model.preprocessing, facts=facts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each output; its number if the file has no labels."""
        return self.labels.names if self.labels else tuple(map(str, range(self.network.spec.num_classes)))

    @property
    def unknown_below(self) -> float | None:
        """If the largest probability is below this, the photo is unknown; None if the file does not state it."""
        value = self.facts.get("unknown_below")
        return None if value is None else float(value)

    @property
    def temperature(self) -> float:
        """Number by which logits are divided before they are converted to probabilities; 1 if the file does not state
        it.
        """
        value = self.facts.get("temperature")
        return 1.0 if value is None else float(value)

    def __post_init__(self) -> None:
        """Check that the parts belong together."""
        _check_facts(self.facts)
        spec = self.network.spec
        if self.labels is not None and len(self.labels) != spec.num_classes:
            raise BadTable(f"expected {spec.num_classes} labels, got {len(self.labels)}")
        if self.unknown is not None and self.unknown.vectors.shape[1] != spec.num_features:
            raise BadTable(
                f"expected an unknown rule for {spec.num_features} features, got {self.unknown.vectors.shape[1]}"
            )
        if self.preprocessing is not None and self.preprocessing.crop_size != spec.input_size:
            raise BadTable(
                f"expected a preprocessing that crops to {spec.input_size} pixels, got {self.preprocessing.crop_size}"
            )

    @property
    def preprocessing_or_default(self) -> Preprocessing:
        """The file's preprocessing or, if it has none, a plain resize to the input size."""
        return self.preprocessing or Preprocessing.plain(self.network.spec.input_size)


def carried_facts(provenance: Mapping[str, Any], compressed: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the provenance of a float network to facts of its file; the temperature becomes a separate fact."""
    rest = {key: value for key, value in provenance.items() if key != "temperature"}
    temperature = temperature_in(provenance)
    carried = {} if temperature == 1 else {"temperature": temperature}
    return {**carried, "provenance": {**rest, "compressed": dict(compressed)}}


def temperature_in(provenance: Mapping[str, Any]) -> float:
    """Read the temperature from the provenance of a float network; return 1 if it is missing or invalid."""
    value, (lowest, highest) = provenance.get("temperature"), _RANGES["temperature"]
    return float(value) if isinstance(value, (int, float)) and lowest <= value <= highest else 1.0


def write_sqz(path: str | os.PathLike[str], contents: SqzFile) -> int:
    """Write a `.sqz` file; if writing fails, no partial file remains.

    Args:
        path: The file; its folder must exist.
        contents: Contents of the file.

    Returns:
        Size of the file in bytes.

    Raises:
        OSError: If it cannot be written; an existing file at `path` is kept.

    Example:
        >>> import tempfile
        >>> from squeezenet import find_model
        >>> contents = read_sqz(find_model("cifar10").path)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_sqz(f"{folder}/copy.sqz", contents) == find_model("cifar10").path.stat().st_size
        True
    """
    data = encode_sqz(contents)
    with atomic_write(path) as stream:
        stream.write(data)
    return len(data)


def read_bytes(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a file's bytes, one more than `limits` allow if there are more, so that decoding refuses them.

    Raises:
        OSError: If the file cannot be opened, or is a pipe or a device.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileNotFoundError(errno.ENOENT, "expected a file, got a folder or a device", os.fspath(path))
    with Path(path).open("rb") as stream:
        return stream.read(limits.file_bytes + 1)


def read_sqz(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SqzFile:
    """Read a `.sqz` file.

    Args:
        path: The file.
        limits: Largest sizes to accept; raise a limit for files you trust.

    Raises:
        FormatError: If the file is malformed. The subclass states the kind of error, the message the path.
        OSError: If the file cannot be opened.

    Example:
        >>> from squeezenet import find_model
        >>> read_sqz(find_model("cifar10").path).network.spec.num_classes
        10
    """
    return read_encoded(path, limits)[1]


def read_encoded(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> tuple[bytes, SqzFile]:
    """Read a file's bytes and what they hold; see `read_sqz`."""
    data = read_bytes(path, limits)
    try:
        return data, decode_sqz(data, limits)
    except FormatError as error:
        raise error.at(path) from None


def encode_weights(network: IntegerNetwork) -> bytes:
    """Encode the integers of all convolutions: the body of the `WGHT` chunk, nearly all of a file and of the time.

    Raises:
        CodecError: If the weight coder cannot hold a value.
    """
    ops = network.spec.convs
    fresh = choose_fresh(ops)
    return join_streams(encode_convs_fast(ops, network.convs, fresh), fresh, _version_for(fresh))


def join_streams(streams: Sequence[bytes], fresh: Collection[int], version: int) -> bytes:
    """Write the body of the `WGHT` chunk: the table of the streams, then the streams.

    Args:
        streams: One stream for each convolution.
        fresh: Indices of the fresh ones, which version 1 cannot mark.
        version: Version of the format, as in `ARCH`.
    """
    entries = [len(stream) for stream in streams]
    if version > 1:
        entries = [length << 1 | (index in fresh) for index, length in enumerate(entries)]
    return b"".join(map(varint, entries)) + b"".join(streams)


def encode_sqz(contents: SqzFile, *, weights: bytes | None = None) -> bytes:
    """Encode a file to bytes; equal contents give equal bytes.

    Args:
        contents: Contents of the file.
        weights: The result of `encode_weights(contents.network)`, if it is already known.

    Raises:
        BadTable: If the facts are not plain JSON.
        CodecError: If the weight coder cannot hold a value.
        LimitExceeded: If the metadata are longer or deeper than readers accept.
    """
    network = contents.network
    body = encode_weights(network) if weights is None else weights
    meta = _meta(contents.labels, contents.preprocessing, contents.facts)
    unknown = {UNKNOWN_CHUNK: contents.unknown.encode()} if contents.unknown else {}
    return join_chunks({b"ARCH": _encode_arch(network.spec, network.tensors), b"WGHT": body, **meta, **unknown})


def overhead_bytes(
    spec: ArchSpec, labels: Labels | None, preprocessing: Preprocessing | None, facts: Mapping[str, Any] | None = None
) -> int:
    """Size in bytes of a file with these contents, its coded weights left out.

    Raises:
        BadTable: If the facts are not plain JSON.
    """
    blank = dict.fromkeys(quantized_tensors(spec), TensorQuant(1.0, 0))
    meta = _meta(labels, preprocessing, facts or {})
    return len(join_chunks({b"ARCH": _encode_arch(spec, blank), b"WGHT": b"", **meta}))


def _meta(labels: Labels | None, preprocessing: Preprocessing | None, facts: Mapping[str, Any]) -> dict[bytes, bytes]:
    meta = dict(facts)
    if labels is not None:
        meta["labels"] = labels.to_dict()
    if preprocessing is not None:
        meta["preprocessing"] = preprocessing.to_dict()
    return {b"META": encode_meta(meta)} if meta else {}


def with_facts(data: bytes, *, unknown: UnknownRule | None = None, **facts: Any) -> bytes:
    """Change metadata of an encoded file; the weights are neither changed nor decoded.

    Args:
        data: A whole file.
        unknown: A new rule for unknown photos; None keeps the present one.
        facts: Entries to set; the value None removes an entry.

    Raises:
        FormatError: If the file is damaged, or the facts cannot be stored.
    """
    chunks = split_chunks(data, DEFAULT_LIMITS)
    meta = decode_meta(chunks[b"META"], DEFAULT_LIMITS) if b"META" in chunks else {}
    _check_facts(facts)
    meta = {key: value for key, value in {**meta, **facts}.items() if value is not None}
    del chunks[b"HASH"]
    if meta:
        chunks[b"META"] = encode_meta(meta)  # in its old place; chunks unknown to this version stay as well
    else:
        chunks.pop(b"META", None)
    if unknown is not None:
        chunks[UNKNOWN_CHUNK] = unknown.encode()
    return join_chunks(chunks)


def decode_sqz(data: bytes, limits: Limits = DEFAULT_LIMITS) -> SqzFile:
    """Decode bytes; memory and time are bounded by `limits`.

    Raises:
        BadMagic: Not a `.sqz` file.
        Truncated: The data end before a length is reached, or before the HASH chunk.
        ChecksumMismatch: A chunk or the file is not as it was written.
        UnsupportedVersion: A newer version, or an unknown critical chunk.
        LimitExceeded: More bytes, weights or nesting than allowed.
        BadTable: Fields that contradict each other, or chunks missing or out of order.
    """
    chunks = split_chunks(data, limits)
    spec, tensors = _decode_arch(chunks[b"ARCH"])
    count = sum(op.params for op in spec.convs)
    if count > limits.weights:
        raise LimitExceeded(f"expected at most {limits.weights} weights, got {count}")
    rule = chunks.get(UNKNOWN_CHUNK)
    unknown = None if rule is None else UnknownRule.decode(rule, spec.num_features)
    meta = decode_meta(chunks[b"META"], limits) if b"META" in chunks else {}
    convs = decode_convs_fast(spec.convs, *split_streams(spec, chunks))
    try:
        network = IntegerNetwork(spec, tensors, convs)
        labels = Labels.from_dict(meta.pop("labels")) if "labels" in meta else None
        preprocessing = Preprocessing.from_dict(meta.pop("preprocessing")) if "preprocessing" in meta else None
        return SqzFile(network=network, labels=labels, preprocessing=preprocessing, facts=meta, unknown=unknown)
    except (QuantizationError, DataError, ImageError) as error:
        raise BadTable(str(error)) from None


def stream_bytes(data: bytes) -> dict[str, int]:
    """Measure the bytes of each part of an encoded file: one entry per convolution, then `ARCH`, `META` and
    `container`.

    Raises:
        FormatError: If the bytes are not a `.sqz` file.
    """
    chunks = split_chunks(data, DEFAULT_LIMITS)
    spec, _ = _decode_arch(chunks[b"ARCH"])
    streams, _ = split_streams(spec, chunks)
    sizes = {op.name: len(stream) for op, stream in zip(spec.convs, streams, strict=True)}
    sizes["ARCH"] = len(chunks[b"ARCH"])
    sizes["META"] = len(chunks.get(b"META", b""))
    sizes["container"] = len(data) - sum(sizes.values())
    return sizes


def _check_facts(facts: Mapping[str, Any]) -> None:
    if reserved := [key for key in _RESERVED_KEYS if key in facts]:
        raise BadTable(f"expected facts without the reserved names {reserved}")
    for name, (lowest, highest) in _RANGES.items():
        value = facts.get(name)
        if value is not None and not (type(value) in (int, float) and lowest <= value <= highest):
            raise BadTable(f"expected `{name}` from {lowest} to {highest}, got {value!r}")


def _encode_arch(spec: ArchSpec, tensors: Mapping[str, TensorQuant]) -> bytes:
    flags = spec.pool_ceil_mode | spec.squeeze_relu << 1 | spec.head_relu << 2 | spec.head_padding << 3
    flags |= _BYPASS_CODES.index(spec.bypass) << 4
    stem = spec.stem
    name = spec.name.encode(errors="replace")[:_MAX_NAME_BYTES].decode(errors="ignore").encode()  # whole characters
    parts = [
        _ARCH_HEADER.pack(
            _version_for(choose_fresh(spec.convs)), spec.input_size, spec.num_classes, flags, stem.channels,
            stem.kernel, stem.stride, stem.padding, len(spec.fires),
        ),
        *(_FIRE.pack(fire.squeeze_channels, fire.expand1x1_channels, fire.expand3x3_channels) for fire in spec.fires),
        bytes([len(spec.pools), *spec.pools]),
        bytes([len(name)]) + name,
        *(_TENSOR.pack(tensors[name].scale, tensors[name].zero_point) for name in quantized_tensors(spec)),
    ]  # fmt: skip
    return b"".join(parts)


def _decode_arch(data: bytes) -> tuple[ArchSpec, dict[str, TensorQuant]]:
    if data[:1] and not 1 <= data[0] <= VERSION:
        raise UnsupportedVersion(
            f"expected a format version up to {VERSION}, got {data[0]}: upgrade squeezenet to read it"
        )
    reader = Fields(data, "ARCH")
    _, input_size, num_classes, flags, channels, kernel, stride, padding, n_fires = reader.unpack(_ARCH_HEADER)
    bypass = flags >> 4
    if bypass >= len(_BYPASS_CODES):
        raise BadTable(f"ARCH: expected flags below {len(_BYPASS_CODES) << 4}, got {flags}")
    fires = tuple(
        FireSpec(squeeze_channels=squeeze, expand1x1_channels=expand1x1, expand3x3_channels=expand3x3)
        for squeeze, expand1x1, expand3x3 in [reader.unpack(_FIRE) for _ in range(n_fires)]
    )
    pools = tuple(reader.take(reader.byte()))
    name_bytes = reader.byte()
    if name_bytes > _MAX_NAME_BYTES:
        raise BadTable(f"ARCH: expected a name of at most {_MAX_NAME_BYTES} bytes, got {name_bytes}")
    try:
        name = reader.take(name_bytes).decode()
    except UnicodeDecodeError:
        raise BadTable("ARCH: expected a name in UTF-8") from None
    try:
        spec = ArchSpec(
            stem=StemSpec(channels=channels, kernel=kernel, stride=stride, padding=padding), fires=fires, pools=pools,
            input_size=input_size, num_classes=num_classes, bypass=_BYPASS_CODES[bypass], name=name,
            pool_ceil_mode=bool(flags & 1), squeeze_relu=bool(flags & 2), head_relu=bool(flags & 4),
            head_padding=flags >> 3 & 1,
        )  # fmt: skip
    except SpecError as error:
        raise BadTable(f"ARCH: {error}") from None
    tensors = {tensor: TensorQuant(*reader.unpack(_TENSOR)) for tensor in quantized_tensors(spec)}
    reader.finish()
    try:
        check_tensors(spec, tensors)
    except QuantizationError as error:
        raise BadTable(f"ARCH: {error}") from None
    return spec, tensors


def split_streams(spec: ArchSpec, chunks: Mapping[bytes, bytes]) -> tuple[list[bytes], frozenset[int]]:
    """Read the streams of a file's chunks, and which of them are fresh; undoes `join_streams`.

    Raises:
        FormatError: If the chunk is cut, or longer than its streams.
    """
    reader, version = Fields(chunks[b"WGHT"], "WGHT"), chunks[b"ARCH"][0]
    lengths = [reader.varint() for _ in spec.convs]
    fresh = frozenset(index for index, length in enumerate(lengths) if version > 1 and length & 1)
    streams = [reader.take(length >> 1 if version > 1 else length) for length in lengths]
    reader.finish()
    return streams, fresh


def _version_for(fresh: Collection[int]) -> int:
    return VERSION if fresh else 1
