"""The `.sqz` container: reading, writing and measuring it.

A signature, then chunks of `length, type, data, crc32`: `ARCH` (the architecture and its activation scales), `WGHT`
(one coded stream a convolution), `META` (labels, preprocessing and facts as deflated JSON), and `HASH` (SHA-256 of all
before it), in this order. docs/format.md is normative. Everything read is taken as hostile: each length is checked
against the bytes that are there and against `Limits` before anything is allocated.

Use this when you need a file's contents; use `Classifier` to predict with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .codec.native_weights import decode_convs_fast
from .codec.weights import encode_convs
from .errors import (
    BadMagic,
    BadTable,
    ChecksumMismatch,
    DataError,
    FormatError,
    ImageError,
    LimitExceeded,
    QuantizationError,
    SpecError,
    Truncated,
    UnsupportedVersion,
)
from .files import atomic_write
from .labels import Labels
from .network import ConvParams, IntegerNetwork, TensorQuant, quantized_tensors
from .preprocess import Preprocessing
from .spec import ArchSpec, Bypass, FireSpec, StemSpec

__all__ = ["Limits", "SqzFile", "decode_sqz", "encode_sqz", "read_sqz", "stream_bytes", "write_sqz"]

SIGNATURE: Final = b"\x89SQZ\r\n\x1a\n"  # a high bit and line ends, so that text-mode transfers are noticed
VERSION: Final = 1

_BYPASS_CODES: tuple[Bypass, ...] = ("none", "simple", "complex")
_CHUNK_HEADER = struct.Struct("<I4s")
_CRC = struct.Struct("<I")
_ARCH_HEADER = struct.Struct("<BHHBHBBBB")
_FIRE = struct.Struct("<HHH")
_TENSOR = struct.Struct("<fB")
_MAX_NAME_BYTES = 64
_MAX_CHUNKS = 64
_MAX_DEPTH = 32
_RESERVED_KEYS = ("labels", "preprocessing")
_OVERHEAD_BYTES = _CHUNK_HEADER.size + _CRC.size


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a reader is willing to spend on a file. Raise a limit for files you trust."""

    file_bytes: int = 64 << 20
    meta_bytes: int = 4 << 20
    """Size of the metadata once inflated."""
    weights: int = 1 << 24
    """Weights to decode: a few seconds a million in plain Python."""


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, kw_only=True)
class SqzFile:
    """Contents of a `.sqz` file."""

    network: IntegerNetwork
    labels: Labels | None = None
    preprocessing: Preprocessing | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further metadata, plain JSON: provenance, measured accuracy."""

    @property
    def unknown_below(self) -> float | None:
        """Probability below which a best answer is better given as "unknown"; None if the file does not say."""
        value = self.facts.get("unknown_below")
        return None if value is None else float(value)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        threshold = self.facts.get("unknown_below")
        if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
            raise BadTable(f"expected `unknown_below` from 0 to 1, got {threshold!r}")
        if reserved := [key for key in _RESERVED_KEYS if key in self.facts]:
            raise BadTable(f"expected facts without the reserved names {reserved}")
        spec = self.network.spec
        if self.labels is not None and len(self.labels) != spec.num_classes:
            raise BadTable(f"expected {spec.num_classes} labels, got {len(self.labels)}")
        if self.preprocessing is not None and self.preprocessing.crop_size != spec.input_size:
            raise BadTable(
                f"expected a preprocessing that crops to {spec.input_size} pixels, got {self.preprocessing.crop_size}"
            )

    @property
    def preprocessing_or_default(self) -> Preprocessing:
        """What makes the network's input of photos: the file's preprocessing, or without one a plain resize."""
        size = self.network.spec.input_size
        return self.preprocessing or Preprocessing(crop_size=size, resize_size=size)


def write_sqz(path: str | os.PathLike[str], contents: SqzFile) -> int:
    """Write a file, whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        OSError: If it cannot be written; what was at `path` is kept.
    """
    data = encode_sqz(contents)
    with atomic_write(path) as stream:
        stream.write(data)
    return len(data)


def read_sqz(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SqzFile:
    """Read a file.

    Raises:
        FormatError: A subclass that names what is wrong, with the path in the message.
        OSError: If the file cannot be opened.
    """
    with Path(path).open("rb") as stream:
        data = stream.read(limits.file_bytes + 1)  # one more than allowed tells a long file from a full one
    try:
        return decode_sqz(data, limits)
    except FormatError as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def encode_sqz(contents: SqzFile) -> bytes:
    """Encode to bytes; equal contents give equal bytes.

    Raises:
        BadTable: If the facts are no plain JSON.
        CodecError: If the weight coder cannot hold a value.
        LimitExceeded: If the metadata are longer or deeper than readers accept.
    """
    network = contents.network
    streams = encode_convs(network.spec.convs, network.convs)
    weights = b"".join(_varint(len(stream)) for stream in streams) + b"".join(streams)
    meta: dict[str, Any] = dict(contents.facts)
    if contents.labels is not None:
        meta["labels"] = contents.labels.to_dict()
    if contents.preprocessing is not None:
        meta["preprocessing"] = contents.preprocessing.to_dict()
    _check_plain(meta, _MAX_DEPTH)
    text = json.dumps(meta, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > DEFAULT_LIMITS.meta_bytes:
        raise LimitExceeded(f"META: expected at most {DEFAULT_LIMITS.meta_bytes} bytes of JSON, got {len(text)}")
    data = SIGNATURE + _chunk(b"ARCH", _encode_arch(network)) + _chunk(b"WGHT", weights)
    if meta:
        data += _chunk(b"META", zlib.compress(text, 9))
    return data + _chunk(b"HASH", hashlib.sha256(data).digest())


def decode_sqz(data: bytes, limits: Limits = DEFAULT_LIMITS) -> SqzFile:
    """Decode bytes; memory and time are bounded by `limits`.

    Raises:
        BadMagic: Not a `.sqz` file.
        Truncated: The data end before a length says so, or before the HASH chunk.
        ChecksumMismatch: A chunk or the file is not as it was written.
        UnsupportedVersion: A newer version, or an unknown critical chunk.
        LimitExceeded: More bytes, weights or nesting than allowed.
        BadTable: Fields that contradict each other, or chunks missing or out of order.
    """
    chunks = _split(data, limits)
    spec, tensors = _decode_arch(chunks[b"ARCH"])
    count = sum(op.params for op in spec.convs)
    if count > limits.weights:
        raise LimitExceeded(f"expected at most {limits.weights} weights, got {count}")
    meta = _decode_meta(chunks[b"META"], limits) if b"META" in chunks else {}
    convs = _decode_weights(spec, chunks[b"WGHT"])
    try:
        network = IntegerNetwork(spec, tensors, convs)
        labels = Labels.from_dict(meta.pop("labels")) if "labels" in meta else None
        preprocessing = Preprocessing.from_dict(meta.pop("preprocessing")) if "preprocessing" in meta else None
        return SqzFile(network=network, labels=labels, preprocessing=preprocessing, facts=meta)
    except (QuantizationError, DataError, ImageError) as error:
        raise BadTable(str(error)) from None


def stream_bytes(data: bytes) -> dict[str, int]:
    """Measure where the bytes of an encoded file go: one entry a convolution, then `ARCH`, `META` and `container`.

    Raises:
        FormatError: If the bytes are no `.sqz` file.
    """
    chunks = _split(data, DEFAULT_LIMITS)
    spec, _ = _decode_arch(chunks[b"ARCH"])
    sizes = {op.name: len(stream) for op, stream in zip(spec.convs, _streams(spec, chunks[b"WGHT"]), strict=True)}
    sizes["ARCH"] = len(chunks[b"ARCH"])
    sizes["META"] = len(chunks.get(b"META", b""))
    sizes["container"] = len(data) - sum(sizes.values())
    return sizes


def _chunk(kind: bytes, data: bytes) -> bytes:
    return _CHUNK_HEADER.pack(len(data), kind) + data + _CRC.pack(zlib.crc32(kind + data))


def _split(data: bytes, limits: Limits) -> dict[bytes, bytes]:
    """Check the frame of a file and cut it into chunks; no chunk's data is interpreted yet."""
    if len(data) > limits.file_bytes:
        raise LimitExceeded(f"expected a file of at most {limits.file_bytes} bytes, got more")
    if data[: len(SIGNATURE)] != SIGNATURE:
        if SIGNATURE.startswith(data[: len(SIGNATURE)]):
            raise Truncated(f"the file ends after {len(data)} bytes, inside its signature")
        raise BadMagic(f"expected a .sqz file, got one that starts with {data[:8]!r}")
    chunks: dict[bytes, bytes] = {}
    offset = len(SIGNATURE)
    while b"HASH" not in chunks:
        if offset + _OVERHEAD_BYTES > len(data):
            raise Truncated(f"the file ends at byte {len(data)}, before its HASH chunk")
        length, kind = _CHUNK_HEADER.unpack_from(data, offset)
        end = offset + _OVERHEAD_BYTES + length
        if end > len(data):
            raise Truncated(
                f"chunk {_printable(kind)} at byte {offset} wants {length} bytes, beyond the end of the file"
            )
        body = data[offset + _CHUNK_HEADER.size : end - _CRC.size]
        if zlib.crc32(body, zlib.crc32(kind)) != _CRC.unpack_from(data, end - _CRC.size)[0]:
            raise ChecksumMismatch(f"chunk {_printable(kind)} at byte {offset} is damaged: its CRC does not match")
        if len(chunks) == _MAX_CHUNKS:
            raise LimitExceeded(f"expected at most {_MAX_CHUNKS} chunks, got more")
        if kind in chunks:
            raise BadTable(f"expected one chunk {_printable(kind)}, got a second at byte {offset}")
        if kind == b"HASH" and hashlib.sha256(data[:offset]).digest() != body:
            raise ChecksumMismatch("the file is damaged: its SHA-256 does not match")
        if not kind.isalpha():
            raise BadTable(f"expected a chunk type of four letters at byte {offset}, got {_printable(kind)}")
        if kind not in _KNOWN_CHUNKS and not kind[:1].islower():
            raise UnsupportedVersion(f"critical chunk {_printable(kind)} at byte {offset} is of a newer format")
        chunks[kind] = body
        offset = end
    if offset != len(data):
        raise BadTable(f"expected the end of the file at byte {offset}, got {len(data) - offset} more bytes")
    known = [kind for kind in chunks if kind in _KNOWN_CHUNKS]
    if known != [kind for kind in _KNOWN_CHUNKS if kind in chunks] or not {b"ARCH", b"WGHT"} <= chunks.keys():
        raise BadTable(f"expected the chunks ARCH, WGHT, META, HASH in this order, got {[k.decode() for k in known]}")
    return chunks


