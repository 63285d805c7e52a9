import dataclasses

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import QuantizationError
from squeezenet.network import (
    ConvParams,
    IntegerNetwork,
    TensorQuant,
    largest_sum,
    quantized_source,
    quantized_tensors,
)


def with_tensor(network, name, **changes):
    quant = dataclasses.replace(network.tensors[name], **changes)
    return IntegerNetwork(network.spec, {**network.tensors, name: quant}, network.convs)


def with_conv(network, name, **changes):
    params = dataclasses.replace(network.convs[name], **changes)
    return IntegerNetwork(network.spec, network.tensors, {**network.convs, name: params})


@pytest.fixture(scope="module")
def network():
    return random_network(tiny_spec())


def test_quantised_tensors_are_the_input_and_what_convolutions_and_additions_write():
    assert quantized_tensors(tiny_spec(bypass="complex", pools=(1, 2))) == [
        "input", "conv1",
        "fire2.squeeze", "fire2.expand", "fire2.bypass", "fire2",
        "fire3.squeeze", "fire3.expand", "fire3",
    ]  # fmt: skip


def test_pooled_tensor_has_the_quantisation_of_its_source():
    spec = tiny_spec(pools=(1, 2))
    assert quantized_source(spec, "pool2") == "fire2"
    assert quantized_source(spec, "fire3.squeeze") == "fire3.squeeze"
    network = random_network(spec)
    assert network.tensor("pool1") == network.tensors["conv1"]


def test_weight_scale_turns_integers_back_into_weights(network):
    op = network.spec.convs[1]
    expected = network.convs[op.name].multiplier * network.tensors[op.output].scale / network.tensors["conv1"].scale
    np.testing.assert_allclose(network.weight_scale(op), expected, rtol=1e-6)
    head = network.spec.convs[-1]
    expected = network.convs[head.name].multiplier / network.tensors["fire3"].scale
    np.testing.assert_allclose(network.weight_scale(head), expected, rtol=1e-6)


def test_largest_sum_takes_the_worst_output():
    weight = np.array([[[[1]], [[-2]]], [[[100]], [[0]]]], np.int8)
    params = ConvParams(weight, np.array([-7, 3], np.int32), np.ones(2, np.float32))
    assert largest_sum(params) == 100 * 255 + 3


def saturated(spec, bias):
    """Every product of conv1 as large as it gets, and a bias on top."""
    network = random_network(spec)
    params = network.convs["conv1"]
    return with_conv(network, "conv1", weight=np.full_like(params.weight, 127), bias=np.full_like(params.bias, bias))


def test_sums_may_reach_int32_but_not_pass_it():
    spec = tiny_spec()
    room = 2**31 - 1 - 127 * 255 * 27
    network = saturated(spec, room)
    white = np.full((1, 16, 16, 3), 255, np.uint8)
    zero = dataclasses.replace(network.tensors["input"], zero_point=0)
    engine = ReferenceEngine(IntegerNetwork(spec, {**network.tensors, "input": zero}, network.convs))
    assert engine.tensors(white)["conv1"].max() == 255
    with pytest.raises(QuantizationError, match=r"conv1: sums can reach 2147483648, beyond int32; use smaller biases"):
        saturated(spec, room + 1)
    with pytest.raises(QuantizationError, match="beyond int32"):
        saturated(spec, -room - 1)
    with pytest.raises(QuantizationError, match="beyond int32"):
        saturated(spec, -(2**31))


def test_batch_norm_must_be_folded(network):
    with pytest.raises(QuantizationError, match="fold_batch_norm"):
        IntegerNetwork(network.spec.replace(batch_norm=True), network.tensors, network.convs)


@pytest.mark.parametrize("change", [{"conv1": None}, {"other": TensorQuant(1.0, 0)}])
def test_tensors_must_be_those_of_the_spec(network, change):
    tensors = {name: quant for name, quant in {**network.tensors, **change}.items() if quant}
    with pytest.raises(QuantizationError, match=r"expected the tensors \['input', 'conv1'"):
        IntegerNetwork(network.spec, tensors, network.convs)


