"""Files that lie, break or attack, one for each way that readers of weights were ever fooled."""

import collections
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

FORTY_BYTES = bytes(40)


class Call:
    """A pickle that calls a function with arguments."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def torch_zip(path, data, *, storages=None, method=zipfile.ZIP_STORED, extra=None):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, values in (storages or {"0": bytes(4)}).items():
            archive.writestr(f"archive/data/{key}", values)
        for name, values in (extra or {}).items():
            archive.writestr(name, values)


def short_text(text):
    return b"\x8c" + bytes([len(text)]) + text.encode()


def tensor(shape, *, stride=None, offset=0, count=1, key="0"):
    """The opcodes of one float tensor."""
    stride = stride or tuple(np.cumprod([1, *shape[:0:-1]])[::-1].tolist())
    numbers = lambda values: b"(" + b"".join(number(value) for value in values) + b"t"  # noqa: E731
    storage = b"(" + short_text("storage") + b"ctorch\nFloatStorage\n" + short_text(key) + short_text("cpu")
    arguments = storage + number(count) + b"tQ" + number(offset) + numbers(shape) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"\x89ccollections\nOrderedDict\n)RtR"


def number(value):
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a\x09" + data


def state(**tensors):
    """A state dict of a small network in torchvision's names, with some tensors put in its place."""
    shapes = {"features.0": (64, 3, 3, 3), "classifier.1": (3, 512, 1, 1)}
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    inputs = 64
    for place, (squeeze, expand) in zip((3, 4, 6, 7, 9, 10, 11, 12), widths, strict=True):
        shapes[f"features.{place}.squeeze"] = (squeeze, inputs, 1, 1)
        shapes[f"features.{place}.expand1x1"] = (expand, squeeze, 1, 1)
        shapes[f"features.{place}.expand3x3"] = (expand, squeeze, 3, 3)
        inputs = 2 * expand
    items = b""
    for name, shape in shapes.items():
        made = tensors.get(name.replace(".", "_")) or tensor(shape, stride=(0,) * 4)
        items += short_text(f"{name}.weight") + made + short_text(f"{name}.bias") + tensor(shape[:1], stride=(0,))
    return b"\x80\x04}(" + items + b"u."