_KNOWN_CHUNKS: Final = (b"ARCH", b"WGHT", b"META", b"HASH")


def _printable(kind: bytes) -> str:
    return ascii(kind.decode("latin-1"))


def _encode_arch(network: IntegerNetwork) -> bytes:
    spec = network.spec
    flags = (
        spec.pool_ceil_mode
        | spec.squeeze_relu << 1
        | spec.head_relu << 2
        | spec.head_padding << 3
        | _BYPASS_CODES.index(spec.bypass) << 4
    )
    stem = spec.stem
    name = (
        spec.name.encode(errors="replace")[:_MAX_NAME_BYTES].decode(errors="ignore").encode()
    )  # cut between characters
    parts = [
        _ARCH_HEADER.pack(
            VERSION, spec.input_size, spec.num_classes, flags, stem.channels, stem.kernel, stem.stride, stem.padding,
            len(spec.fires),
        ),
        *(
            _FIRE.pack(fire.squeeze_channels, fire.expand1x1_channels, fire.expand3x3_channels)
            for fire in spec.fires
        ),
        bytes([len(spec.pools), *spec.pools]),
        bytes([len(name)]) + name,
        *(
            _TENSOR.pack(network.tensors[tensor].scale, network.tensors[tensor].zero_point)
            for tensor in quantized_tensors(spec)
        ),
    ]  # fmt: skip
    return b"".join(parts)


