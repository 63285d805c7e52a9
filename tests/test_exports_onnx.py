"""Exported ONNX in ONNX Runtime: floats against torch, int8 against the engine; and safetensors."""

import json

import numpy as np
import pytest
import torch

from exported import SPECS, contents_of, pixels_for
from networks import random_network, tiny_spec
from squeezenet import Labels, Preprocessing, SqzFile, export, find_model, read_sqz, write_sqz
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import ModelNotFoundError
from squeezenet.exports import (
    build_onnx_float,
    build_onnx_int8,
    pooling_warnings,
)
from squeezenet.models import load_model, normalize_pixels
from squeezenet.models.integer import dequantize

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

HOW = {"mean": (120.0, 117.5, 104.0), "std": (58.4, 57.1, 57.4)}


def float_of(contents):
    return contents.network.dequantize(contents.preprocessing_or_default, contents.labels)


def with_preprocessing(name):
    contents = contents_of(name)
    size = contents.network.spec.input_size
    return SqzFile(
        network=contents.network,
        preprocessing=Preprocessing(crop_size=size, resize_size=size, **HOW),
        labels=Labels(tuple(f"class {i}" for i in range(contents.network.spec.num_classes))),
    )


def session(model, *, optimized=True):
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def images_for(contents, count):
    pixels = pixels_for(contents, count)
    return pixels, normalize_pixels(pixels, contents.preprocessing_or_default).contiguous()


@pytest.mark.parametrize("name", SPECS)
def test_float_graph_gives_torch_s_logits(name):
    contents = with_preprocessing(name)
    _, images = images_for(contents, 3)
    with torch.inference_mode():
        expected = dequantize(contents)(images).numpy()
    actual = session(build_onnx_float(float_of(contents))).run(None, {"input": images.numpy()})[0]
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", SPECS)
def test_int8_graph_gives_the_engine_s_logits(name, optimized):
    contents = with_preprocessing(name)
    pixels, images = images_for(contents, 4)
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = session(build_onnx_int8(contents), optimized=optimized).run(None, {"input": images.numpy()})[0]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("optimized", [True, False])
@pytest.mark.parametrize("name", ["cifar10", "imagenette"])
def test_bundled_networks_give_their_logits_as_int8(name, optimized):
    """Both have bypasses; on noise, smooth pictures and plain ones."""
    contents = read_sqz(find_model(name).path)
    size, rng = contents.network.spec.input_size, np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 4, 4, 3)).astype(np.uint8).repeat(size // 4, 1).repeat(size // 4, 2)
    noise = rng.integers(0, 256, (8, size, size, 3)).astype(np.uint8)
    plain = np.broadcast_to(np.array([0, 128, 255], np.uint8)[:, None, None, None], (3, size, size, 3))
    pixels = np.concatenate([coarse, noise, plain])
    images = normalize_pixels(pixels, contents.preprocessing_or_default).contiguous()
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = session(build_onnx_int8(contents), optimized=optimized).run(None, {"input": images.numpy()})[0]
    assert np.abs(actual - expected).max() <= 1e-5


def test_file_without_preprocessing_is_normalised_as_everywhere():
    contents = contents_of("plain")
    pixels, images = images_for(contents, 2)
    expected = ReferenceEngine(contents.network).logits(pixels)
    actual = session(build_onnx_int8(contents)).run(None, {"input": images.numpy()})[0]
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_graph_carries_labels_preprocessing_and_a_free_batch_size():
    model = onnx.load_from_string(build_onnx_float(float_of(with_preprocessing("plain"))))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["labels"]) == {"names": [f"class {i}" for i in range(5)]}
    assert Preprocessing.from_dict(json.loads(facts["preprocessing"])).mean == HOW["mean"]
    (image,), (logits,) = model.graph.input, model.graph.output
    assert [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim] == ["N", 3, 16, 16]
    assert [side.dim_param or side.dim_value for side in logits.type.tensor_type.shape.dim] == ["N", 5]


def test_graph_carries_when_to_believe_the_network():
    contents = contents_of("odd")
    model = onnx.load_from_string(build_onnx_int8(contents))
    facts = {entry.key: entry.value for entry in model.metadata_props}
    rule = json.loads(facts["unknown"])
    assert facts["temperature"] == "0.75"
    assert rule["vectors"] == contents.unknown.vectors.tolist()
    pixels, images = images_for(contents, 20)
    model.graph.output.append(onnx.helper.make_tensor_value_info(rule["tensor"], onnx.TensorProto.FLOAT, None))
    found = session(model.SerializeToString()).run([rule["tensor"]], {"input": images.numpy()})[0].mean(axis=(2, 3))
    vectors = np.array(rule["vectors"])
    cosines = found @ vectors.T / np.linalg.norm(found, axis=1)[:, None] / np.linalg.norm(vectors, axis=1)
    expected = contents.unknown.is_unknown(ReferenceEngine(contents.network).features(pixels))
    assert (cosines.max(axis=1) < rule["cosine"]).tolist() == expected.tolist()


def pool_modes(spec):
    model = onnx.load_from_string(build_onnx_float(float_of(SqzFile(network=random_network(spec, seed=1)))))
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    return [sum(attribute.i for attribute in node.attribute if attribute.name == "ceil_mode") for node in pools]


def test_pools_round_down_where_that_is_the_same():
    spec = tiny_spec()  # its pool reads 7x7
    assert pool_modes(spec) == [0]
    assert pooling_warnings(spec) == []


def test_pools_that_round_up_say_so():
    spec = tiny_spec(input_size=18)  # its pool reads 8x8
    assert pool_modes(spec) == [1]
    (warning,) = pooling_warnings(spec)
    assert warning.startswith("pool1 rounds its 8x8 input up to 4x4 (ceil_mode)")


def test_float_network_of_any_kind_is_exported(tmp_path):
    write_sqz(tmp_path / "m.sqz", with_preprocessing("simple bypass"))
    export(tmp_path / "m.sqz", tmp_path / "m.safetensors")
    assert export(tmp_path / "m.safetensors", tmp_path / "a.onnx").warnings == ()
    export(tmp_path / "m.sqz", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    with pytest.raises(ModelNotFoundError, match=r"expected a \.sqz file, got the float network .*squeezenet compress"):
        export(tmp_path / "m.safetensors", tmp_path / "c.onnx", precision="int8")
    with pytest.raises(ValueError, match="expected `precision` to be float or int8, got 'fp16'"):
        export(tmp_path / "m.sqz", tmp_path / "c.onnx", precision="fp16")


def test_safetensors_come_back_with_everything(tmp_path):
    contents = with_preprocessing("odd")
    write_sqz(tmp_path / "m.sqz", contents)
    export(tmp_path / "m.sqz", tmp_path / "m.safetensors")
    _, images = images_for(contents, 2)
    loaded, expected = load_model(tmp_path / "m.safetensors").eval(), dequantize(contents)
    assert list(loaded.state_dict()) == list(expected.state_dict())
    assert (loaded.spec, loaded.labels, loaded.preprocessing) == (
        expected.spec, contents.labels, contents.preprocessing
    )  # fmt: skip
    with torch.inference_mode():
        assert torch.equal(loaded(images), expected(images))
