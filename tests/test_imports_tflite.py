"""TFLite models: floats and our own integers, with LiteRT's answers."""

import contextlib

import numpy as np
import pytest

from imported import check_same_convs, check_same_logits, images_for, normalized, random_model, torch_logits, variant
from networks import random_network, random_pixels, tiny_spec
from squeezenet import Labels, Preprocessing, SqzFile, named_spec
from squeezenet.errors import WeightsError
from squeezenet.exports import build_tflite
from squeezenet.exports.tflite_graph import _Graph
from squeezenet.imports import read_foreign
from squeezenet.models import model_from_convs, model_from_foreign


def float_tflite(model):
    """The float network as a TFLite model."""
    spec, graph = model.spec, _Graph()

    def conv(op, x):
        weights = model.convs[op.name]
        weight = graph.constant(
            f"{op.name}.w", np.ascontiguousarray(weights.weight.detach().numpy().transpose(0, 2, 3, 1))
        )
        bias = graph.constant(f"{op.name}.b", weights.bias.detach().numpy())
        padding = "SAME" if op.stride == 1 and 2 * op.padding == op.kernel - 1 else "VALID"
        if op.padding and padding == "VALID":
            sides = graph.constant(
                f"{op.name}.p", np.array([[0, 0], [op.padding] * 2, [op.padding] * 2, [0, 0]], np.int32)
            )
            size = op.in_size + 2 * op.padding
            x = graph.node("PAD", [x, sides], graph.tensor(f"{op.name}.padded", (1, size, size, op.in_channels)))
        out = graph.tensor(op.name, (1, op.out_size, op.out_size, op.out_channels))
        return graph.node(
            "CONV_2D", [x, weight, bias], out, Padding=padding, StrideW=op.stride, StrideH=op.stride,
            DilationWFactor=1, DilationHFactor=1, FusedActivationFunction="RELU" if op.relu else "NONE",
        )  # fmt: skip

    def pool(op, x):
        is_same = spec.pool_ceil_mode and op.in_size % 2 == 0
        out = graph.tensor(op.name, (1, op.out_size, op.out_size, op.out_channels))
        return graph.node(
            "MAX_POOL_2D", [x], out, Padding="SAME" if is_same else "VALID", FilterWidth=3, FilterHeight=3, StrideW=2,
            StrideH=2,
        )  # fmt: skip

    def tensor(op, name):
        return graph.tensor(name, (1, op.out_size, op.out_size, op.written_channels))

    image = graph.tensor("input", (1, spec.input_size, spec.input_size, 3))
    x = spec.walk(
        image, conv=conv, pool=pool,
        join=lambda op, a, b: graph.node("CONCATENATION", [a, b], tensor(op, f"{op.output}.joined"), Axis=3),
        add=lambda op, a, b: graph.node("ADD", [a, b], tensor(op, op.output), FusedActivationFunction="NONE"),
    )  # fmt: skip
    axes = graph.constant("axes", np.array([1, 2], np.int32))
    logits = graph.node("MEAN", [x, axes], graph.tensor("logits", (1, spec.num_classes)), KeepDims=False)
    return graph.serialize(image, logits, b"{}")


VARIANTS = {
    "plain": variant(),
    "simple bypass": variant(fires=(variant().fires[0],) * 3, bypass="simple"),
    "complex bypass": variant(bypass="complex"),
    "ceil": variant(input_size=50),
    "floor": variant(input_size=50, pool_ceil_mode=False),
    "padded head": variant(head_padding=1, head_relu=False),
    "1.1": named_spec("squeezenet1_1", num_classes=4),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_float_models_are_read(tmp_path, name):
    from ai_edge_litert.interpreter import Interpreter

    model = random_model(VARIANTS[name])
    data = float_tflite(model)
    (tmp_path / "net.tflite").write_bytes(data)
    foreign = read_foreign(tmp_path / "net.tflite")
    spec = foreign.spec.replace(name=model.spec.name)
    assert spec == model.spec.replace(pool_ceil_mode=spec.pool_ceil_mode)
    check_same_convs(foreign, model)
    images = images_for(model.spec, 1)
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images.transpose(0, 2, 3, 1).copy())
    interpreter.invoke()
    theirs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    check_same_logits(torch_logits(model_from_foreign(foreign), images), theirs)


OURS = {
    "plain": tiny_spec(),
    "simple bypass": tiny_spec(bypass="simple"),
    "complex bypass": tiny_spec(bypass="complex", input_size=32, pools=(1, 2)),
    "no relus": tiny_spec(head_relu=False, squeeze_relu=False),
    "padded head": tiny_spec(head_padding=1),
}


@pytest.mark.parametrize("to", ["tflite", "onnx"])
@pytest.mark.parametrize("name", OURS)
def test_our_own_integers_become_the_floats_that_they_stand_for(tmp_path, name, to):
    """Scales are powers of two there, and additions multiply their terms; logits are the same."""
    from squeezenet.exports import build_onnx_int8

    spec = OURS[name]
    how = Preprocessing(crop_size=spec.input_size, resize_size=spec.input_size + 8, mean=(1.0, 2.0, 3.0))
    network, labels = random_network(spec, max_weight=30), Labels(tuple("abcde"))
    contents = SqzFile(network=network, labels=labels, preprocessing=how, facts={"temperature": 1.5})
    data = build_tflite(contents) if to == "tflite" else build_onnx_int8(contents)
    (tmp_path / f"net.{to}").write_bytes(data)
    foreign = read_foreign(tmp_path / f"net.{to}")
    found = foreign.spec.replace(name=spec.name)
    assert found == spec.replace(pool_ceil_mode=found.pool_ceil_mode)
    assert foreign.labels == contents.labels
    assert foreign.notes == ("without temperature, which `squeezenet evaluate --store` measures for a .sqz file",)
    pixels = random_pixels(spec, 3)
    network = foreign.network()
    ours = torch_logits(model_from_foreign(foreign), normalized(pixels, network.preprocessing))
    expected = contents.network.dequantize(how)
    theirs = torch_logits(model_from_convs(spec, expected.convs), normalized(pixels, how))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_quantised_input_says_how_pixels_are_prepared(tmp_path):
    contents = SqzFile(network=random_network(tiny_spec()))
    data = build_tflite(contents).replace(b"squeezenet", b"otherthing")
    (tmp_path / "net.tflite").write_bytes(data)
    foreign = read_foreign(tmp_path / "net.tflite")
    how, quant = foreign.network().preprocessing, contents.network.tensors["input"]
    assert foreign.convention_from == "that of the file's quantised input"
    assert how.mean == (quant.zero_point,) * 3
    assert how.std[0] == pytest.approx(1 / quant.scale, rel=0.5)


def test_every_truncation_and_every_flipped_byte_is_one_error_or_none(tmp_path):
    data = build_tflite(SqzFile(network=random_network(tiny_spec())))
    rng = np.random.default_rng(0)
    for length in (8, 100, len(data) // 2, len(data) - 1000):
        (tmp_path / "net.tflite").write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_foreign(tmp_path / "net.tflite")
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = rng.integers(256)
        (tmp_path / "net.tflite").write_bytes(broken)
        with contextlib.suppress(WeightsError):
            read_foreign(tmp_path / "net.tflite")
