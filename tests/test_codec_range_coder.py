"""The range coder by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezenet.codec.range_coder import Contexts, RangeDecoder, RangeEncoder
from squeezenet.errors import BadTable, Truncated


def coded(decisions) -> bytes:
    encoder, contexts = RangeEncoder(), Contexts(4)
    for context, value in decisions:
        encoder.bit(contexts, context, value)
    return encoder.finish()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), max_size=300))
def test_decisions_come_back(decisions):
    decoder, contexts = RangeDecoder(coded(decisions)), Contexts(4)
    assert [decoder.bit(contexts, context) for context, _ in decisions] == [value for _, value in decisions]
    decoder.finish()


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=1, max_size=40))
def test_what_decodes_encodes_to_the_same_bytes(data):
    try:
        decoder = RangeDecoder(data)
        contexts = Contexts(4)
        decisions = [(index % 4, decoder.bit(contexts, index % 4)) for index in range(8 * len(data))]
        decoder.finish()
    except (BadTable, Truncated):
        return
    assert coded(decisions) == data


def test_a_run_of_carries():
    """Decisions that keep `low` just below a power of two until a carry runs through many bytes of 255."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        decisions = [(0, 0)] * 400 + [(1, int(value)) for value in rng.integers(0, 2, 30)]
        decoder, contexts = RangeDecoder(coded(decisions)), Contexts(4)
        assert [decoder.bit(contexts, context) for context, _ in decisions] == [value for _, value in decisions]


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_constant_probability_costs_its_entropy(share):
    values = np.random.default_rng(0).random(20000) < share
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * len(values) / 8
    assert len(coded([(0, int(value)) for value in values])) <= 1.03 * entropy + 8


@pytest.mark.parametrize("value", [0, 1])
def test_probabilities_stay_inside_their_range(value):
    encoder, contexts = RangeEncoder(), Contexts(1)
    for _ in range(60):
        contexts.relax()
        for _ in range(300):
            encoder.bit(contexts, 0, value)
    assert 15 <= contexts.probability[0] <= 65536 - 15


def test_a_value_outside_its_range_is_refused():
    decoder = RangeDecoder(b"\xff\xff\xff\xfe\xff")
    with pytest.raises(BadTable, match="outside its range"):
        decoder.raw(3)


def test_no_bytes_are_no_stream():
    with pytest.raises(Truncated, match="ends before its last weight"):
        RangeDecoder(b"").finish()
