"""The encoder in C writes the bytes of the one in Python."""

import dataclasses
import threading
import time
from unittest import mock

import numpy as np
import pytest

from fixture_files import fixtures
from networks import random_network, random_spec, tiny_spec
from squeezenet import FireSpec, find_model, read_sqz
from squeezenet.architectures import named_spec
from squeezenet.codec import native_weights
from squeezenet.codec.native_weights import decode_convs_fast, encode_convs_fast, encode_next_fast
from squeezenet.codec.references import choose_references
from squeezenet.codec.weights import choose_fresh, decode_convs, encode_convs, encode_next
from squeezenet.engine import native_kernels
from squeezenet.errors import CodecError, FormatError
from squeezenet.network import ConvParams

if not native_kernels():
    pytest.skip("needs the native engine", allow_module_level=True)


def check_equal(network):
    ops, convs = network.spec.convs, network.convs
    streams = encode_convs(ops, convs)
    assert encode_convs_fast(ops, convs) == streams
    last = convs[ops[-1].name]
    assert encode_next_fast(ops[:-1], streams[:-1], ops[-1], last) == streams[-1]
    return streams


@pytest.mark.parametrize("part", range(4))
def test_random_networks_give_equal_bytes(part):
    for seed in range(part, 24, 4):
        rng = np.random.default_rng(seed)
        most = int(rng.choice([1, 3, 15, 127]))
        check_equal(random_network(random_spec(rng), seed=seed, max_weight=most, density=rng.random()))


@pytest.mark.parametrize("name", fixtures())
def test_fixtures_give_equal_bytes(name):
    check_equal(fixtures()[name].network)


def test_references_are_chosen_alike():
    spec = tiny_spec(num_classes=40)
    network = random_network(spec, seed=1)
    head = network.convs["conv4"]
    rng = np.random.default_rng(2)
    kinds = head.weight[:7, :, 0, 0][rng.integers(0, 7, 40)] // 2  # related rows in any order
    weight = np.clip(kinds + rng.integers(-9, 10, kinds.shape), -127, 127).astype(np.int8)[:, :, None, None]
    related = dataclasses.replace(
        network, convs={**network.convs, "conv4": ConvParams(weight, head.bias, head.multiplier)}
    )
    assert choose_references(weight.reshape(40, -1).astype(np.int64))[5:] != list(range(4, 39))
    check_equal(related)


def test_encode_next_in_python_goes_on_from_streams():
    network = random_network(tiny_spec(), seed=4)
    ops, streams = network.spec.convs, encode_convs(network.spec.convs, network.convs)
    assert encode_next(ops[:-1], streams[:-1], ops[-1], network.convs[ops[-1].name]) == streams[-1]


def test_bundled_network_is_encoded_in_milliseconds():
    network = read_sqz(find_model("cifar10").path).network
    start = time.perf_counter()
    streams = encode_convs_fast(network.spec.convs, network.convs)
    assert time.perf_counter() - start < 2  # Python takes 5 s; the rest is for busy machines
    again = decode_convs_fast(network.spec.convs, streams)
    for name, conv in network.convs.items():
        np.testing.assert_array_equal(again[name].weight, conv.weight)


@pytest.mark.parametrize("field", ["weight", "bias", "multiplier"])
def test_what_the_coder_cannot_hold_is_refused(field):
    network = random_network(
        tiny_spec(fires=(FireSpec(squeeze_channels=2, expand1x1_channels=2, expand3x3_channels=2),))
    )
    conv = network.convs["conv1"]
    worst = {"weight": np.full_like(conv.weight, -128), "bias": np.full_like(conv.bias, -(2**31)),
             "multiplier": -conv.multiplier}[field]  # fmt: skip
    changed = {**network.convs, "conv1": dataclasses.replace(conv, **{field: worst})}
    with pytest.raises(CodecError, match="conv1: expected positive multipliers"):
        encode_convs_fast(network.spec.convs, changed)


