"""The C reader takes what the Python reader takes, and refuses what it refuses."""

import ctypes

import numpy as np
import pytest
from networks import random_network, tiny_spec

from squeezenet.codec.native_weights import decode_conv_fast
from squeezenet.codec.weights import decode_conv, encode_conv
from squeezenet.errors import FormatError
from squeezenet.fileformat import SqzFile, decode_sqz, encode_sqz
from squeezenet.labels import Labels
from squeezenet.native_library import Sizes, Spec, load_library

library = load_library()
if library is None:
    pytest.skip("needs the native engine: no C compiler was found at installation", allow_module_level=True)

BAD_MAGIC, TRUNCATED, CHECKSUM, VERSION, LIMIT, BAD_TABLE = range(1, 7)


class Header(ctypes.Structure):
    _fields_ = [("spec", Spec), *((name, ctypes.c_size_t) for name in ("weights", "n_weights", "meta", "n_meta"))]


def load(data: bytes) -> int:
    """Status of reading a whole file in C."""
    header, sizes, model = Header(), Sizes(), ctypes.c_void_p()
    status = library.sqz_read_header(data, ctypes.c_size_t(len(data)), None, ctypes.byref(header))
    if status:
        return status
    assert library.sqz_measure(header.spec, None, 1, sizes) == 0
    memory, scratch = np.empty(sizes.model_bytes, np.uint8), np.empty(sizes.load_bytes, np.uint8)
    assert library.sqz_create(header.spec, None, memory.ctypes.data, memory.nbytes, model) == 0
    return library.sqz_load(
        model, ctypes.byref(header), data, ctypes.c_void_p(scratch.ctypes.data), ctypes.c_size_t(scratch.nbytes)
    )


def read_in_python(data: bytes) -> bool:
    try:
        decode_sqz(data)
    except FormatError:
        return False
    return True


@pytest.fixture(scope="module")
def file() -> bytes:
    labels = Labels(tuple("abcde"))
    return encode_sqz(SqzFile(network=random_network(tiny_spec(bypass="complex"), max_weight=9), labels=labels))


@pytest.mark.parametrize("options", [{}, {"bypass": "simple"}, {"bypass": "complex", "head_padding": 1}])
@pytest.mark.parametrize("max_weight", [1, 3, 127])
def test_streams_decode_to_the_same_integers(options, max_weight):
    network = random_network(tiny_spec(**options), max_weight=max_weight, density=0.6)
    for op in network.spec.convs:
        stream = encode_conv(op, network.convs[op.name])
        for decoded in (decode_conv_fast(op, stream), decode_conv(op, stream)):
            for field in ("weight", "bias", "multiplier"):
                np.testing.assert_array_equal(getattr(decoded, field), getattr(network.convs[op.name], field))


def test_damaged_streams_never_decode_to_other_integers_than_in_python():
    network = random_network(tiny_spec(), max_weight=20)
    rng = np.random.default_rng(0)
    n_decoded = 0
    for op in network.spec.convs[:4]:
        stream = encode_conv(op, network.convs[op.name])
        for _ in range(40):
            damaged = bytearray(stream)
            for _ in range(rng.integers(1, 3)):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
            try:
                fast = decode_conv_fast(op, bytes(damaged))
            except FormatError:
                continue
            slow = decode_conv(op, bytes(damaged))
            n_decoded += 1
            for field in ("weight", "bias", "multiplier"):
                np.testing.assert_array_equal(getattr(fast, field).view(np.uint8), getattr(slow, field).view(np.uint8))
    assert n_decoded > 0


def test_every_prefix_is_refused(file):
    assert load(file) == 0
    for length in range(len(file)):
        assert load(file[:length]) == (TRUNCATED if length else TRUNCATED)


def test_every_flipped_bit_is_refused(file):
    for position in range(0, len(file)):
        damaged = bytearray(file)
        damaged[position] ^= 1 << position % 8
        assert load(bytes(damaged)) != 0


def test_other_files_are_refused_by_name(file):
    assert load(b"PK\x03\x04" + file) == BAD_MAGIC
    assert load(file + b"\0") == BAD_TABLE
    assert load(file.replace(b"META", b"METB")) == CHECKSUM
