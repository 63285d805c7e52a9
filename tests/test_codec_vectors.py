"""The test vectors of docs/coding.md, read from the page itself."""

import re
from pathlib import Path

import numpy as np
import pytest

from squeezenet.codec.range_coder import Contexts, RangeDecoder, RangeEncoder
from squeezenet.codec.weights import decode_convs, encode_convs
from squeezenet.network import ConvParams
from squeezenet.spec import Op

_PAGE = (Path(__file__).parents[1] / "docs" / "coding.md").read_text("utf-8")
BITS, RAW, NOTHING, FIRST, SECOND = map(bytes.fromhex, re.findall(r"^    ([0-9a-f]+)$", _PAGE, re.MULTILINE))


def conv_op(name: str, out_channels: int, in_channels: int, kernel: int) -> Op:
    return Op(
        name=name, kind="conv", inputs=("x",), output=name, in_channels=in_channels, out_channels=out_channels,
        in_size=8, out_size=8, kernel=kernel,
    )  # fmt: skip


OPS = [conv_op("first", 4, 2, 3), conv_op("second", 3, 4, 1)]


def vector_convs() -> dict[str, ConvParams]:
    j = np.arange(72)
    first = np.where(j % 4 == 0, (j * j * 7 + j * 3) % 9 - 4, 0)
    second = 120 * (np.arange(12) * 5 % 3 - 1)
    return {
        "first": ConvParams(
            first.reshape(4, 2, 3, 3).astype(np.int8),
            np.array([0, 40, -96, 8], np.int32),
            (np.array([1, 1.5, 1.25, 2]) * 2.0**-10).astype(np.float32),
        ),
        "second": ConvParams(
            second.reshape(3, 4, 1, 1).astype(np.int8),
            np.array([-1, 2, 1000003], np.int32),
            np.full(3, 0.1, np.float32),
        ),
    }


def test_bits_of_one_context():
    encoder, contexts = RangeEncoder(), Contexts(1)
    for index in range(40):
        encoder.bit(contexts, 0, int(index % 5 == 0))
    assert encoder.finish() == BITS
    assert (contexts.probability, contexts.count) == ([13493], [40])


def test_bits_decode():
    decoder, contexts = RangeDecoder(BITS), Contexts(1)
    assert [decoder.bit(contexts, 0) for _ in range(40)] == [1, 0, 0, 0, 0] * 8
    decoder.finish()


def test_raw_bits():
    encoder = RangeEncoder()
    for value in (115, 113, 122, 33):
        encoder.raw(8, value)
    encoder.raw(3, 5)
    assert encoder.finish() == RAW


def test_raw_bits_decode():
    decoder = RangeDecoder(RAW)
    assert [decoder.raw(8) for _ in range(4)] == [115, 113, 122, 33]
    assert decoder.raw(3) == 5
    decoder.finish()


def test_nothing_is_one_byte():
    assert RangeEncoder().finish() == NOTHING


def test_convolutions_encode_to_the_bytes_of_the_page():
    assert encode_convs(OPS, vector_convs()) == [FIRST, SECOND]


@pytest.mark.parametrize("field", ["weight", "bias", "multiplier"])
def test_convolutions_decode_from_the_bytes_of_the_page(field):
    decoded = decode_convs(OPS, [FIRST, SECOND])
    for name, params in vector_convs().items():
        np.testing.assert_array_equal(getattr(decoded[name], field), getattr(params, field))