def _decode_arch(data: bytes) -> tuple[ArchSpec, dict[str, TensorQuant]]:
    if data[:1] and data[0] != VERSION:
        raise UnsupportedVersion(f"expected format version {VERSION}, got {data[0]}: upgrade squeezenet to read it")
    reader = _Reader(data, "ARCH")
    _, input_size, num_classes, flags, channels, kernel, stride, padding, n_fires = reader.unpack(_ARCH_HEADER)
    bypass = flags >> 4
    if bypass >= len(_BYPASS_CODES):
        raise BadTable(f"ARCH: expected flags below {len(_BYPASS_CODES) << 4}, got {flags}")
    fires = []
    for _ in range(n_fires):
        squeeze, expand1x1, expand3x3 = reader.unpack(_FIRE)
        fires.append(FireSpec(squeeze_channels=squeeze, expand1x1_channels=expand1x1, expand3x3_channels=expand3x3))
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
            stem=StemSpec(channels=channels, kernel=kernel, stride=stride, padding=padding),
            fires=tuple(fires),
            pools=pools,
            input_size=input_size,
            num_classes=num_classes,
            bypass=_BYPASS_CODES[bypass],
            pool_ceil_mode=bool(flags & 1),
            squeeze_relu=bool(flags & 2),
            head_relu=bool(flags & 4),
            head_padding=flags >> 3 & 1,
            name=name,
        )
    except SpecError as error:
        raise BadTable(f"ARCH: {error}") from None
    tensors = {}
    for tensor in quantized_tensors(spec):
        scale, zero_point = reader.unpack(_TENSOR)
        tensors[tensor] = TensorQuant(scale, zero_point)
    reader.finish()
    return spec, tensors


