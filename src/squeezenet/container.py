"""The frame of a `.sqz` file: a signature, then chunks with their lengths and checksums, metadata as deflated JSON.

Input is untrusted: each length is checked against the available bytes and against `Limits` before memory is allocated.
The contents of the chunks are interpreted by `fileformat`.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import BadMagic, BadTable, ChecksumMismatch, FormatError, LimitExceeded, Truncated, UnsupportedVersion

__all__ = [
    "DEFAULT_LIMITS", "SIGNATURE", "Fields", "Limits", "decode_meta", "encode_meta", "join_chunks", "split_chunks",
    "varint",
]  # fmt: skip

SIGNATURE: Final = b"\x89SQZ\r\n\x1a\n"  # a high bit and line ends, so that text-mode transfers are noticed

_CHUNK_HEADER = struct.Struct("<I4s")
_CRC = struct.Struct("<I")
_MAX_CHUNKS = 64
_MAX_DEPTH = 32
_OVERHEAD_BYTES = _CHUNK_HEADER.size + _CRC.size
_KNOWN_CHUNKS: Final = (b"ARCH", b"WGHT", b"META", b"HASH")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Largest sizes that a reader accepts. Raise a limit for files you trust."""

    file_bytes: int = 64 << 20
    meta_bytes: int = 4 << 20
    """Size of the metadata once inflated."""
    weights: int = 1 << 24
    """Number of weights; decoding takes a few seconds per million in plain Python."""


DEFAULT_LIMITS: Final = Limits()


def join_chunks(chunks: Mapping[bytes, bytes]) -> bytes:
    """Write a file of these chunks, in the order given, and the HASH chunk after them."""
    data = SIGNATURE + b"".join(_chunk(kind, body) for kind, body in chunks.items())
    return data + _chunk(b"HASH", hashlib.sha256(data).digest())


def encode_meta(meta: Mapping[str, Any]) -> bytes:
    """Deflate metadata; equal metadata give equal bytes.

    Raises:
        BadTable: If they are not plain JSON.
        LimitExceeded: If they are longer or deeper than readers accept.
    """
    _check_plain(meta, _MAX_DEPTH)
    text = json.dumps(meta, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    if len(text) > DEFAULT_LIMITS.meta_bytes:
        raise LimitExceeded(f"META: expected at most {DEFAULT_LIMITS.meta_bytes} bytes of JSON, got {len(text)}")
    return zlib.compress(text, 9)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return _CHUNK_HEADER.pack(len(data), kind) + data + _CRC.pack(zlib.crc32(kind + data))


def split_chunks(data: bytes, limits: Limits) -> dict[bytes, bytes]:
    """Check the frame of a file and split it into chunks, without interpreting their data."""
    if len(data) > limits.file_bytes:
        raise LimitExceeded(f"expected a file of at most {limits.file_bytes} bytes, got more")
    if data[: len(SIGNATURE)] != SIGNATURE:
        if SIGNATURE.startswith(data[: len(SIGNATURE)]):
            raise Truncated(f"the file ends after {len(data)} bytes, inside its signature")
        hint = ", a Git LFS pointer: run `git lfs pull`" if data.startswith(b"version https://git-lfs") else ""
        raise BadMagic(f"expected a .sqz file, got one that starts with {data[:8]!r}{hint}")
    chunks: dict[bytes, bytes] = {}
    offset = len(SIGNATURE)
    while b"HASH" not in chunks:
        if offset + _OVERHEAD_BYTES > len(data):
            raise Truncated(f"the file ends at byte {len(data)}, before its HASH chunk")
        length, kind = _CHUNK_HEADER.unpack_from(data, offset)
        end = offset + _OVERHEAD_BYTES + length
        if end > len(data):
            raise Truncated(f"chunk {_printable(kind)} at byte {offset} has {length} bytes, beyond the end of the file")
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


def _printable(kind: bytes) -> str:
    return ascii(kind.decode("latin-1"))


def decode_meta(data: bytes, limits: Limits) -> dict[str, Any]:
    """Inflate metadata and check that they are plain JSON.

    Raises:
        BadTable: If they are not.
        LimitExceeded: If they are longer or deeper than `limits` allow.
    """
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
    """Check that every JSON reader can hold a value: no deep nesting, infinities, lone surrogates or other types."""
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


def varint(value: int) -> bytes:
    """LEB128: seven bits per byte, low ones first, the high bit set on all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Fields:
    """Reads the fields of a chunk in order; an error names the chunk that ended too early."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        self._offset = 0

    def take(self, count: int) -> bytes:
        """Take some bytes."""
        end = self._offset + count
        if end > len(self._data):
            raise Truncated(
                f"{self._name}: expected {count} bytes at byte {self._offset}, got {len(self._data)} in all"
            )
        data = self._data[self._offset : end]
        self._offset = end
        return data

    def byte(self) -> int:
        """Take a number of one byte."""
        return self.take(1)[0]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Take the fields of a layout."""
        return layout.unpack(self.take(layout.size))

    def varint(self) -> int:
        """Take a number of at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise BadTable(f"{self._name}: expected a length of at most five bytes at byte {self._offset}")

    def finish(self) -> None:
        """Check that no bytes remain."""
        if self._offset != len(self._data):
            raise BadTable(f"{self._name}: expected {self._offset} bytes, got {len(self._data)}")
