"""Keras files, made by Keras itself: the same weights, and Keras' answers."""

import json
import os
import zipfile

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")

from imported import check_same_convs, check_same_logits, images_for, random_model, torch_logits, variant  # noqa: E402
from squeezenet import StemSpec, export, load_model, named_spec  # noqa: E402
from squeezenet.errors import WeightsError  # noqa: E402
from squeezenet.imports import read_foreign  # noqa: E402
from squeezenet.models import model_from_foreign  # noqa: E402


def keras_model(model, *, name=lambda op: op.name.replace(".", "_"), rescale=False, norm=False, fused=True):
    """The network of a spec, as somebody would write it in Keras."""
    spec, layers = model.spec, keras.layers
    image = layers.Input((spec.input_size, spec.input_size, 3))

    def conv(op, x):
        if op.padding and op.kernel != 2 * op.padding + 1:
            x = layers.ZeroPadding2D(op.padding)(x)
        settings = {
            "strides": op.stride, "padding": "same" if op.padding and op.kernel == 2 * op.padding + 1 else "valid",
            "name": name(op), "activation": "relu" if op.relu and fused and not norm else None,
        }  # fmt: skip
        x = layers.Conv2D(op.out_channels, op.kernel, **settings)(x)
        if norm:
            x = layers.BatchNormalization(name=f"{name(op)}_norm")(x)
        return layers.ReLU()(x) if op.relu and (norm or not fused) else x

    def pool(op, x):
        return layers.MaxPooling2D(op.kernel, op.stride)(x)

    x = layers.Rescaling(1 / 127.5, offset=-1)(image) if rescale else image
    x = spec.walk(
        x, conv=conv, pool=pool, add=lambda op, a, b: layers.Add()([a, b]),
        join=lambda op, a, b: layers.Concatenate(axis=-1)([a, b]),
    )  # fmt: skip
    found = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Dropout(0.5)(x)))
    for op in spec.convs:
        weights = model.convs[op.name]
        found.get_layer(name(op)).set_weights(
            [weights.weight.detach().numpy().transpose(2, 3, 1, 0), weights.bias.detach().numpy()]
        )
    return found


def keras_logits(model, images):
    return np.asarray(model.predict(images.transpose(0, 2, 3, 1), verbose=0))


VARIANTS = {
    "plain": variant(pool_ceil_mode=False),
    "simple bypass": variant(fires=(variant().fires[0],) * 3, bypass="simple", pool_ceil_mode=False),
    "complex bypass": variant(bypass="complex", pool_ceil_mode=False),
    "floor": variant(pool_ceil_mode=False, input_size=50),
    "padded": variant(
        stem=StemSpec(channels=9, kernel=5, stride=1, padding=2), input_size=33, head_padding=1, pool_ceil_mode=False
    ),
    "1.1": named_spec("squeezenet1_1", num_classes=4, pool_ceil_mode=False, input_size=227),
}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.filterwarnings("ignore")
def test_whole_models_are_read(tmp_path, name, suffix):
    model = random_model(VARIANTS[name])
    theirs = keras_model(model, fused=name != "floor")
    theirs.save(tmp_path / f"net{suffix}")
    foreign = read_foreign(tmp_path / f"net{suffix}")
    check_same_convs(foreign, model)
    spec = foreign.spec.replace(name=model.spec.name)
    assert spec == model.spec.replace(pool_ceil_mode=spec.pool_ceil_mode)
    images = images_for(model.spec, 2)
    check_same_logits(torch_logits(model_from_foreign(foreign), images), keras_logits(theirs, images))


def published(op):
    return op.name.replace(".squeeze", "/squeeze1x1").replace(".", "/")


def write_old_weights(path, model):
    """As Keras 2 wrote weights alone: groups nest at the slash, and attributes name layers and weights in order."""
    import h5py

    with h5py.File(path, "w") as file:
        names = [published(op) for op in model.spec.convs]
        file.attrs["layer_names"] = [name.encode() for name in ("input_1", *names)]
        for op, name in zip(model.spec.convs, names, strict=True):
            group = file.create_group(name)
            weights = [f"{name}_W:0".encode(), f"{name}_b:0".encode()]
            group.attrs["weight_names"] = weights
            conv = model.convs[op.name]
            group[weights[0].decode()] = conv.weight.detach().numpy().transpose(2, 3, 1, 0)
            group[weights[1].decode()] = conv.bias.detach().numpy()
        file.create_group("input_1").attrs["weight_names"] = []