def _decode_weights(spec: ArchSpec, data: bytes) -> dict[str, ConvParams]:
    return decode_convs_fast(spec.convs, _streams(spec, data))


def _streams(spec: ArchSpec, data: bytes) -> list[bytes]:
    reader = _Reader(data, "WGHT")
    lengths = [reader.varint() for _ in spec.convs]
    streams = [reader.take(length) for length in lengths]
    reader.finish()
    return streams


def _decode_meta(data: bytes, limits: Limits) -> dict[str, Any]:
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, limits.meta_bytes + 1)  # one more than allowed tells a bomb from a full one
        if len(text) > limits.meta_bytes:
            raise LimitExceeded(f"META: expected at most {limits.meta_bytes} bytes once inflated, got more")
        if not inflater.eof or inflater.unused_data:
            raise BadTable("META: expected one complete deflate stream")
        meta = json.loads(text.decode(), object_pairs_hook=_unique_keys)
    except RecursionError:
        raise LimitExceeded(f"META: expected at most {_MAX_DEPTH} levels of nesting, got more") from None
    except (zlib.error, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise BadTable(f"META: expected deflated JSON in UTF-8 ({error})") from None
    if not isinstance(meta, dict):
        raise BadTable(f"META: expected a JSON object, got {type(meta).__name__}")
    _check_plain(meta, _MAX_DEPTH)
    return meta


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Readers that keep the first and readers that keep the last of two equal keys would see different files.
    if len(table := dict(pairs)) != len(pairs):
        raise BadTable("META: expected each key of an object once, got one twice")
    return table


def _check_plain(value: object, depth: int) -> None:
    """Refuse what not every JSON reader and writer can hold: deep nesting, infinities, lone surrogates, other types."""
    if depth < 0:
        raise LimitExceeded(f"META: expected at most {_MAX_DEPTH} levels of nesting, got more")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadTable(f"META: expected text for a key, got {key!r}")
            _check_plain(key, depth)
            _check_plain(item, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item, depth - 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadTable(f"META: expected text in Unicode, got {value[:40]!r}") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadTable(f"META: expected finite numbers, got {value}")
    elif value is not None and not isinstance(value, int):
        raise BadTable(f"META: expected plain JSON values, got {value!r}")


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, low ones first, the high bit set on all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Reader:
    """Takes fields off a chunk in order, and says which chunk ended too early."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._offset = 0

    def take(self, count: int) -> bytes:
        end = self._offset + count
        if end > len(self._data):
            raise Truncated(
                f"{self._name}: expected {count} bytes at byte {self._offset}, got {len(self._data)} in all"
            )
        data = self._data[self._offset : end]
        self._offset = end
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise BadTable(f"{self._name}: expected a length of at most five bytes at byte {self._offset}")

    def finish(self) -> None:
        if self._offset != len(self._data):
            raise BadTable(f"{self._name}: expected {self._offset} bytes, got {len(self._data)}")
