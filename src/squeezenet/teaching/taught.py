"""`.taught` files, from which photos and classes can be added to a head: docs/teaching.md, "What is kept".

They contain names and feature codes of photos, but no photos. Input is untrusted: lengths are checked before memory is
allocated.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadMagic, BadTable, ChecksumMismatch, FormatError, LimitExceeded, Truncated, UnsupportedVersion
from ..fileformat import read_bytes
from ..text import match_key
from .head import plain_json
from .solver import FeatureCode

__all__ = ["Lesson", "decode_taught", "encode_taught", "photos_taught"]

_SIGNATURE = b"\x89SQT\r\n\x1a\n"
_VERSION = 1
_LENGTH = struct.Struct("<I")
_HASH_BYTES = 32
_MAX_FILE_BYTES = 256 << 20
_MAX_HEADER_BYTES = 1 << 26
_MAX_CODE_BYTES = 1 << 28
_MAX_PHOTOS = 1 << 19
_MAX_CHANNELS = 4096


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Photos as a frozen network sees them: names, feature codes and classes."""

    network: bytes
    """`head.network_digest` of the network."""
    code: FeatureCode
    classes: tuple[str, ...]
    """Names of the classes that were taught, in output order."""
    kept: int
    """Number of classes of the network that are kept before these classes."""
    labels: NDArray[np.int64]
    """(n,), ascending, positions in `classes`."""
    names: tuple[str, ...]
    """(n,), name of each photo."""
    codes: NDArray[np.uint8]
    """(n, d)"""
    foreign_names: tuple[str, ...]
    """(k,), names of photos that show none of the classes."""
    foreign_codes: NDArray[np.uint8]
    """(k, d)"""


def encode_taught(lesson: Lesson) -> bytes:
    """Encode a `.taught` file; equal lessons give equal bytes.

    Raises:
        LimitExceeded: If there are more photos, or longer names, than `decode_taught` reads.
    """
    counts = np.bincount(lesson.labels, minlength=len(lesson.classes)).tolist()
    names = iter(lesson.names)
    header = plain_json(
        {
            "version": _VERSION,
            "network": lesson.network.hex(),
            "channels": lesson.codes.shape[1],
            "shift": lesson.code.shift,
            "signed": lesson.code.is_signed,
            "kept": lesson.kept,
            "classes": [
                {"name": name, "photos": [next(names) for _ in range(count)]}
                for name, count in zip(lesson.classes, counts, strict=True)
            ],
            "foreign": list(lesson.foreign_names),
        }
    )
    photos, code_bytes = (
        len(lesson.codes) + len(lesson.foreign_codes),
        lesson.codes.nbytes + lesson.foreign_codes.nbytes,
    )
    if photos > _MAX_PHOTOS or code_bytes > _MAX_CODE_BYTES or len(header) > _MAX_HEADER_BYTES:
        raise LimitExceeded(
            f"expected at most {_MAX_PHOTOS:,} photos with {_MAX_CODE_BYTES >> 20} MiB of features and"
            f" {_MAX_HEADER_BYTES >> 20} MiB of names, got {photos:,}, {code_bytes >> 20} and {len(header) >> 20}"
        )
    body = _LENGTH.pack(len(header)) + header + lesson.codes.tobytes() + lesson.foreign_codes.tobytes()
    data = _SIGNATURE + zlib.compress(body, 9)
    return data + hashlib.sha256(data).digest()


def photos_taught(path: Path, features: NDArray[np.integer] | None) -> int:
    """Count the photos that the head of a `.sqz` file was taught from, according to the `.taught` file beside it.

    Args:
        path: The `.sqz` file.
        features: Features of photos, (N, channels).

    Raises:
        FormatError: If the `.taught` file is damaged.
        OSError: If it cannot be read.
    """
    if features is None or not (beside := path.with_suffix(".taught")).exists():
        return 0
    try:
        lesson = decode_taught(read_bytes(beside))
    except FormatError as error:
        raise error.at(beside) from None
    known = {bytes(code) for code in lesson.codes}
    return sum(bytes(code) in known for code in lesson.code.encode(features))


