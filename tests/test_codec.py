"""The weight coder: what goes in comes out, in few bytes, and nothing else is accepted."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec_checks import check_round_trip, conv_op, conv_params, laplacian
from networks import random_network, tiny_spec
from squeezenet.codec.numbers import code_magnitude
from squeezenet.codec.range_coder import Contexts, RangeEncoder
from squeezenet.codec.references import choose_references
from squeezenet.codec.weights import decode_convs, encode_convs, round_multiplier
from squeezenet.errors import BadTable, CodecError, FormatError, Truncated

TINY = tiny_spec()


def entropy_bytes(weight: np.ndarray) -> float:
    _, counts = np.unique(weight, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


@pytest.mark.parametrize("value", [0, 1, -1, 127, -127])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 1, 1), (4, 2, 3, 3), (2, 3, 7, 7), (2, 1, 11, 11)])
def test_constant_layer(shape, value):
    check_round_trip(conv_params(np.full(shape, value)))


@pytest.mark.parametrize(("max_weight", "density"), [(127, 1.0), (127, 0.05), (3, 0.4), (1, 0.01)])
def test_random_network(max_weight, density):
    network = random_network(TINY, max_weight=max_weight, density=density)
    streams = encode_convs(TINY.convs, network.convs)
    decoded = decode_convs(TINY.convs, streams)
    for op in TINY.convs:
        np.testing.assert_array_equal(decoded[op.name].weight, network.convs[op.name].weight)
        np.testing.assert_array_equal(decoded[op.name].bias, network.convs[op.name].bias)
        np.testing.assert_array_equal(decoded[op.name].multiplier, network.convs[op.name].multiplier)


def test_large_weights_after_small_ones():
    """Coefficients learnt at one scale meet another."""
    check_round_trip(
        conv_params(laplacian((16, 8, 3, 3), 0.4, seed=1)),
        conv_params(np.random.default_rng(2).choice([-127, 127], (16, 8, 3, 3))),
        conv_params(laplacian((16, 8, 3, 3), 0.4, seed=3)),
    )


def test_codebook_layer_pays_for_positions_alone():
    rng = np.random.default_rng(0)
    small = rng.integers(-1, 2, (32, 32, 1, 1))
    values = conv_params(np.array([-90, 0, 77])[small + 1])
    positions = conv_params(small)
    assert len(check_round_trip(values)[0]) <= len(check_round_trip(positions)[0]) + 40


def test_all_values_need_no_codebook():
    check_round_trip(conv_params(np.arange(-127, 128).reshape(15, 17, 1, 1)))


def test_rows_that_repeat_earlier_rows_cost_little():
    rows = np.random.default_rng(0).integers(-20, 21, (8, 200))
    distant = np.concatenate([rows, rows[::-1], rows, rows[::-1]]).reshape(32, 200, 1, 1)
    assert len(check_round_trip(conv_params(distant))[0]) < 0.75 * entropy_bytes(distant)


@pytest.mark.parametrize("bias", [[0, 0, 0], [2**31 - 1, -(2**31 - 1), 1], [1024, -4096, 0], [-1, 1, -1]])
def test_biases(bias):
    check_round_trip(conv_params(np.ones((3, 1, 1, 1)), bias=bias))


@pytest.mark.parametrize(
    "multiplier",
    [[0.5, 0.5, 0.5], [2.0**-40, 2.0**20, 1.0], [0.1, 0.1000001, 3.14159], [1e-45, 3.4e38, 1.0], [0.0, 0.0, 0.0]],
)
def test_multipliers(multiplier):
    check_round_trip(conv_params(np.ones((3, 1, 1, 1)), multiplier=multiplier))


def test_one_multiplier_for_all_rows_costs_a_few_bytes():
    weight = np.zeros((1000, 1, 1, 1))
    assert len(check_round_trip(conv_params(weight, multiplier=np.full(1000, 0.0123)))[0]) <= 30


def test_shared_low_zero_bits_of_biases_cost_nothing():
    weight, bias = np.zeros((500, 1, 1, 1)), np.random.default_rng(0).integers(-99, 100, 500)
    plain = len(check_round_trip(conv_params(weight, bias=bias))[0])
    assert len(check_round_trip(conv_params(weight, bias=bias << 12))[0]) <= plain + 1


@pytest.mark.parametrize(("scale", "share"), [(0.3, 1.02), (1.0, 1.015), (4.0, 1.02), (25.0, 1.03)])
def test_independent_weights_cost_their_entropy(scale, share):
    weight = laplacian((128, 128, 1, 1), scale, seed=0)
    assert len(check_round_trip(conv_params(weight))[0]) <= share * entropy_bytes(weight) + 100


def test_smooth_filters_cost_less_than_their_entropy():
    noise = np.random.default_rng(0).normal(0, 1, (64, 32, 3, 3))
    smooth = np.rint(1.5 * (noise + 2 * noise.mean(axis=(2, 3), keepdims=True) * 3)).astype(np.int8)
    assert len(check_round_trip(conv_params(smooth))[0]) <= 0.85 * entropy_bytes(smooth)


def test_rows_of_different_size_cost_less_than_their_entropy():
    scale = np.exp(np.random.default_rng(0).normal(0, 1, (64, 1, 1, 1)))
    weight = np.clip(np.rint(laplacian((64, 128, 1, 1), 8.0, seed=1) * scale / 8), -127, 127).astype(np.int8)
    assert len(check_round_trip(conv_params(weight))[0]) <= 0.96 * entropy_bytes(weight)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_layers(data):
    layers = []
    for _ in range(data.draw(st.integers(1, 2))):
        shape = (
            data.draw(st.integers(1, 5)),
            data.draw(st.integers(1, 3)),
            *[data.draw(st.sampled_from([1, 2, 3, 5]))] * 2,
        )
        size = int(np.prod(shape))
        values = data.draw(st.lists(st.integers(-127, 127), min_size=1, max_size=6))
        weight = data.draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))
        bias = data.draw(st.lists(st.integers(1 - 2**31, 2**31 - 1), min_size=shape[0], max_size=shape[0]))
        words = data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=shape[0], max_size=shape[0]))
        # Patterns of NaN go through as well; IntegerNetwork refuses them.
        layers.append(conv_params(np.reshape(weight, shape), bias, np.array(words, np.uint32).view(np.float32)))
    ops = [conv_op(*params.weight.shape[:3], name=f"conv{index}") for index, params in enumerate(layers)]
    decoded = decode_convs(ops, encode_convs(ops, {op.name: layer for op, layer in zip(ops, layers, strict=True)}))
    for op, layer in zip(ops, layers, strict=True):
        assert decoded[op.name].weight.tobytes() == layer.weight.tobytes()
        assert decoded[op.name].bias.tobytes() == layer.bias.tobytes()
        assert decoded[op.name].multiplier.tobytes() == layer.multiplier.tobytes()


def test_no_stream_decodes_once_shortened():
    op = conv_op(6, 4, 3)
    network = {"conv": conv_params(laplacian((6, 4, 3, 3), 2.0, seed=0), bias=range(6))}
    (stream,) = encode_convs([op], network)
    for length in range(len(stream)):
        with pytest.raises((Truncated, BadTable), match="conv"):
            decode_convs([op], [stream[:length]])


def test_longer_stream_is_refused():
    op = conv_op(2, 3, 1)
    (stream,) = encode_convs([op], {"conv": conv_params(np.ones((2, 3, 1, 1)))})
    with pytest.raises(BadTable, match="goes on after its last weight"):
        decode_convs([op], [stream + b"\0"])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([(4, 3, 1), (2, 2, 3), (1, 1, 7), (40, 1, 1)]))
def test_any_bytes_decode_within_bounds_or_are_refused(data, shape):
    try:
        params = decode_convs([conv_op(*shape)], [data])["conv"]
    except FormatError:
        return
    assert params.weight.min() >= -127
    assert not np.signbit(params.multiplier).any()


@pytest.mark.parametrize("seed", range(4))
def test_long_random_streams_end_in_time(seed):
    """Random bytes make wild weights, and a stream of many more bytes than weights need."""
    data = np.random.default_rng(seed).integers(0, 256, 20000).astype(np.uint8).tobytes()
    with pytest.raises(FormatError):
        decode_convs([conv_op(16, 16, 3)], [data])


@pytest.mark.parametrize("start", [b"", b"\0", b"\xff\xff\xff\xff", b"\xff" * 40])
def test_degenerate_streams_are_refused(start):
    with pytest.raises((Truncated, BadTable)):
        decode_convs([conv_op(2, 3, 1)], [start])


@pytest.mark.parametrize(
    "params",
    [
        conv_params([[[[-128]]]]),
        conv_params([[[[1]]]], bias=[-(2**31)]),
        conv_params([[[[1]]]], multiplier=[-1.0]),
    ],
)
def test_integers_out_of_range_are_not_encoded(params):
    with pytest.raises(CodecError, match="conv: expected positive multipliers"):
        encode_convs([conv_op(1, 1, 1)], {"conv": params})


def written_by_hand(rows: int, *, distance: int | None, energy: int) -> bytes:
    """A stream up to the energy field: multipliers and biases zero, no codebook, a distance for row 2 if given."""
    encoder, lengths, tops = RangeEncoder(), Contexts(32), Contexts(96)
    for bits, value in ((5, 31), (5, 0), (5, 0)):
        encoder.raw(bits, value)
    for _ in range(rows):
        code_magnitude(encoder, lengths, tops, 0)
    encoder.raw(1, 0)
    encoder.raw(1, int(distance is not None))
    if distance is not None:
        code_magnitude(encoder, Contexts(32), Contexts(96), distance)
    encoder.raw(5, energy)
    return encoder.finish()


def test_energy_beyond_eight_bits_is_refused():
    with pytest.raises(BadTable, match="conv: expected an energy of at most 22, got 23"):
        decode_convs([conv_op(1, 1, 1)], [written_by_hand(1, distance=None, energy=23)])


@pytest.mark.parametrize("distance", [0, 3])
def test_reference_outside_the_layer_is_refused(distance):
    with pytest.raises(BadTable, match=f"row 2 refers {distance} rows back"):
        decode_convs([conv_op(3, 1, 1)], [written_by_hand(3, distance=distance, energy=0)])


def test_multipliers_round_up_to_few_bits():
    rounded = round_multiplier(np.array([1.0, 1.001, 1.1, 3.0]), fraction_bits=2)
    np.testing.assert_array_equal(rounded, np.array([1.0, 1.25, 1.25, 3.0], np.float32))


def test_references_of_thousands_of_classes_take_little_memory():
    rng = np.random.default_rng(0)
    rows = rng.integers(-60, 61, (700, 12))[rng.integers(700, size=4000)]  # each of them some six times
    tracemalloc.start()
    try:
        references = choose_references(rows)
        assert tracemalloc.get_traced_memory()[1] < 80e6  # a table of all pairs alone takes 128 MB
    finally:
        tracemalloc.stop()
    same = sum((rows[row] == rows[reference]).all() for row, reference in enumerate(references) if row)
    assert same > 0.8 * 4000 - 700
