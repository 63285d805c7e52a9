"""ONNX files of others: the same weights, and ONNX Runtime's logits."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from imported import check_same_convs, check_same_logits, images_for, random_model, torch_logits, variant
from networks import random_network, tiny_spec
from squeezenet import Labels, Preprocessing, SqzFile, StemSpec, export, load_model, named_spec
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign
from squeezenet.models import model_from_foreign
from squeezenet.preprocess import TORCHVISION_PREPROCESSING

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"


def runtime_logits(path, images):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0].reshape(len(images), -1)


def exported_by_torch(model, path, *, size=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = size or model.spec.input_size
        image = torch.zeros(1, 3, size, size)
        torch.onnx.export(model, image, path, dynamo=False, **options)
    return path


VARIANTS = {
    "plain": variant(),
    "simple bypass": variant(fires=(variant().fires[0],) * 3, bypass="simple"),
    "complex bypass": variant(bypass="complex"),
    "floor": variant(pool_ceil_mode=False, input_size=50),
    "ceil": variant(input_size=50),
    "no squeeze relu": variant(squeeze_relu=False),
    "no head relu": variant(head_relu=False, head_padding=1),
    "padded stem": variant(stem=StemSpec(channels=9, kernel=5, stride=1, padding=2), input_size=33),
    "1.1": named_spec("squeezenet1_1", num_classes=4),
    "1.0": named_spec("squeezenet1_0", num_classes=4, input_size=227),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_exports_of_torch_are_read(tmp_path, name):
    model = random_model(VARIANTS[name])
    path = exported_by_torch(model, tmp_path / "net.onnx")
    foreign = read_foreign(path)
    check_same_convs(foreign, model)
    expected = model.spec.replace(name=foreign.spec.name)
    if name not in ("ceil", "floor"):  # at other sizes both ways of rounding are one
        expected = expected.replace(pool_ceil_mode=foreign.spec.pool_ceil_mode)
    assert foreign.spec == expected
    images = images_for(model.spec, 1)
    check_same_logits(torch_logits(model_from_foreign(foreign), images), runtime_logits(path, images))


def test_names_of_published_networks_are_found(tmp_path):
    assert (
        read_foreign(exported_by_torch(random_model(VARIANTS["1.1"]), tmp_path / "a.onnx")).spec.name == "squeezenet1_1"
    )
    assert read_foreign(exported_by_torch(random_model(VARIANTS["plain"]), tmp_path / "a.onnx")).spec.name == "custom"


@pytest.mark.parametrize("name", VARIANTS)
def test_our_own_exports_are_read_with_labels_and_preprocessing(tmp_path, name):
    model = random_model(VARIANTS[name])
    size = model.spec.input_size
    model.preprocessing = Preprocessing(crop_size=size, resize_size=size + 9, mean=(1.0, 2.0, 3.0), resample="bicubic")
    model.labels = Labels(tuple("abcde"[: model.spec.num_classes]))
    export(model, tmp_path / "net.onnx")
    foreign = read_foreign(tmp_path / "net.onnx")
    check_same_convs(foreign, model)
    assert (foreign.labels, foreign.network().preprocessing) == (model.labels, model.preprocessing)
    assert foreign.convention_from == "in the file's metadata"


@pytest.mark.parametrize("spec", [tiny_spec(), tiny_spec(head_relu=False, squeeze_relu=False, pools=(1, 2))])
def test_our_own_integers_become_the_floats_that_they_stand_for(tmp_path, spec):
    """Their scales are powers of two, so that weights differ from the network's by such factors; logits do not."""
    contents = SqzFile(network=random_network(spec))
    export(contents, tmp_path / "net.onnx", precision="int8")
    foreign = read_foreign(tmp_path / "net.onnx")
    assert foreign.spec == spec.replace(name="custom", pool_ceil_mode=foreign.spec.pool_ceil_mode)
    network = foreign.network()
    pixels = np.random.default_rng(0).integers(0, 256, (4, spec.input_size, spec.input_size, 3)).astype(np.uint8)
    expected = contents.network.dequantize(contents.preprocessing_or_default)
    from imported import normalized
    from squeezenet.models import model_from_convs

    ours = torch_logits(model_from_foreign(foreign), normalized(pixels, network.preprocessing))
    theirs = torch_logits(model_from_convs(spec, expected.convs), normalized(pixels, contents.preprocessing_or_default))
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def filled_light(path, *, seed=0):
    """The zoo's graph, whose weights are all alike in onnx's test data, with random ones."""
    model = onnx.load(LIGHT)
    rng = np.random.default_rng(seed)
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    initializers, nodes = [tensor for tensor in model.graph.initializer if "SHAPE" not in tensor.name], []
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = shapes[node.input[0]]
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) == 4 else 0.1
        weights[node.output[0]] = rng.normal(0, scale, shape).astype(np.float32)
        initializers.append(onnx.numpy_helper.from_array(weights[node.output[0]], node.output[0]))
    inputs = [value for value in model.graph.input if "SHAPE" not in value.name]
    del model.graph.node[:], model.graph.initializer[:], model.graph.input[:]
    model.graph.input.extend(inputs)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    onnx.save(model, path)
    return weights


