import dataclasses
import tracemalloc

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from read_sqz import read_sqz, run
from squeezenet.engine import ReferenceEngine, measure_memory, native_kernels, reference
from squeezenet.fileformat import SqzFile, encode_sqz
from squeezenet.network import ConvParams, IntegerNetwork, TensorQuant
from squeezenet.spec import ArchSpec, FireSpec, StemSpec


def random_spec(rng):
    kernel = int(rng.integers(1, 6))
    return ArchSpec(
        stem=StemSpec(
            channels=int(rng.integers(1, 7)), kernel=kernel, stride=int(rng.integers(1, 4)),
            padding=int(rng.integers(0, kernel // 2 + 1)),
        ),
        fires=tuple(
            FireSpec(squeeze_channels=int(rng.integers(1, 4)), expand1x1_channels=int(rng.integers(1, 3)),
                     expand3x3_channels=int(rng.integers(1, 3)))
            for _ in range(int(rng.integers(1, 4)))
        ),
        pools=tuple(layer for layer in (1, 2) if rng.random() < 0.5),
        input_size=int(rng.integers(20, 28)),
        num_classes=int(rng.integers(1, 6)),
        bypass=("none", "simple", "complex")[rng.integers(3)],
        pool_ceil_mode=bool(rng.integers(2)),
        squeeze_relu=bool(rng.integers(2)),
        head_relu=bool(rng.integers(2)),
        head_padding=int(rng.integers(2)),
    )  # fmt: skip


def check_against_second_reader(network, pixels):
    engine = ReferenceEngine(network)
    logits, tensors, features = engine.logits(pixels), engine.tensors(pixels), engine.features(pixels)
    second = read_sqz(encode_sqz(SqzFile(network=network)))  # shares no line with the package
    for number, image in enumerate(pixels):
        expected, expected_tensors = run(second, image)
        for name in tensors:
            values = expected_tensors[name]
            np.testing.assert_array_equal(tensors[name][number].transpose(2, 0, 1), values, err_msg=name)
        assert logits[number].tolist() == expected
        head = network.spec.graph()[-1].inputs[0]
        sums = (expected_tensors[head] - network.tensor(head).zero_point).sum(axis=(1, 2))
        assert features[number].tolist() == sums.tolist()


@pytest.mark.parametrize("seed", range(24))
def test_engine_and_second_reader_agree_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    spec = random_spec(rng)
    check_against_second_reader(random_network(spec, seed=seed), random_pixels(spec, 2, seed=seed))


def test_random_specs_reach_every_kind_of_layer():
    specs = [random_spec(np.random.default_rng(seed)) for seed in range(24)]
    ops = [op for spec in specs for op in spec.graph()]
    assert {spec.bypass for spec in specs} == {"none", "simple", "complex"}
    assert {op.kind for op in ops} == {"conv", "max_pool", "add"}
    assert any(op.kind == "max_pool" and 2 * op.out_size + 1 > op.in_size for op in ops)  # overhangs
    assert any(spec.head_padding for spec in specs)
    assert {spec.stem.stride for spec in specs} == {1, 2, 3}
    assert any(spec.stem.padding and random_network(spec).tensors["input"].zero_point for spec in specs)


def test_padding_pads_with_the_zero_point():
    # A stem that sees only its zero-point sums up to its bias, at the edges too.
    spec = tiny_spec(stem=StemSpec(channels=8, kernel=3, stride=1, padding=1))
    network = random_network(spec)
    pixels = np.full((1, 16, 16, 3), network.tensors["input"].zero_point, np.uint8)
    conv1 = ReferenceEngine(network).tensors(pixels)["conv1"][0]
    assert (conv1 == conv1[0, 0]).all()


def test_layers_too_wide_for_float32_are_exact():
    spec = tiny_spec(stem=StemSpec(channels=16, kernel=11, stride=1), bypass="complex")
    network = random_network(spec, seed=3)
    conv1 = network.convs["conv1"]
    big_bias = np.full(16, 2**24 + 1, np.int32)
    big_bias[1::2] = -(2**24) - 1
    convs = {**network.convs, "conv1": dataclasses.replace(conv1, bias=big_bias, multiplier=conv1.multiplier / 64)}
    wide = IntegerNetwork(spec, network.tensors, convs)
    assert reference._Conv.build(wide, spec.convs[0]).w_KO.dtype == np.float64
    assert reference._Conv.build(wide, spec.convs[1]).w_KO.dtype == np.float32
    check_against_second_reader(wide, random_pixels(spec, 1))


def test_sum_is_rounded_to_float32_before_the_product():
    # f32(2^24 + 1) = 2^24, and 2^24 * m = 2.5 rounds to 2; without the first rounding it would be above 2.5.
    network = random_network(tiny_spec())
    params = network.convs["conv1"]
    bias = np.array([2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3, 2**25, 2**25 + 1, 2**25 + 3, 0], np.int32)
    changed = ConvParams(np.zeros_like(params.weight), bias, np.full(8, 2.5 * 2.0**-24, np.float32))
    engine = ReferenceEngine(IntegerNetwork(network.spec, network.tensors, {**network.convs, "conv1": changed}))
    assert engine.tensors(random_pixels(network.spec, 1))["conv1"][0, 0, 0].tolist() == [2, 2, 3, 3, 5, 5, 5, 0]


def test_quotient_of_scales_is_rounded_once():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scale, out_scale = (float(np.float32(value)) for value in rng.uniform(0.01, 1, 2))
        x, zero_point = int(rng.integers(256)), int(rng.integers(256))
        found = reference._rescale(np.array([x], np.uint8), TensorQuant(scale, zero_point), TensorQuant(out_scale, 0))
        assert found.dtype == np.float32
        assert found.tolist() == [float(np.float32((x - zero_point) * float(np.float32(scale / out_scale))))]


def test_float64_is_taken_exactly_where_float32_ends():
    network = random_network(tiny_spec(), max_weight=1)
    conv = network.convs["conv1"]
    op = network.spec.convs[0]
    weight = np.zeros_like(conv.weight)
    for bias, dtype in ((2**24 - 1, np.float32), (2**24, np.float64)):
        params = dataclasses.replace(conv, weight=weight, bias=np.full(8, bias, np.int32))
        changed = IntegerNetwork(network.spec, network.tensors, {**network.convs, "conv1": params})
        assert reference._Conv.build(changed, op).w_KO.dtype == dtype


@pytest.mark.parametrize("column_bytes", [1, 5_000, 40_000])
def test_bands_and_groups_do_not_change_a_bit(monkeypatch, column_bytes):
    spec = tiny_spec(stem=StemSpec(channels=8, kernel=5, stride=2, padding=2), bypass="complex", head_padding=1)
    network, pixels = random_network(spec), random_pixels(spec, 5)
    whole = ReferenceEngine(network)
    logits, maps, tensors = whole.logits(pixels), whole.activation_map(pixels), whole.tensors(pixels)
    monkeypatch.setattr(reference, "_COLUMN_BYTES", column_bytes)
    banded = ReferenceEngine(network)
    np.testing.assert_array_equal(banded.logits(pixels), logits)
    np.testing.assert_array_equal(banded.activation_map(pixels), maps)
    for name, values in banded.tensors(pixels).items():
        np.testing.assert_array_equal(values, tensors[name])


def test_memory_does_not_grow_with_the_unfolded_input():
    # Unfolded whole, conv1 alone would take 502 * 502 * 363 * 4 bytes = 366 MB.
    spec = tiny_spec(stem=StemSpec(channels=4, kernel=11, stride=1), input_size=512, pools=(1, 2))
    engine, pixels = ReferenceEngine(random_network(spec)), random_pixels(spec, 1)
    tracemalloc.start()
    engine.logits(pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_images_do_not_influence_each_other():
    spec = tiny_spec()
    engine, pixels = ReferenceEngine(random_network(spec)), random_pixels(spec, 3)
    np.testing.assert_array_equal(engine.logits(pixels)[2], engine.logits(pixels[2:])[0])


def test_no_image_gives_no_row():
    engine = ReferenceEngine(random_network(tiny_spec()))
    pixels = np.empty((0, 16, 16, 3), np.uint8)
    assert engine.logits(pixels).shape == (0, 5)
    assert engine.activation_map(pixels).shape == (0, 3, 3, 5)


def test_pixels_are_left_as_they_are():
    spec = tiny_spec()
    pixels = random_pixels(spec, 1)
    before = pixels.copy()
    ReferenceEngine(random_network(spec)).logits(pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("layout", ["fortran", "strided"])
def test_pixels_may_lie_in_memory_as_they_like(layout):
    spec = tiny_spec()
    engine, pixels = ReferenceEngine(random_network(spec)), random_pixels(spec, 4)
    other = np.asfortranarray(pixels) if layout == "fortran" else np.repeat(pixels, 2, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(engine.logits(other), engine.logits(pixels))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 16, 16, 3)), np.zeros((16, 16, 3), np.uint8), np.zeros((1, 16, 15, 3), np.uint8),
        np.zeros((1, 15, 16, 3), np.uint8), np.zeros((1, 3, 16, 16), np.uint8), np.zeros((1, 16, 16, 4), np.uint8),
        ["photo.jpg"], "photo.jpg", None,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["logits", "activation_map", "tensors"])
def test_pixels_of_another_shape_are_refused(pixels, method):
    engine = ReferenceEngine(random_network(tiny_spec()))
    with pytest.raises(ValueError, match=r"expected `pixels` of shape \(N, 16, 16, 3\) and dtype uint8, got"):
        getattr(engine, method)(pixels)


@pytest.mark.parametrize("head_relu", [True, False])
def test_mean_of_the_activation_map_is_the_logit(head_relu):
    spec = tiny_spec(input_size=32, head_relu=head_relu)
    engine, pixels = ReferenceEngine(random_network(spec)), random_pixels(spec, 2)
    maps = engine.activation_map(pixels)
    assert maps.shape == (2, 7, 7, 5)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), engine.logits(pixels), rtol=1e-12)
    assert (maps.min() < 0) == (not head_relu)


