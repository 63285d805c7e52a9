"""ncnn's `.param` and `.bin`: the same weights, and ncnn's answers."""

import struct

import numpy as np
import pytest

from imported import check_same_convs, check_same_logits, images_for, random_model, torch_logits, variant
from squeezenet import named_spec
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign
from squeezenet.models import model_from_foreign

FLOAT16_TAG = 0x01306B47


def write_ncnn(folder, model, *, is_half=False, fused=True):
    spec, lines, data = model.spec, [], bytearray()
    readers = {}
    for op in spec.graph():
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    blobs = {"input"}

    def add_layer(kind, name, inputs, outputs, fields=""):
        blobs.update(outputs)
        lines.append(f"{kind:<16} {name:<24} {len(inputs)} {len(outputs)} {' '.join([*inputs, *outputs])} {fields}")
        return outputs[0]

    pending = {}

    def taken(x):
        """Each reader of a tensor gets a copy of its own from a Split."""
        name, copies = x
        return pending[name].pop() if copies > 1 else name

    def complete(name, blob):
        copies = readers.get(name, 1)
        if copies > 1:
            pending[blob] = [f"{blob}_split{i}" for i in range(copies)]
            add_layer("Split", f"split_{blob}", [blob], list(pending[blob]))
        return blob, copies

    def conv(op, x):
        weights = model.convs[op.name]
        weight, bias = weights.weight.detach().numpy(), weights.bias.detach().numpy()
        fields = f"0={op.out_channels} 1={op.kernel} 3={op.stride} 4={op.padding} 5=1 6={weight.size}"
        y = add_layer("Convolution", op.name, [taken(x)], [op.name], fields + (" 9=1" if op.relu and fused else ""))
        if is_half:
            halves = weight.astype("<f2").tobytes()
            data.extend(struct.pack("<I", FLOAT16_TAG) + halves + bytes(-len(halves) % 4))
        else:
            data.extend(struct.pack("<I", 0) + weight.astype("<f4").tobytes())
        data.extend(bias.astype("<f4").tobytes())
        if op.relu and not fused:
            y = add_layer("ReLU", f"{op.name}_relu", [y], [f"{op.name}_relu"])
        return complete(op.output, y) if op.output == op.name else (y, 1)

    def pool(op, x):
        return complete(op.output, add_layer("Pooling", op.name, [taken(x)], [op.name], "0=0 1=3 2=2"))

    def add(op, a, b):
        return complete(op.output, add_layer("BinaryOp", op.name, [taken(a), taken(b)], [op.name], "0=0"))

    def join(op, a, b):
        return complete(op.output, add_layer("Concat", f"{op.output}_cat", [a[0], b[0]], [f"{op.output}_cat"], "0=0"))

    add_layer("Input", "data", [], ["data"], f"0={spec.input_size} 1={spec.input_size} 2=3")
    x = spec.walk(complete("input", "data"), conv=conv, pool=pool, add=add, join=join)
    x = add_layer("Dropout", "drop", [taken(x)], ["drop"])
    add_layer("Pooling", "mean", [x], ["logits"], "0=1 4=1")
    (folder / "net.param").write_text(f"7767517\n{len(lines)} {len(blobs) - 1}\n" + "\n".join(lines) + "\n")
    (folder / "net.bin").write_bytes(data)
    return folder / "net.param"


VARIANTS = {
    "plain": variant(),
    "simple bypass": variant(fires=(variant().fires[0],) * 3, bypass="simple"),
    "complex bypass": variant(bypass="complex"),
    "ceil": variant(input_size=50),
    "1.1": named_spec("squeezenet1_1", num_classes=4),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_networks_are_read(tmp_path, name):
    ncnn = pytest.importorskip("ncnn")
    model = random_model(VARIANTS[name])
    foreign = read_foreign(write_ncnn(tmp_path, model, fused=name != "plain"))
    spec = foreign.spec.replace(name=model.spec.name)
    assert spec == model.spec.replace(pool_ceil_mode=spec.pool_ceil_mode)
    check_same_convs(foreign, model)
    images = images_for(model.spec, 1)
    net = ncnn.Net()
    for option in ("use_winograd_convolution", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    net.opt.num_threads = 1
    assert net.load_param(str(tmp_path / "net.param")) == 0
    assert net.load_model(str(tmp_path / "net.bin")) == 0
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(images[0]))
    _, logits = extractor.extract("logits")
    check_same_logits(torch_logits(model_from_foreign(foreign), images)[0], np.array(logits).reshape(-1))


def test_either_file_and_half_precision_are_read(tmp_path):
    model = random_model(VARIANTS["plain"])
    write_ncnn(tmp_path, model, is_half=True)
    foreign = read_foreign(tmp_path / "net.bin")
    expected = model.convs["fire2.expand3x3"].weight.detach().numpy().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(foreign.convs["fire2.expand3x3"].weight, expected)
    assert (foreign.format, foreign.convention_from) == ("ncnn", "a guess")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda param, data: (param, data[:-4]), "net.bin: expected 5 weights at"),
        (lambda param, data: (param, data + bytes(4)), "net.bin: expected .* bytes by the layers, got"),
        (lambda param, data: (param, b"\x38\x4b\x0d\0" + data[4:]), "expected float weights, got the tag 0x000d4b38"),
        (lambda param, data: (param.replace("6=270", "6=2147483647"), data), "expected 2147483647 weights at"),
        (
            lambda param, data: (param.replace(" 1 1 data", " 999999 1 data"), data),
            "expected a layer, got 'Conv",
        ),
        (lambda param, data: (param.replace("7767517", "1"), data), "begins with 7767517"),
        (
            lambda param, data: (param.replace("Concat ", "Interp "), data),
            "expected concat at the end of fire2, got",
        ),
    ],
)
def test_broken_pairs_are_refused(tmp_path, change, message):
    path = write_ncnn(tmp_path, random_model(VARIANTS["plain"]))
    param, data = change(path.read_text(), (tmp_path / "net.bin").read_bytes())
    path.write_text(param)
    (tmp_path / "net.bin").write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        read_foreign(path)


def test_missing_half_is_named(tmp_path):
    path = write_ncnn(tmp_path, random_model(VARIANTS["plain"]))
    (tmp_path / "net.bin").unlink()
    with pytest.raises(WeightsError, match=r"net\.bin: expected a weight file, but there is none"):
        read_foreign(path)
