"""Atheris: any bytes through the Python reader; only a FormatError may come out.

python fuzz/fuzz_reader.py corpus/file -max_total_time=60
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import sys
import zlib

import atheris

with atheris.instrument_imports(include=["squeezenet"]):
    from squeezenet.errors import FormatError
    from squeezenet.fileformat import Limits, decode_sqz

LIMITS = Limits(file_bytes=1 << 16, meta_bytes=1 << 16, weights=1 << 12)


def mend_checksums(data: bytearray) -> None:
    """Put right what a mutation broke, or none would get far."""
    offset = 8
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        if length > len(data) - offset - 12:
            return
        if data[offset + 4 : offset + 8] == b"HASH" and length == 32:
            data[offset + 8 : offset + 40] = hashlib.sha256(data[:offset]).digest()
        struct.pack_into("<I", data, offset + 8 + length, zlib.crc32(data[offset + 4 : offset + 8 + length]))
        offset += 12 + length


def test_one_input(data: bytes) -> None:
    mended = bytearray(data)
    if len(data) % 8:
        mend_checksums(mended)
    with contextlib.suppress(FormatError):
        decode_sqz(bytes(mended), LIMITS)


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
