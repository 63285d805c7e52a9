"""Exported TFLite in LiteRT: the engine's logits where the runtime multiplies in float32, and near it elsewhere."""

import json

import numpy as np
import pytest
import tflite
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from commands import run
from exported import SPECS, contents_of, pixels_for
from image_files import encode, photo
from networks import random_network, random_pixels, tiny_spec
from squeezenet import Labels, Preprocessing, SqzFile, export, find_model, named_spec, read_sqz
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import DataError
from squeezenet.exports import build_tflite


def litert_logits(model, pixels, kernels=OpResolverType.AUTO):
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (image["dtype"], logits["dtype"]) == (np.uint8, np.float32)
    found = []
    for one in pixels:
        interpreter.set_tensor(image["index"], one[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(logits["index"])[0].copy())
    return np.array(found)


def smooth_pixels(spec, count):
    """Pictures with large plain parts, on which rounding goes either way more often than on noise."""
    steps = np.random.default_rng(3).normal(0, 2, (count, spec.input_size, spec.input_size, 3))
    return np.clip(steps.cumsum(1).cumsum(2) + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", SPECS)
def test_litert_gives_the_engine_s_logits(name):
    contents = contents_of(name)
    pixels = np.concatenate([pixels_for(contents, 3), smooth_pixels(contents.network.spec, 3)])
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = litert_logits(build_tflite(contents), pixels)
    assert np.abs(actual - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_bundled_networks_give_their_logits(name):
    contents = read_sqz(find_model(name).path)
    pixels = np.concatenate([random_pixels(contents.network.spec, 4), smooth_pixels(contents.network.spec, 4)])
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = litert_logits(build_tflite(contents), pixels)
    assert np.abs(actual - expected).max() <= 2e-6 * np.abs(expected).max()


def test_kernels_that_multiply_in_integers_come_near():
    """Those of microcontrollers round twice; differences are those of single steps."""
    contents = read_sqz(find_model("cifar10").path)
    pixels = smooth_pixels(contents.network.spec, 8)
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = litert_logits(build_tflite(contents), pixels, OpResolverType.BUILTIN_REF)
    assert np.abs(actual - expected).max() <= 0.1 * np.abs(expected).max()
    assert (actual.argmax(1) == expected.argmax(1)).sum() >= 7


@pytest.mark.parametrize("name", SPECS)
def test_head_is_int8_where_its_range_is_given(name):
    contents = contents_of(name)
    pixels = pixels_for(contents, 4)
    engine = ReferenceEngine(contents.network)
    maps = engine.activation_map(pixels)
    model = build_tflite(contents, head_range=(maps.min(), maps.max()))
    kinds = [op for op in operations(model) if op == tflite.BuiltinOperator.DEQUANTIZE]
    assert len(kinds) == 1 + 2 * sum(op.kind == "add" for op in contents.network.spec.graph())
    step = (max(maps.max(), 0) - min(maps.min(), 0)) / 255
    assert np.abs(litert_logits(model, pixels) - engine.logits(pixels)).max() <= 0.51 * step


def operations(model):
    parsed = tflite.Model.GetRootAs(model, 0)
    graph = parsed.Subgraphs(0)
    codes = [parsed.OperatorCodes(i).BuiltinCode() for i in range(parsed.OperatorCodesLength())]
    return [codes[graph.Operators(i).OpcodeIndex()] for i in range(graph.OperatorsLength())]


def test_weights_take_a_byte_each():
    contents = SqzFile(network=random_network(named_spec("squeezenet1_1"), density=0.05, max_weight=2))
    size_bytes = len(build_tflite(contents))
    assert 1_235_496 < size_bytes < 1_400_000


def test_same_network_gives_the_same_bytes():
    assert build_tflite(contents_of("odd")) == build_tflite(contents_of("odd"))


def test_labels_and_preprocessing_are_in_the_metadata():
    how = Preprocessing(crop_size=16, resize_size=18)
    contents = SqzFile(network=random_network(tiny_spec()), labels=Labels(tuple("abcde")), preprocessing=how)
    parsed = tflite.Model.GetRootAs(build_tflite(contents), 0)
    entry = parsed.Metadata(0)
    assert (entry.Name(), parsed.Version()) == (b"squeezenet", 3)
    description = json.loads(parsed.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    assert Preprocessing.from_dict(description["preprocessing"]) == how
    assert Labels.from_dict(description["labels"]).names == tuple("abcde")


def test_command_writes_it_and_measures_the_head_on_photos(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode(photo(40 + i, 40)))
    plain = run("export", "cifar10", "-o", tmp_path / "a.tflite")
    assert (plain.exit_code, plain.stderr) == (0, "")
    assert plain.stdout == f"{tmp_path / 'a.tflite'}: {(tmp_path / 'a.tflite').stat().st_size:,} bytes\n"
    measured = run("export", "cifar10", "-o", tmp_path / "b.tflite", "--photos", tmp_path)
    assert (measured.exit_code, measured.stderr) == (0, "")
    a, b = ((tmp_path / f"{name}.tflite").read_bytes() for name in "ab")
    pixels = smooth_pixels(named_spec("squeezenet1_1", input_size=32), 8)
    assert (litert_logits(a, pixels).argmax(1) == litert_logits(b, pixels).argmax(1)).sum() >= 7
    assert (operations(a).count(tflite.BuiltinOperator.MEAN), operations(b)[-1]) == (1, tflite.BuiltinOperator.MEAN)


def test_photos_go_with_nothing_else(tmp_path):
    with pytest.raises(DataError, match="`photos` applies to tflite, not to web"):
        export("cifar10", tmp_path / "a.html", photos=tmp_path)


def test_photos_that_cannot_be_read_are_one_error(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match="expected photos to measure the head's range on, got none that can be read"):
        export("cifar10", tmp_path / "a.tflite", photos=tmp_path)
    assert not (tmp_path / "a.tflite").exists()