def decode_taught(data: bytes) -> Lesson:
    """Decode a `.taught` file.

    Raises:
        FormatError: If the file is malformed; the subclass states the kind of error.
    """
    if len(data) > _MAX_FILE_BYTES:
        raise LimitExceeded(f"expected a file of at most {_MAX_FILE_BYTES} bytes, got more")
    if data[: len(_SIGNATURE)] != _SIGNATURE:
        if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
            raise Truncated(f"the file ends after {len(data)} bytes, inside its signature")
        raise BadMagic(f"expected a .taught file, got one that starts with {data[:8]!r}")
    if len(data) < len(_SIGNATURE) + _HASH_BYTES:
        raise Truncated("the file ends before its checksum")
    if hashlib.sha256(data[:-_HASH_BYTES]).digest() != data[-_HASH_BYTES:]:
        raise ChecksumMismatch("the file is damaged: its SHA-256 does not match")
    try:
        return _read_body(data[len(_SIGNATURE) : -_HASH_BYTES])
    except FormatError:
        raise
    except zlib.error as error:
        raise BadTable(f"expected a deflate stream ({error})") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise BadTable(f"expected the header of a .taught file ({type(error).__name__}: {error})") from None


def _read_body(packed: bytes) -> Lesson:
    """Inflate as much as the part before says, and no more."""
    inflater, rest = zlib.decompressobj(), packed

    def read(size: int) -> bytes:
        nonlocal rest
        part = inflater.decompress(rest, size)
        rest = inflater.unconsumed_tail
        if len(part) < size:
            raise Truncated(f"the file ends inside its header: expected {size} bytes, got {len(part)}")
        return part

    def read_last(size: int) -> bytes | None:
        part = inflater.decompress(rest, size + 1)
        return part if len(part) == size and inflater.eof and not inflater.unused_data else None

    (size,) = _LENGTH.unpack(read(_LENGTH.size))
    if not 0 < size <= _MAX_HEADER_BYTES:
        raise LimitExceeded(f"expected names of 1 to {_MAX_HEADER_BYTES} bytes, got {size}")
    return _lesson(json.loads(read(size).decode()), read_last)


def _lesson(header: Mapping[str, Any], read_last: Callable[[int], bytes | None]) -> Lesson:
    if header["version"] != _VERSION:
        raise UnsupportedVersion(
            f"expected version {_VERSION} of .taught files, got {header['version']!r}: upgrade squeezenet to read it"
        )
    classes, foreign = header["classes"], header["foreign"]
    names = [name for entry in classes for name in entry["photos"]]
    labels = np.repeat(np.arange(len(classes)), [len(entry["photos"]) for entry in classes])
    texts = [entry["name"] for entry in classes] + names + foreign
    if not all(isinstance(text, str) and text.encode() is not None for text in texts) or not isinstance(foreign, list):
        raise BadTable("expected names of classes and photos as text")
    channels, shift, kept = (header[key] for key in ("channels", "shift", "kept"))
    if not all(type(value) is int for value in (channels, shift, kept)) or type(header["signed"]) is not bool:
        raise BadTable("expected whole numbers for channels, shift and kept, and a yes or no for signed")
    if not 1 <= channels <= _MAX_CHANNELS or not 0 <= shift <= 16 or not 0 <= kept < 65_535:
        raise BadTable(f"expected 1 to {_MAX_CHANNELS} channels, got {channels}; shift {shift}; kept {kept}")
    if not 1 <= len(classes) <= 65_535 - kept or not 1 <= len(names) <= _MAX_PHOTOS or len(foreign) > _MAX_PHOTOS:
        raise LimitExceeded(f"expected photos and classes, got {len(names)} and {len(classes)}")
    if not all(entry["photos"] for entry in classes):
        raise BadTable("expected at least one photo of each class")
    keys = {match_key(entry["name"]) for entry in classes}
    if len(keys) < len(classes) or not all(entry["name"].strip() for entry in classes):
        raise BadTable("expected a name for each class, and no name twice")
    code_bytes = channels * (len(names) + len(foreign))
    if code_bytes > _MAX_CODE_BYTES:
        raise LimitExceeded(f"expected at most {_MAX_CODE_BYTES} bytes of codes, got {code_bytes}")
    codes = read_last(code_bytes)
    if codes is None:
        raise BadTable(
            f"expected {channels} bytes for each of {len(names) + len(foreign)} photos at the end of one complete"
            " deflate stream, got more or less"
        )
    rows = np.frombuffer(codes, np.uint8).reshape(-1, channels)
    return Lesson(
        network=bytes.fromhex(header["network"]), code=FeatureCode(shift, header["signed"]),
        classes=tuple(entry["name"] for entry in classes), kept=kept, labels=labels, names=tuple(names),
        codes=rows[: len(names)], foreign_names=tuple(foreign), foreign_codes=rows[len(names) :],
    )  # fmt: skip
