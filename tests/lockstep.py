"""Both readers of `.sqz` on the same bytes: the Python one (with its own stream decoder) and the one in C.

`mutants` makes files that are nearly right, most of them with mended checksums, and `verdict_*` say what a reader makes
of one: the name of its error, or "read". What lies in META is read by Python alone and left out.
"""

from __future__ import annotations

import ctypes
import hashlib
import struct
import zlib
from collections.abc import Iterator
from unittest import mock

import numpy as np

from fixture_files import in_parts
from networks import random_network, tiny_spec, unknown_rule
from squeezenet import fileformat
from squeezenet.codec.native_weights import decode_convs_fast
from squeezenet.codec.weights import decode_convs
from squeezenet.errors import FormatError
from squeezenet.native_library import Options, Sizes, Spec, load_library
from squeezenet.spec import FireSpec, StemSpec
from sqz_bytes import SIGNATURE, chunk, split

ERRORS = ("read", "BadMagic", "Truncated", "ChecksumMismatch", "UnsupportedVersion", "LimitExceeded", "BadTable")
INTERESTING = (0, 1, 2, 3, 4, 5, 6, 11, 12, 63, 64, 65, 66, 127, 128, 191, 192, 224, 254, 255)
KINDS = (b"ARCH", b"WGHT", b"META", b"HASH", b"unkn", b"note", b"Note", b"nO1e", b"ABCD")


class Header(ctypes.Structure):
    """`sqz_header` of squeezenet.h."""

    _fields_ = [
        ("spec", Spec),
        *((name, ctypes.c_size_t) for name in ("weights", "n_weights", "meta", "n_meta", "unknown", "n_unknown")),
        ("version", ctypes.c_uint8),
    ]


def seeds() -> list[bytes]:
    """Small files of every bypass, with and without names, pools and codebooks."""
    fires = (FireSpec(squeeze_channels=1, expand1x1_channels=2, expand3x3_channels=1),) * 2
    small = {"stem": StemSpec(channels=4, kernel=2, stride=2), "fires": fires, "num_classes": 2, "input_size": 12}
    options = (
        {},
        {"bypass": "simple", "name": "näme", "pools": (1, 2)},
        {"bypass": "complex", "stem": StemSpec(channels=3, kernel=3, stride=1), "head_padding": 1, "name": "n" * 64},
        {"squeeze_relu": False, "head_relu": False, "pool_ceil_mode": False, "pools": (), "num_classes": 5},
    )
    networks = [
        random_network(tiny_spec(**{**small, **changes}), max_weight=most, seed=seed)
        for seed, changes in enumerate(options)
        for most in (2, 90)
    ]
    files = [
        fileformat.SqzFile(network=network, unknown=unknown_rule(network.spec, count))
        for count, network in enumerate(networks)
    ]
    return [*map(fileformat.encode_sqz, files), *(in_parts(file, {1, 3, 6}) for file in files[:3])]


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Make files, each from a seed by a few changes to one chunk's bytes or to the chunks themselves."""
    rng, files = np.random.default_rng(seed), [split(data) for data in seeds()]
    for _ in range(count):
        chunks = list(files[rng.integers(len(files))])
        for _ in range(rng.integers(1, 4)):
            if rng.random() < 0.12:
                _change_chunks(rng, chunks)
            else:
                at = int(rng.integers(len(chunks))) if rng.random() < 0.4 else 0
                kind, body = chunks[at]
                chunks[at] = kind, _changed(rng, body)
        parts = [chunk(kind, body) for kind, body in chunks]
        if rng.random() < 0.03:  # lengths and checksums as they come
            at = int(rng.integers(len(parts)))
            parts[at] = _changed(rng, parts[at])
        data = SIGNATURE + b"".join(parts)
        digest = hashlib.sha256(data).digest()
        data += chunk(b"HASH", digest if rng.random() > 0.01 else _changed(rng, digest))
        if rng.random() < 0.02:
            data = _changed(rng, data)
        yield data


def _change_chunks(rng: np.random.Generator, chunks: list[tuple[bytes, bytes]]) -> None:
    at = int(rng.integers(len(chunks)))
    match int(rng.integers(5)):
        case 0 if len(chunks) > 1:
            del chunks[at]
        case 1:
            chunks.insert(at, (KINDS[rng.integers(len(KINDS))], rng.bytes(int(rng.integers(8)))))
        case 2:
            chunks.append(chunks.pop(0))
        case 3:
            chunks[at] = KINDS[rng.integers(len(KINDS))], chunks[at][1]
        case _ if rng.random() < 0.1:
            letters = b"abcdefghijklmnopqrstuvwxyz"
            chunks += [(bytes((letters[i % 26], letters[i // 26], 97, 97)), b"") for i in range(rng.integers(58, 68))]


def _changed(rng: np.random.Generator, data: bytes) -> bytes:
    changed = bytearray(data)
    at = int(rng.integers(len(data) + 1)) if rng.random() < 0.6 else int(rng.integers(min(len(data), 48) + 1))
    match int(rng.integers(7)):
        case 0:
            del changed[at:]
        case 1:
            del changed[at : at + int(rng.integers(1, 6))]
        case 2:
            changed[at:at] = rng.bytes(int(rng.integers(1, 6)))
        case 3:
            changed[at : at + 4] = struct.pack("<f", 2.0 ** float(rng.integers(-45, 45)))
        case 4 if at < len(data):
            changed[at] ^= 1 << int(rng.integers(8))
        case _ if at < len(data):
            changed[at] = INTERESTING[rng.integers(len(INTERESTING))]
    return bytes(changed)


def verdict_python(data: bytes, *, own_decoder: bool) -> str:
    """What the Python reader says; weight streams by its own decoder, or, much faster, by that in C."""
    decoder = decode_convs if own_decoder else decode_convs_fast
    with mock.patch.multiple(fileformat, decode_meta=lambda *_: {}, decode_convs_fast=decoder):
        try:
            fileformat.decode_sqz(data)
        except FormatError as error:
            return type(error).__name__
    return "read"


def verdict_c(data: bytes) -> str:
    """What `sqz_read_header` and `sqz_load` say."""
    library, header, sizes, model = load_library(), Header(), Sizes(), ctypes.c_void_p()
    assert library is not None
    status = library.sqz_read_header(data, ctypes.c_size_t(len(data)), None, ctypes.byref(header))
    if not status:
        assert library.sqz_measure(header.spec, Options(b"scalar"), sizes) == 0
        memory, scratch = np.empty(sizes.model_bytes, np.uint8), np.empty(sizes.load_bytes, np.uint8)
        assert library.sqz_create(header.spec, Options(b"scalar"), memory.ctypes.data, memory.nbytes, model) == 0
        place, size = ctypes.c_void_p(scratch.ctypes.data), ctypes.c_size_t(scratch.nbytes)
        status = library.sqz_load(model, ctypes.byref(header), data, place, size)
    return ERRORS[status]


def compare(count: int, seed: int, *, share_of_own: float = 0.1) -> dict[str, int]:
    """Read mutants with both; how often each verdict fell.

    Raises:
        AssertionError: If the readers differ; the message has the file.
    """
    found = dict.fromkeys(ERRORS, 0)
    rng = np.random.default_rng(seed)
    for data in mutants(count, seed):
        mine, theirs = verdict_python(data, own_decoder=rng.random() < share_of_own), verdict_c(data)
        assert mine == theirs, f"Python: {mine}, C: {theirs}, file: {zlib.compress(data).hex()}"
        found[mine] += 1
    return found