@pytest.mark.parametrize("fresh", [{1}, {4}, {2, 3}, {0, 6}])
def test_fresh_streams_need_none_before_them(fresh):
    network = random_network(tiny_spec(bypass="complex"), seed=5, max_weight=20, density=0.5)
    ops, convs = network.spec.convs, network.convs
    streams = encode_convs(ops, convs, fresh)
    assert encode_convs_fast(ops, convs, fresh) == streams
    for start in fresh:
        assert streams[start:] == encode_convs(ops[start:], convs, {index - start for index in fresh})
    for decode in (decode_convs, decode_convs_fast):
        found = decode(ops, streams, fresh)
        assert all((found[op.name].weight == convs[op.name].weight).all() for op in ops)
    last = convs[ops[-1].name]
    for encode in (encode_next, encode_next_fast):
        assert encode(ops[:-1], streams[:-1], ops[-1], last, fresh) == streams[-1]


def test_the_first_of_two_damaged_parts_is_named():
    network = random_network(tiny_spec(), seed=6, max_weight=20, density=0.5)
    ops = network.spec.convs
    streams = encode_convs(ops, network.convs, {3})
    damaged = [b"\xff\xff\xff\xff" if index in (1, 4) else stream for index, stream in enumerate(streams)]
    for decode in (decode_convs, decode_convs_fast):
        with pytest.raises(FormatError, match=ops[1].name):
            decode(ops, damaged, {3})


def in_many_parts():
    network = random_network(tiny_spec(), seed=7)
    ops, fresh = network.spec.convs, range(len(network.spec.convs))
    return ops, encode_convs(ops, network.convs, fresh), fresh


def test_parts_are_decoded_where_no_thread_can_be_started(monkeypatch):
    """As at a system's limit, in a browser, and from Python 3.12 on while the interpreter ends."""
    monkeypatch.setattr(native_weights, "usable_cores", lambda: 2)
    monkeypatch.setattr(threading.Thread, "start", mock.Mock(side_effect=RuntimeError("can't start new thread")))
    assert len(decode_convs_fast(*in_many_parts())) == len(in_many_parts()[0])


def test_two_threads_decode_any_number_of_parts(monkeypatch):
    monkeypatch.setattr(native_weights, "usable_cores", lambda: 64)
    with mock.patch.object(threading, "Thread", wraps=threading.Thread) as made:
        decode_convs_fast(*in_many_parts())
    assert made.call_count == 1


def test_an_error_in_the_other_thread_is_that_of_the_load(monkeypatch):
    class Exhausted(native_weights._Coder):
        def __init__(self, library, ops):
            if ops == (last,):
                raise MemoryError("no room")
            super().__init__(library, ops)

    ops, streams, fresh = in_many_parts()
    last = ops[-1]
    monkeypatch.setattr(native_weights, "_Coder", Exhausted)
    monkeypatch.setattr(native_weights, "usable_cores", lambda: 2)
    with pytest.raises(MemoryError, match="no room"):
        decode_convs_fast(ops, streams, fresh)


def test_a_large_network_has_two_parts_of_about_equal_size():
    """The head where it is about half of the weights, else the convolution nearest to the middle."""
    chosen = {name: named_spec(name) for name in ("squeezenet1_0", "squeezenet1_1", "squeezenet1_1_simple_bypass")}
    chosen["ten classes"] = chosen["squeezenet1_1"].replace(num_classes=10)
    starts = {name: [spec.convs[index].name for index in choose_fresh(spec.convs)] for name, spec in chosen.items()}
    assert starts == {
        "squeezenet1_0": ["conv10"], "squeezenet1_1": ["conv10"], "squeezenet1_1_simple_bypass": ["conv10"],
        "ten classes": ["fire8.expand1x1"],
    }  # fmt: skip
    assert choose_fresh(tiny_spec().convs) == frozenset()