def torch_files(folder):
    call = Call(os.system, f"touch {folder}/ran")
    torch.save(call, folder / "system.pth")
    torch.save(call, folder / "system-legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": Call(eval, f"open('{folder}/ran', 'w')")}, folder / "eval.pth")
    (folder / "plain-pickle.pth").write_bytes(pickle.dumps(call))
    (folder / "inst.pth").write_bytes(b"(S'touch ran'\nios\nsystem\n.")
    torch_zip(folder / "build.pth", b"cos\nsystem\n)\x81}X\x01\x00\x00\x00acos\nsystem\n(X\x01\x00\x00\x00xtRsb.")
    torch_zip(folder / "deep.pth", b"(" * 100_000 + b"t" * 100_000 + b".")
    torch_zip(folder / "memo.pth", b"\x80\x02Nr\xff\xff\xff\x7f.")
    torch_zip(folder / "huge-bytes.pth", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".")
    torch_zip(folder / "huge-number.pth", b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b".")
    torch_zip(folder / "flood.pth", b"\x80\x02" + b"N" * 2_100_000 + b".")
    bomb = b"\x80\x02)" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(60))
    torch_zip(folder / "hash.pth", b"\x80\x02}" + bomb[2:] + b"Ns.")
    torch_zip(folder / "own-dict.pth", b"\x80\x02}q\x00" + b"X\x0a\x00\x00\x00state_dicth\x00s.")
    module = b"cnet\nNet\n)\x81q\x00}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb."
    torch_zip(folder / "own-module.pth", b"\x80\x02" + module)
    doubled = b"]" + b"".join(b"q\x00]h\x00ah\x00a" for _ in range(60))
    torch_zip(folder / "doubled-name.pth", b"\x80\x04" + doubled + short_text("x") + b"\x93.")
    torch_zip(folder / "doubled-storage.pth", b"\x80\x04" + tensor((1,)).replace(short_text("0"), doubled) + b".")
    children = b"".join(short_text(str(i)) + b"h\x00" for i in range(100))
    web = b"cnet\nNet\n)\x81q\x00}" + short_text("_modules") + b"}(" + children + b"usb."
    torch_zip(folder / "module-web.pth", b"\x80\x04" + web)
    torch_zip(folder / "no-stack.pth", b"\x80\x02....")
    torch_zip(folder / "extension.pth", b"\x80\x02\x82\x01.")
    huge = tensor((64, 3, 3, 3), stride=(27, 9, 3, 1), count=1 << 40)
    torch_zip(folder / "claim.pth", state(features_0=huge))
    torch_zip(folder / "broadcast.pth", state(classifier_1=tensor((1 << 31, 512, 1, 1), stride=(0,) * 4)))
    torch_zip(folder / "offset.pth", state(features_0=tensor((64, 3, 3, 3), stride=(0,) * 4, offset=1 << 40)))
    torch_zip(folder / "negative.pth", state(features_0=tensor((64, 3, 3, 3), stride=(-1, 0, 0, 0))))
    torch_zip(folder / "no-storage.pth", state(features_0=tensor((64, 3, 3, 3), stride=(0,) * 4, key="../../x")))
    with zipfile.ZipFile(folder / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
        archive.writestr("archive/data/0", bytes(151 << 20))
    torch_zip(folder / "lzma.pth", b"\x80\x02N.", method=zipfile.ZIP_LZMA)
    torch_zip(folder / "two.pth", b"\x80\x02N.", extra={"other/data.pkl": b"\x80\x02N."})
    torch_zip(folder / "script.pth", b"\x80\x02N.", extra={"archive/code/a.py": b"import os"})
    with tarfile.open(folder / "old.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    torch.save(collections.OrderedDict(torch.nn.Linear(2, 2).state_dict()), folder / "linear.pth")
    resnet = {f"layer{i}.conv.weight": torch.zeros(8, 8, 3, 3) for i in range(20)} | {"fc.weight": torch.zeros(5, 8)}
    torch.save({"state_dict": resnet}, folder / "resnet.ckpt")
    (folder / "cut.pth").write_bytes((folder / "resnet.ckpt").read_bytes()[:-500])


def onnx_file(path, nodes, constants=(), *, shape=(1, 3, 224, 224)):
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", [image], [out], constants)).SerializeToString())


def onnx_files(folder):
    stem = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
    conv = helper.make_node("Conv", ["x", "w"], ["a"], strides=[2, 2], kernel_shape=[3, 3])
    relu, squeeze = helper.make_node("Relu", ["a"], ["b"]), numpy_helper.from_array(np.ones((4, 8, 1, 1), "f4"), "s")

    def with_weights(name, dims, **fields):
        weights = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, **fields)
        onnx_file(folder / name, [conv, relu], [weights])

    onnx_file(
        folder / "circle.onnx",
        [conv, helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])],
        [stem],
    )
    loop = [helper.make_node("Identity", [one], [other]) for one, other in (("i", "j"), ("j", "k"), ("k", "i"))]
    onnx_file(folder / "identities.onnx", [*loop, conv], [stem])
    fire = [
        conv,
        relu,
        *(helper.make_node("Conv", ["b", "s"], [name]) for name in "cd"),
        helper.make_node("Concat", ["c", "d"], ["x"], axis=1),
    ]
    onnx_file(folder / "loop-of-fires.onnx", fire, [stem, squeeze])
    chain = [helper.make_node("Identity", [f"n{i}"], [f"n{i + 1}"]) for i in range(20_500)]
    onnx_file(folder / "chain.onnx", chain)
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20], np.int64), "shape")
    onnx_file(folder / "constant.onnx", [helper.make_node("ConstantOfShape", ["shape"], ["w"]), conv], [shape])
    with_weights("dims.onnx", [1 << 31, 1 << 31], raw_data=FORTY_BYTES)
    with_weights("negative.onnx", [-1, 3, 3, 3], raw_data=FORTY_BYTES)
    with_weights("empty.onnx", [8, 3, 3, 3])
    outside = TensorProto(name="w", dims=[8, 3, 3, 3], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../../etc/passwd")
    onnx_file(folder / "external.onnx", [conv, relu], [outside])
    strings = TensorProto(name="w", dims=[8, 3, 3, 3], data_type=TensorProto.STRING)
    onnx_file(folder / "strings.onnx", [conv, relu], [strings])
    grouped = helper.make_node("Conv", ["x", "w"], ["a"], group=3, kernel_shape=[3, 3])
    onnx_file(folder / "grouped.onnx", [grouped, relu], [stem])
    plain = [conv, relu, helper.make_node("Conv", ["b", "s"], ["c"]), helper.make_node("GlobalMaxPool", ["c"], ["y"])]
    onnx_file(folder / "vgg.onnx", plain, [stem, squeeze])
    lstm = helper.make_node("LSTM", ["x", "w"], ["y"])
    onnx_file(folder / "lstm.onnx", [lstm], [stem])
    (folder / "random.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "empty-file.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes((folder / "vgg.onnx").read_bytes()[:-30])


def keras_archive(path, config, weights):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)


def keras_files(folder):
    def file(name, fill, **attributes):
        with h5py.File(folder / name, "w") as handle:
            handle.attrs["layer_names"] = [b"conv1"]
            group = handle.create_group("conv1")
            group.attrs["weight_names"] = [b"w", b"b"]
            fill(handle, group)
            for key, value in attributes.items():
                handle.attrs[key] = value

    side = 1 << 20
    file("claim.h5", lambda handle, group: group.create_dataset("w", (side, side, 3, 3), "f4", chunks=(1, 64, 3, 3)))
    shape = (3, 3, 4096, 4096)
    file(
        "bomb.h5",
        lambda handle, group: group.create_dataset("w", shape, "f4", chunks=(3, 3, 64, 4096), compression="gzip"),
    )
    secret = folder / "secret.bin"
    secret.write_bytes(bytes(1000))
    file("external.h5", lambda handle, group: group.create_dataset("w", (3, 3, 3, 8), "f4", external=str(secret)))
    file("link.h5", lambda handle, group: group.__setitem__("w", h5py.ExternalLink("/etc/passwd", "/w")))
    file("soft.h5", lambda handle, group: group.__setitem__("w", h5py.SoftLink("/conv1")))
    layout = h5py.VirtualLayout((3, 3, 3, 8), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "w", (3, 3, 3, 8))
    file("virtual.h5", lambda handle, group: group.create_virtual_dataset("w", layout))
    file("text.h5", lambda handle, group: group.__setitem__("w", b"text"))
    file("own-group.h5", lambda handle, group: group.__setitem__("w", handle["/"]))
    file("no-weights.h5", lambda handle, group: None)
    file("json.h5", lambda handle, group: None, model_config="[" * 60_000)
    (folder / "cut.h5").write_bytes((folder / "no-weights.h5").read_bytes()[:600])
    with h5py.File(folder / "other.hdf5", "w") as handle:
        handle["x"] = np.zeros(3)
    empty = io.BytesIO()
    h5py.File(empty, "w").close()
    layer = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 32, 32, 3]}, "inbound_nodes": []}
    code = {
        "class_name": "Lambda",
        "config": {"name": "l", "function": "4wEAAA=="},
        "inbound_nodes": [[["x", 0, 0, {}]]],
    }
    config = {"class_name": "Functional", "config": {"layers": [layer, code]}}
    keras_archive(folder / "lambda.keras", json.dumps(config), empty.getvalue())
    keras_archive(folder / "config-bomb.keras", bytes(40 << 20), empty.getvalue())
    keras_archive(folder / "weights-bomb.keras", json.dumps(config), bytes(151 << 20))
    keras_archive(folder / "list.keras", "[1, 2]", empty.getvalue())
    circle = {**code, "class_name": "Activation", "config": {"name": "l", "activation": "linear"}}
    circle["inbound_nodes"] = [[["l", 0, 0, {}]]]
    keras_archive(folder / "circle.keras", json.dumps({"config": {"layers": [layer, circle]}}), empty.getvalue())


def other_files(folder):
    (folder / "random.caffemodel").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / "empty.caffemodel").write_bytes(b"\x0a\x03net")
    (folder / "wide.param").write_text(
        "7767517\n2 2\nInput data 0 1 data 0=8\nConvolution c 1 1 data c 0=1 6=2147483647 1=1\n"
    )
    (folder / "wide.bin").write_bytes(bytes(8))
    (folder / "long.param").write_text("7767517\n2 2\n" + "Input data 0 1 data\n" * 30_000)
    (folder / "long.bin").write_bytes(b"")
    (folder / "random.tflite").write_bytes(b"\x1c\0\0\0TFL3" + np.random.default_rng(2).bytes(5000))
    (folder / "short.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    with (folder / "large.onnx").open("wb") as stream:
        stream.truncate(3 << 30)


def write_all(folder):
    """All of them; returns their paths."""
    for write in (torch_files, onnx_files, keras_files, other_files):
        write(folder)
    beside = (".bin",) if not any(folder.glob("*.bin")) else ("secret.bin", "wide.bin", "long.bin")
    return sorted(path for path in folder.iterdir() if path.name not in beside)