def test_convolutions_must_be_those_of_the_spec(network):
    convs = {name: params for name, params in network.convs.items() if name != "fire2.squeeze"}
    with pytest.raises(QuantizationError, match=r"expected the convolutions \['conv1', 'fire2.squeeze'"):
        IntegerNetwork(network.spec, network.tensors, convs)


@pytest.mark.parametrize("zero_point", [-1, 256, 0.5])
def test_zero_point_must_be_a_uint8(network, zero_point):
    with pytest.raises(QuantizationError, match=r"tensor input: expected a whole zero-point from 0 to 255"):
        with_tensor(network, "input", zero_point=zero_point)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 2.0**-41, 2.0**41, 0.1])
def test_scale_must_be_a_float32_in_range(network, scale):
    with pytest.raises(QuantizationError, match=r"tensor conv1: expected a float32 scale from 2\^-40 to 2\^40"):
        with_tensor(network, "conv1", scale=scale)


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_extreme_scales_are_allowed(network, scale):
    assert with_tensor(network, "conv1", scale=scale).tensors["conv1"].scale == scale


def test_zero_point_after_a_relu_must_be_0(network):
    with pytest.raises(QuantizationError, match=r"tensor fire2: expected the zero-point 0 after a ReLU, got 3"):
        with_tensor(network, "fire2", zero_point=3)


def test_zero_point_without_a_relu_is_free():
    network = random_network(tiny_spec(squeeze_relu=False))
    assert with_tensor(network, "fire2.squeeze", zero_point=200).tensors["fire2.squeeze"].zero_point == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weight": np.zeros((8, 3, 3, 3), np.int16)},
            r"conv1.weight: expected int8 of shape \(8, 3, 3, 3\), got int16",
        ),
        ({"weight": np.zeros((8, 3, 3), np.int8)}, r"conv1.weight: expected int8 .* got int8 \(8, 3, 3\)"),
        ({"bias": np.zeros(8, np.int64)}, r"conv1.bias: expected int32 of shape \(8,\), got int64"),
        ({"bias": np.zeros(7, np.int32)}, r"conv1.bias: expected int32 of shape \(8,\), got int32 \(7,\)"),
        ({"multiplier": np.ones(8)}, r"conv1.multiplier: expected float32 of shape \(8,\), got float64"),
        ({"multiplier": np.ones((8, 1), np.float32)}, r"conv1.multiplier: expected float32 of shape \(8,\)"),
    ],
)
def test_arrays_must_have_the_layer_s_shape_and_type(network, change, message):
    with pytest.raises(QuantizationError, match=message):
        with_conv(network, "conv1", **change)


def test_weight_minus_128_is_refused(network):
    weight = network.convs["conv1"].weight.copy()
    weight[0, 0, 0, 0] = -128
    with pytest.raises(QuantizationError, match=r"conv1.weight: expected values from -127 to 127, got -128"):
        with_conv(network, "conv1", weight=weight)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 2.0**-41, 2.0**21])
def test_multiplier_must_be_in_range(network, value):
    multiplier = network.convs["conv1"].multiplier.copy()
    multiplier[-1] = value
    with pytest.raises(QuantizationError, match=r"conv1.multiplier: expected values from 2\^-40 to 2\^20"):
        with_conv(network, "conv1", multiplier=multiplier)


def test_extreme_scales_and_multipliers_stay_finite():
    # The add's float32 quotient of scales is largest here; warnings are errors, so an overflow would show.
    spec = tiny_spec(bypass="complex")
    network = random_network(spec)
    tensors = {
        name: TensorQuant(2.0 ** (40 if i % 2 else -40), quant.zero_point)
        for i, (name, quant) in enumerate(network.tensors.items())
    }
    convs = {
        name: dataclasses.replace(params, multiplier=np.full_like(params.multiplier, 2.0**20))
        for name, params in network.convs.items()
    }
    logits = ReferenceEngine(IntegerNetwork(spec, tensors, convs)).logits(random_pixels(spec, 2))
    assert np.isfinite(logits).all()