def test_graph_of_the_zoo_is_read(tmp_path):
    weights = filled_light(tmp_path / "squeezenet1.0-9.onnx")
    foreign = read_foreign(tmp_path / "squeezenet1.0-9.onnx")
    assert (foreign.spec.name, foreign.spec.num_classes) == ("squeezenet1_1", 1000)
    assert (foreign.convention.name, foreign.convention_from) == ("raw", "that of the ONNX zoo's 1.0 networks")
    assert foreign.labels is not None
    np.testing.assert_array_equal(foreign.convs["fire5.expand3x3"].weight, weights["fire5/expand3x3_w_0"])
    np.testing.assert_array_equal(foreign.convs["conv10"].bias, weights["conv10_b_0"])
    images = images_for(foreign.spec, 1)
    logits = torch_logits(model_from_foreign(foreign), images).astype(np.float64)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    check_same_logits(shares, runtime_logits(tmp_path / "squeezenet1.0-9.onnx", images))  # which end in a softmax


def test_graph_as_onnx_ships_it_is_read():
    foreign = read_foreign(LIGHT)
    assert foreign.spec.name == "squeezenet1_1"
    assert len(np.unique(foreign.convs["conv10"].weight)) == 1


@pytest.mark.parametrize("form", ["QOperator", "QDQ"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_files_become_the_weights_that_they_stand_for(tmp_path, form, per_channel):
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = random_model(variant())
    path = exported_by_torch(model, tmp_path / "float.onnx")

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            name = onnx.load(path).graph.input[0].name
            self.images = iter([{name: images_for(model.spec, 1, seed=i)} for i in range(4)])

        def get_next(self):
            return next(self.images, None)

    quantization.quantize_static(
        str(path), str(tmp_path / "int8.onnx"), Images(), quant_format=quantization.QuantFormat[form],
        per_channel=per_channel, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    foreign = read_foreign(tmp_path / "int8.onnx")
    assert foreign.spec == model.spec.replace(pool_ceil_mode=foreign.spec.pool_ceil_mode)
    for name, conv in model.convs.items():
        expected = conv.weight.detach().numpy()
        step = np.abs(expected).max() / 127
        assert np.abs(foreign.convs[name].weight - expected).max() <= 0.51 * step + 1e-7, name
        assert np.abs(foreign.convs[name].bias - conv.bias.detach().numpy()).max() < 1e-3


def test_onnx_file_is_a_model_for_every_verb(tmp_path):
    model = random_model(VARIANTS["1.1"])
    path = exported_by_torch(model, tmp_path / "net.onnx")
    loaded = load_model(path)
    assert loaded.preprocessing == TORCHVISION_PREPROCESSING
    assert loaded.provenance == {"source": "net.onnx", "format": "onnx"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_batch_norm_is_folded(tmp_path):
    model = random_model(variant(batch_norm=True))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    path = exported_by_torch(
        model, tmp_path / "a.onnx", do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE
    )
    foreign = read_foreign(path)
    assert foreign.spec == model.spec.replace(batch_norm=False, pool_ceil_mode=foreign.spec.pool_ceil_mode)
    images = images_for(model.spec, 2)
    check_same_logits(torch_logits(model_from_foreign(foreign), images[:1]), torch_logits(model, images[:1]))


def test_other_networks_are_told_where_they_differ(tmp_path):
    layers = [torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), torch.nn.Flatten()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.Sequential(*layers), torch.zeros(1, 3, 16, 16), tmp_path / "a.onnx", dynamo=False)
    message = "not a SqueezeNet: after the first convolution expected a Fire module .*, got conv '/2/Conv'"
    with pytest.raises(WeightsError, match=message):
        read_foreign(tmp_path / "a.onnx")


def test_scaling_of_pixels_in_the_graph_becomes_preprocessing(tmp_path):
    class Scaled(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network((x - torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)) / 4.0)

    model = random_model(variant())
    scaled = Scaled(model)
    scaled.spec = model.spec
    foreign = read_foreign(exported_by_torch(scaled, tmp_path / "a.onnx"))
    how = foreign.network(dataclasses.replace(foreign.convention, preprocessing=Preprocessing(
        crop_size=47, resize_size=47, mean=(0.0,) * 3, std=(1.0,) * 3))).preprocessing  # fmt: skip
    assert (how.mean, how.std) == ((1.0, 2.0, 3.0), (4.0, 4.0, 4.0))