def test_published_weights_are_read_in_bgr(tmp_path):
    model = random_model(named_spec("squeezenet1_1", num_classes=4, input_size=227, pool_ceil_mode=False))
    write_old_weights(tmp_path / "squeezenet_weights_tf_dim_ordering_tf_kernels.h5", model)
    foreign = read_foreign(tmp_path / "squeezenet_weights_tf_dim_ordering_tf_kernels.h5")
    assert (foreign.spec, foreign.names, foreign.convention.name) == (model.spec, "Keras", "keras")
    check_same_convs(foreign, model, is_bgr=True)
    how = foreign.network().preprocessing
    assert (how.mean, how.std, how.resize_mode) == ((123.68, 116.779, 103.939), (1.0,) * 3, "squash")


@pytest.mark.filterwarnings("ignore")
def test_weights_of_keras_3_alone_are_read(tmp_path):
    model = random_model(named_spec("squeezenet1_1", num_classes=4, input_size=227, pool_ceil_mode=False))
    keras_model(model).save_weights(tmp_path / "net.weights.h5")
    foreign = read_foreign(tmp_path / "net.weights.h5")
    assert (foreign.spec, foreign.names) == (model.spec, "shapes")
    check_same_convs(foreign, model)


@pytest.mark.filterwarnings("ignore")
def test_rescaling_and_batch_norm_are_taken_in(tmp_path):
    model = random_model(VARIANTS["plain"])
    theirs = keras_model(model, rescale=True, norm=True)
    rng = np.random.default_rng(0)
    for layer in theirs.layers:
        if layer.name.endswith("_norm"):
            layer.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in layer.get_weights()])
    theirs.save(tmp_path / "net.keras")
    foreign = read_foreign(tmp_path / "net.keras")
    assert foreign.convention_from == "in the file's first layer"
    how = foreign.network().preprocessing
    np.testing.assert_allclose((*how.mean, *how.std), 127.5, rtol=1e-6)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 47, 47)).astype(np.float32)
    ours = torch_logits(model_from_foreign(foreign), (pixels - np.float32(127.5)) / np.float32(127.5))
    check_same_logits(ours, keras_logits(theirs, pixels))


@pytest.mark.filterwarnings("ignore")
def test_keras_file_is_a_model_for_every_verb(tmp_path):
    model = random_model(VARIANTS["1.1"])
    keras_model(model).save(tmp_path / "net.keras")
    assert load_model(tmp_path / "net.keras").spec == model.spec
    export(tmp_path / "net.keras", tmp_path / "net.onnx")
    check_same_convs(read_foreign(tmp_path / "net.onnx"), model)


@pytest.mark.filterwarnings("ignore")
def test_code_in_a_layer_is_not_run(tmp_path):
    """`Lambda` layers hold marshalled code."""
    model = random_model(VARIANTS["plain"])
    keras_model(model).save(tmp_path / "net.keras")
    with zipfile.ZipFile(tmp_path / "net.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    layer = config["config"]["layers"][2]
    layer |= {"class_name": "Lambda", "config": {"name": layer["name"], "function": {"code": "AAAA"}}}
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        for name, data in {**parts, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    with pytest.raises(WeightsError, match="not a SqueezeNet: .* got Lambda"):
        read_foreign(tmp_path / "net.keras")


@pytest.mark.filterwarnings("ignore")
def test_padding_that_depends_on_the_side_is_refused(tmp_path):
    layers = keras.layers
    image = layers.Input((48, 48, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    keras.Model(image, layers.GlobalAveragePooling2D()(x)).save(tmp_path / "net.keras")
    with pytest.raises(WeightsError, match="expected the same padding on all sides, got .* at 48x48 pixels"):
        read_foreign(tmp_path / "net.keras")