def extreme_specs():
    """Networks near 2^27 elements: wide tensors of few products, additions, channels that fill no group of four."""
    fire = lambda squeeze, wide: FireSpec(  # noqa: E731
        squeeze_channels=squeeze, expand1x1_channels=wide - wide // 2, expand3x3_channels=wide // 2
    )
    common = {"pools": (), "num_classes": 1, "name": ""}
    stem = StemSpec(channels=24, kernel=1, stride=1)
    yield tiny_spec(stem=StemSpec(channels=1, kernel=1, stride=1), fires=(fire(1, 124),), input_size=1024, **common)
    yield tiny_spec(stem=stem, fires=(fire(1, 24),) * 2, input_size=1024, bypass="simple", **common)
    yield tiny_spec(stem=StemSpec(channels=200, kernel=11, stride=1), fires=(fire(1, 201),), input_size=580, **common)


@pytest.mark.parametrize("spec", list(extreme_specs()))
def test_memory_stays_within_the_table_of_the_format(spec):
    assert sum(op.out_channels * op.out_size**2 for op in spec.graph()) > 0.9 * 2**27
    network = random_network(spec)
    if native_kernels():
        for kernels in native_kernels():
            one, three = (measure_memory(network, kernels=kernels, threads=threads) for threads in (1, 3))
            assert one.model_bytes + one.load_bytes < 64e6
            assert three.arena_bytes - one.arena_bytes < 2 * 160e6
            assert one.arena_bytes < 160e6
    engine, pixels = ReferenceEngine(network), np.zeros((3, spec.input_size, spec.input_size, 3), np.uint8)
    tracemalloc.start()
    try:
        engine.logits(pixels)
        assert tracemalloc.get_traced_memory()[1] < 400e6
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not native_kernels(), reason="needs the native engine")
def test_memory_of_weights_stays_within_the_table_of_the_format():
    fires = (
        FireSpec(squeeze_channels=403, expand1x1_channels=2048, expand3x3_channels=2048),
        FireSpec(squeeze_channels=330, expand1x1_channels=2048, expand3x3_channels=2048),
    )
    spec = tiny_spec(fires=fires, input_size=8, pools=(), stem=StemSpec(channels=8, kernel=1, stride=1))
    assert sum(op.params for op in spec.convs) > 0.97 * 2**24
    network = random_network(spec)
    for kernels in native_kernels():
        sizes = measure_memory(network, kernels=kernels)
        assert sizes.model_bytes + sizes.load_bytes < 64e6
