"""Caffe's `.caffemodel`, written here byte by byte in both generations of the format."""

import struct

import numpy as np
import pytest

from imported import check_same_convs, random_model, variant
from squeezenet import named_spec
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign
from squeezenet.preprocess import CAFFE_PREPROCESSING


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, value):
    """A field of a protobuf message: a number, or bytes (text, messages, packed floats)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(values, *, old=False):
    if old:  # four numbers instead of a shape
        sides = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(field(i + 1, side) for i, side in enumerate(sides))
    else:
        shape = field(7, field(1, b"".join(map(varint, values.shape))))
    return shape + field(5, values.astype("<f4").tobytes())


def layer(kind, name, bottoms, top, *, parameter=b"", blobs=()):
    parts = [field(1, name), field(2, kind), *(field(3, bottom) for bottom in bottoms), field(4, top)]
    return field(100, b"".join([*parts, *(field(7, part) for part in blobs), parameter]))


OLD_TYPES = {"Convolution": 4, "ReLU": 18, "Pooling": 17, "Concat": 3, "Dropout": 6, "Softmax": 20, "Eltwise": 25}
OLD_PARAMETERS = {106: 10, 121: 19, 104: 9, 110: 24}


def old_layer(kind, name, bottoms, top, *, parameter=b"", blobs=()):
    parts = [*(field(2, bottom) for bottom in bottoms), field(3, top), field(4, name), field(5, OLD_TYPES[kind])]
    if parameter:  # its number comes first
        number = (parameter[0] & 127 | parameter[1] << 7) >> 3
        parameter = field(OLD_PARAMETERS[number], parameter[3:])
    return field(2, b"".join([*parts, *(field(6, part) for part in blobs), parameter]))


def caffemodel(model, *, old=False, data_layer=b"", change=lambda kind, name, settings: None):
    """The network as Caffe's tools write it: activations in place, Dropout, a Softmax at the end."""
    spec, write = model.spec, old_layer if old else layer
    parts = [data_layer or field(3, "data")]
    if not data_layer:
        parts += [field(4, side) for side in (1, 3, spec.input_size, spec.input_size)]

    def add_layer(kind, name, bottoms, top, **settings):
        change(kind, name, settings)
        parts.append(write(kind, name, bottoms, top, **settings))
        return top

    def conv(op, x):
        name = op.name.replace(".squeeze", "/squeeze1x1").replace(".", "/")
        weights = model.convs[op.name]
        settings = field(1, op.out_channels) + field(4, op.kernel) + field(6, op.stride)
        settings += field(3, op.padding) if op.padding else b""
        blobs = [blob(part.detach().numpy(), old=old) for part in (weights.weight, weights.bias)]
        x = add_layer("Convolution", name, [x], name, parameter=field(106, settings), blobs=blobs)
        return add_layer("ReLU", f"relu_{name}", [x], x) if op.relu else x

    def pool(op, x):
        return add_layer("Pooling", op.name, [x], op.name, parameter=field(121, field(2, 3) + field(3, 2)))

    def add(op, a, b):
        return add_layer("Eltwise", op.name, [a, b], op.name)

    def join(op, a, b):
        return add_layer("Concat", f"{op.output}/concat", [a, b], f"{op.output}/concat")

    x = spec.walk("data", conv=conv, pool=pool, add=add, join=join)
    x = add_layer("Dropout", "drop", [x], x)
    average = field(121, field(1, 1) + field(12, 1))
    add_layer("Pooling", "pool_last", [x], "pool_last", parameter=average)
    add_layer("Softmax", "prob", ["pool_last"], "prob")
    return field(1, "net") + b"".join(parts)


VARIANTS = {
    "1.0": named_spec("squeezenet1_0", num_classes=4, input_size=227, head_padding=1),
    "1.1": named_spec("squeezenet1_1", num_classes=4, input_size=227),
    "simple bypass": variant(fires=(variant().fires[0],) * 3, bypass="simple"),
    "complex bypass": variant(bypass="complex"),
    "no relus": variant(squeeze_relu=False, head_relu=False),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_networks_are_read_in_bgr(tmp_path, name, old):
    model = random_model(VARIANTS[name])
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(model, old=old))
    foreign = read_foreign(tmp_path / "net.caffemodel")
    spec = foreign.spec.replace(name=model.spec.name)
    assert spec == model.spec.replace(pool_ceil_mode=spec.pool_ceil_mode)
    assert (foreign.names, foreign.convention.name) == ("Caffe", "caffe")
    check_same_convs(foreign, model, is_bgr=True)
    if name.startswith("1."):
        assert foreign.network().preprocessing == CAFFE_PREPROCESSING
        assert foreign.spec.pool_ceil_mode  # 227 pixels: maps of 113, 56.5 and so on


def test_means_of_the_training_s_data_layer_are_the_network_s(tmp_path):
    model = random_model(VARIANTS["1.1"])
    transform = field(3, 227) + b"".join(field(5, mean) for mean in (10.0, 20.0, 30.0)) + field(1, 0.5)
    data = field(
        100, b"".join([field(1, "data"), field(2, "Data"), field(4, "data"), field(4, "label"), field(100, transform)])
    )
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(model, data_layer=data))
    foreign = read_foreign(tmp_path / "net.caffemodel")
    how = foreign.network().preprocessing
    assert (how.mean, how.std, foreign.convention.is_bgr) == ((30.0, 20.0, 10.0), (2.0, 2.0, 2.0), True)
    assert (foreign.spec, foreign.convention_from) == (model.spec, "in the file's data layer")


def test_other_networks_are_told_where_they_differ(tmp_path):
    def stretch(kind, name, settings):
        if name == "pool3":
            settings["parameter"] = field(121, field(2, 2) + field(3, 2))

    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_model(VARIANTS["1.1"]), change=stretch))
    with pytest.raises(WeightsError, match=r"expected a 3x3 max pool with stride 2, got max_pool 'pool3' of \(2, 2\)"):
        read_foreign(tmp_path / "net.caffemodel")


def test_blob_that_claims_more_than_it_has_is_refused(tmp_path):
    def claim(kind, name, settings):
        if name == "conv1":
            shape = field(7, field(1, b"".join(map(varint, (1 << 20, 3, 3, 3)))))
            settings["blobs"] = [shape + field(5, np.zeros(27, "<f4").tobytes())]

    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_model(VARIANTS["1.1"]), change=claim))
    with pytest.raises(WeightsError, match="conv1: expected values for the shape .* got 27"):
        read_foreign(tmp_path / "net.caffemodel")
