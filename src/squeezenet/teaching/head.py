"""Combines a frozen network's file and a head's integers in a new file: docs/teaching.md, "The file".

Everything except the head is copied, and metadata are stored without compression: every engine writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..codec.native_weights import encode_next_fast
from ..container import DEFAULT_LIMITS, join_chunks, split_chunks
from ..errors import LimitExceeded
from ..fileformat import SqzFile, join_streams, split_streams
from ..network import ConvParams

__all__ = ["joined", "network_digest", "plain_json", "replace_head"]

_CLASSES_AT, _FLAGS_AT = 3, 5  # in ARCH
_HEAD_RELU = 4
_BLOCK = 65_535


def network_digest(data: bytes, contents: SqzFile) -> bytes:
    """Identify a frozen network: SHA-256 of its ARCH without fields of the head, and of all streams except the head's.

    Files with the same digest compute the same features.
    """
    chunks = split_chunks(data, DEFAULT_LIMITS)
    streams, _ = split_streams(contents.network.spec, chunks)
    return hashlib.sha256(_arch_for(chunks[b"ARCH"], 0) + b"".join(streams[:-1])).digest()


def joined(kept: ConvParams, new: ConvParams) -> ConvParams:
    """Append the rows of a new head to those that are kept."""
    return ConvParams(
        np.concatenate([kept.weight, new.weight]), np.concatenate([kept.bias, new.bias]),
        np.concatenate([kept.multiplier, new.multiplier]),
    )  # fmt: skip


def replace_head(
    data: bytes, contents: SqzFile, head: ConvParams, meta: Mapping[str, Any], unknown: bytes = b""
) -> bytes:
    """Write a file with another head.

    Args:
        data: The frozen network's file.
        contents: The same file, decoded.
        head: The head's integers, any number of classes; it gets no ReLU.
        meta: Metadata of the new file, plain JSON.
        unknown: Body of the `unkn` chunk; without one there is none.

    Raises:
        LimitExceeded: If the metadata are longer than readers accept.
    """
    text = plain_json(meta)
    if len(text) > DEFAULT_LIMITS.meta_bytes:
        raise LimitExceeded(
            f"META: expected at most {DEFAULT_LIMITS.meta_bytes} bytes of JSON, got {len(text)}:"
            " fewer classes, or shorter names"
        )
    chunks, ops = split_chunks(data, DEFAULT_LIMITS), contents.network.spec.convs
    streams, fresh = split_streams(contents.network.spec, chunks)
    n_classes = len(head.bias)
    spec = contents.network.spec.replace(num_classes=n_classes, head_relu=False)
    streams[-1] = encode_next_fast(ops[:-1], streams[:-1], spec.convs[-1], head, fresh)
    arch = _arch_for(chunks[b"ARCH"], n_classes)
    body = join_streams(streams, fresh, arch[0])
    made = {b"ARCH": arch, b"WGHT": body, b"META": _stored(text)}
    return join_chunks(made | ({b"unkn": unknown} if unknown else {}))


def _arch_for(arch: bytes, n_classes: int) -> bytes:
    changed = bytearray(arch)
    changed[_CLASSES_AT : _CLASSES_AT + 2] = n_classes.to_bytes(2, "little")
    changed[_FLAGS_AT] &= ~_HEAD_RELU
    return bytes(changed)


def plain_json(value: Mapping[str, Any]) -> bytes:
    """Write JSON as JavaScript's `JSON.stringify` does with sorted keys: whole numbers without a fraction."""
    return json.dumps(
        _whole(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    ).encode()


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _stored(text: bytes) -> bytes:
    """A zlib stream without compression."""
    parts = [b"\x78\x01"]
    for start in range(0, max(len(text), 1), _BLOCK):
        block = text[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(text)
        size = len(block).to_bytes(2, "little")
        parts += [bytes([is_last]), size, bytes(byte ^ 255 for byte in size), block]
    return b"".join((*parts, zlib.adler32(text).to_bytes(4, "big")))
