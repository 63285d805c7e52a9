"""Weight files: safetensors both ways, imported torch files, and what a MODEL argument may be."""

import argparse
import json
import os
import struct
import time
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from networks import random_network, tiny_spec
from shared import shared_path
from squeezenet.architectures import named_spec
from squeezenet.errors import ModelNotFoundError, WeightsError
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.models import (
    SqueezeNet,
    create_model,
    load_model,
    load_safetensors,
    model_from_state,
    normalize_pixels,
    save_safetensors,
)
from squeezenet.models.weights import infer_spec
from squeezenet.preprocess import TORCHVISION_PREPROCESSING, Preprocessing


def small_model(name="squeezenet1_1", *, seed=0, **options):
    torch.manual_seed(seed)
    return SqueezeNet(named_spec(name, **{"num_classes": 3, **options}))


def check_same_weights(model, other):
    assert list(model.state_dict()) == list(other.state_dict())
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


def test_safetensors_round_trip_keeps_everything(tmp_path):
    model = small_model("squeezenet1_0_complex_bypass", input_size=32, batch_norm=True, head_relu=False)
    model.to(memory_format=torch.channels_last)
    model.labels = Labels(("cat", "crane fly", "øre"), ("n1", "n2", "n3"))
    model.preprocessing = Preprocessing(crop_size=32, resize_size=36, resample="bicubic")
    model.provenance = {"recipe": {"epochs": 3}, "data": "digits"}
    save_safetensors(model, tmp_path / "a.safetensors")
    copy = load_safetensors(tmp_path / "a.safetensors")
    assert (copy.spec, copy.labels, copy.preprocessing, copy.provenance) == (
        model.spec,
        model.labels,
        model.preprocessing,
        model.provenance,
    )
    check_same_weights(copy, model)


def test_safetensors_of_the_same_network_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_safetensors(small_model(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "b"]


def test_metadata_is_plain_json(tmp_path):
    save_safetensors(small_model(), tmp_path / "a.safetensors")
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as stored:
        metadata = json.loads(stored.metadata()["squeezenet"])
    assert sorted(metadata) == ["labels", "preprocessing", "provenance", "spec"]
    assert metadata["spec"]["name"] == "squeezenet1_1"
    assert metadata["labels"] is None


def test_half_precision_files_become_float32(tmp_path):
    model = small_model()
    save_safetensors(model.half(), tmp_path / "a.safetensors")
    copy = load_safetensors(tmp_path / "a.safetensors")
    assert copy.head.weight.dtype == torch.float32
    assert torch.equal(copy.head.weight, model.head.weight.float())


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1", "squeezenet1_0_complex_bypass"])
def test_architecture_is_recognized_without_metadata(tmp_path, name):
    model = small_model(name)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "a.safetensors")
    copy = load_safetensors(tmp_path / "a.safetensors")
    assert copy.spec == model.spec
    assert (copy.labels, copy.preprocessing) == (None, TORCHVISION_PREPROCESSING)
    check_same_weights(copy, model)


def test_1000_classes_without_metadata_are_those_of_imagenet(tmp_path):
    safetensors.torch.save_file(small_model(num_classes=1000).state_dict(), tmp_path / "a.safetensors")
    model = load_safetensors(tmp_path / "a.safetensors")
    assert model.labels.ids[999] == "n15075141"
    assert model.labels.names[999] == "toilet tissue, toilet paper, bathroom tissue"
    assert model.preprocessing == TORCHVISION_PREPROCESSING
    assert model.provenance == {"source": "a.safetensors"}


def test_published_state_loads_with_no_mapping():
    path = shared_path("weights/squeezenet1_1-imagenet-fp16.safetensors")
    tensors = safetensors.torch.load_file(path)
    SqueezeNet(named_spec("squeezenet1_1")).load_state_dict(tensors, strict=True)
    model = load_model(path)
    assert model.spec == named_spec("squeezenet1_1")
    assert torch.equal(model.head.weight, tensors["classifier.1.weight"].float())


def test_other_tensors_are_refused_with_the_nearest_architecture():
    shapes = {name: tuple(tensor.shape) for name, tensor in small_model().state_dict().items()}
    shapes["features.12.squeeze.weight"] = (65, 512, 1, 1)
    with pytest.raises(WeightsError, match=r"squeezenet1_1, differs in 1 tensors, features\.12\.squeeze\.weight"):
        infer_spec(shapes)
    for other in ({}, {"classifier.1.weight": (0,)}, {"classifier.1.weight": (10**9, 512, 1, 1)}):
        with pytest.raises(WeightsError, match="expected the tensors of one of squeezenet1_0"):
            infer_spec(other)


def header_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def described(**description):
    """Header of a file with this description and one tensor."""
    spec = named_spec("squeezenet1_1", num_classes=3).to_dict()
    return {
        "__metadata__": {"squeezenet": json.dumps({"spec": spec, **description})},
        "features.0.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }


ONE_TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{x", "broken JSON"),
        (b"[]", "broken JSON"),
        (b"\xff\xff", "broken JSON"),
        (b"[" * 100_000, "broken JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "broken JSON"),
        ({"x": []}, "broken JSON"),
        ({"x": {"shape": [1], "data_offsets": [0, 4]}}, "broken JSON"),
        ({"x": {**ONE_TENSOR, "dtype": "F8_E4M3"}}, "x: expected one of F16"),
        ({"x": {**ONE_TENSOR, "dtype": ["F32"]}}, "x: expected one of F16"),
        ({"x": {**ONE_TENSOR, "shape": [1 << 62]}}, "expected a safetensors file"),
        ({"x": {**ONE_TENSOR, "shape": [-1]}}, "expected a safetensors file"),
        ({"x": {**ONE_TENSOR, "data_offsets": [0, 1 << 40]}}, "expected a safetensors file"),
        ({"x": ONE_TENSOR, "y": ONE_TENSOR}, "expected a safetensors file"),
        ({"x" * 100_000: {**ONE_TENSOR, "dtype": "X" * 100_000}}, "x: expected one of F16"),
        ({"x\n" * 50_000: ONE_TENSOR}, "expected the tensors of one of"),
        ({f"x{i}": ONE_TENSOR for i in range(5000)}, "at most 4096 tensors, got 5000"),
        ({"__metadata__": "text", "x": ONE_TENSOR}, "expected a safetensors file"),
        ({"__metadata__": ["squeezenet"], "x": ONE_TENSOR}, "broken JSON"),
        ({"__metadata__": {"squeezenet": 3}, "x": ONE_TENSOR}, "broken JSON"),
        ({"__metadata__": {"squeezenet": "{"}, "x": ONE_TENSOR}, "broken JSON"),
        ({"__metadata__": {"squeezenet": "[" * 100_000}, "x": ONE_TENSOR}, "broken JSON"),
        ({"__metadata__": {"squeezenet": "[]"}, "x": ONE_TENSOR}, "damaged: expected an object with a `spec`"),
        ({"__metadata__": {"squeezenet": "{}"}, "x": ONE_TENSOR}, "damaged: expected an object with a `spec`"),
        (described(spec={"stem": 3}), "damaged: expected the fields of an architecture"),
        (described(spec={"num_classes": 10**9}), "damaged"),
        (described(spec={"stem": "x" * 100_000}), "damaged: expected the fields of an architecture"),
        ({"\x1b[2J": {**ONE_TENSOR, "dtype": "X"}}, r"safetensors: \\x1b\[2J: expected one of F16"),
        (described(labels=["a", "b", "c"]), "damaged: expected objects for labels"),
        (described(labels={"names": ["a", "b"]}), "damaged: expected 3 labels, got 2"),
        (described(labels={"names": [1, 2, 3]}), "damaged: expected `names`"),
        (described(preprocessing={"crop_size": "x", "resize_size": 4}), "damaged: expected a whole number"),
        (described(preprocessing={}), "damaged: expected the fields of a preprocessing"),
        (
            described(preprocessing={"crop_size": 1024, "resize_size": 1024}),
            r"damaged: expected a preprocessing that crops to the `input_size` of the spec \(=\d+\), got",
        ),
        (described(provenance="here"), "damaged: expected objects for labels, preprocessing and provenance, got str"),
        (described(), "features.0.weight, features.3.squeeze.weight, features.3.squeeze.bias and 48 more are missing"),
        ({"x": ONE_TENSOR}, "expected the tensors of one of squeezenet1_0"),
        ({}, "expected"),
    ],
)
def test_hostile_safetensors_are_refused_in_one_line(tmp_path, header, message):
    path = header_file(tmp_path / "a.safetensors", header, bytes(4))
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"abc", bytes(8), b"\xff" * 8 + b"{}", struct.pack("<Q", 1 << 40), b"PK\3\4" * 9]
)
def test_files_that_are_no_safetensors_are_refused(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="expected a safetensors file, got a header of"):
        load_model(tmp_path / "a.safetensors")


def test_every_truncation_is_refused(tmp_path):
    save_safetensors(small_model(), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    header_bytes = struct.unpack("<Q", data[:8])[0]
    for length in [*range(0, 8 + header_bytes, 97), 8 + header_bytes, len(data) // 2, len(data) - 1]:
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        with pytest.raises(WeightsError):
            load_safetensors(tmp_path / "cut.safetensors")


def test_huge_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.safetensors").open("wb") as stream:
        stream.truncate(1 << 40)
    start_s = time.monotonic()
    with pytest.raises(WeightsError, match="expected at most 150994944 bytes, got 1099511627776"):
        load_model(tmp_path / "a.safetensors")
    assert time.monotonic() - start_s < 1


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_torch_files_are_imported(tmp_path, name, is_zip):
    model = small_model(name)
    torch.save(model.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    copy = load_model(tmp_path / "a.pth")
    assert copy.spec == model.spec
    check_same_weights(copy, model)


class Payload:
    def __reduce__(self):
        return (eval, ("this must never be evaluated",))


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {"a": torch.zeros(1)}}, r"got a dictionary of 'weights' \(1 in all\)"),
        ({"state_dict": {"a": 1}}, r"got a dictionary under `state_dict` of 'a' \(1 in all\)"),
        ({"state_dict": {"b.a": torch.zeros(1)}}, r"got a dictionary under `state_dict` of 'b\.a' \(1 in all\)"),
        ({"a": 1}, r"got a dictionary of 'a' \(1 in all\)"),
        ({1: torch.zeros(1)}, r"got a dictionary of 'int' \(1 in all\)"),
        ([torch.zeros(1)], "expected the tensors of a SqueezeNet, got list"),
        (torch.zeros(1), "expected the tensors of a SqueezeNet, got a tensor"),
        (Payload(), "expected the tensors of a SqueezeNet, got __builtin__.eval: save"),
        (torch.nn.Linear(1, 1), r"expected the tensors of a SqueezeNet, got .*: save `model\.state_dict\(\)` alone"),
        ({"classifier.1.weight": torch.zeros(1, device="meta")}, "expected the tensors of a SqueezeNet, got a dict"),
    ],
)
def test_torch_files_of_anything_else_are_refused(tmp_path, capsys, content, message, is_zip):
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=message) as caught:
        load_model(tmp_path / "a.pth")
    assert str(caught.value).isprintable()
    assert capsys.readouterr().out == ""


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def counted(state):
    """As thop leaves a network."""
    layers = {name.rpartition(".")[0] for name in state}
    return state | {f"{layer}.{kind}": torch.zeros(1) for layer in layers for kind in ("total_ops", "total_params")}


WRAPPED = [
    (lambda state: prefixed(state, "module."), "without the prefix `module.`"),
    (lambda state: prefixed(state, "_orig_mod."), "without the prefix `_orig_mod.`"),
    (lambda state: prefixed(state, "model."), "without the prefix `model.`"),
    (lambda state: prefixed(state, "_orig_mod.module."), "without the prefix `_orig_mod.module.`"),
    (lambda state: prefixed(state, "module.") | {"n_averaged": torch.tensor(3)},
     "without the prefix `module.`, without the counters `n_averaged`"),
    (counted, "without the counters `total_ops`, without the counters `total_params`"),
    (lambda state: {"state_dict": state, "epoch": 3}, "those under `state_dict`"),
    (lambda state: {"epoch": 3, "model": prefixed(state, "module."), "optimizer": {"lr": 0.1}},
     "those under `model`, without the prefix `module.`"),
    (lambda state: {"state_dict_ema": state, "arch": "squeezenet"}, "those under `state_dict_ema`"),
    (lambda state: {"model": {"state_dict": state, "step": 1}}, "those under `model.state_dict`"),
    (lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, names=["a"])}, "those under `model`"),
]  # fmt: skip


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(("wrap", "said"), WRAPPED)
def test_weights_are_found_where_people_keep_them(tmp_path, wrap, said, is_zip):
    model = create_model("squeezenet1_1", num_classes=3)
    torch.save(wrap(dict(model.state_dict())), tmp_path / "a.ckpt", _use_new_zipfile_serialization=is_zip)
    found = load_model(tmp_path / "a.ckpt")
    check_same_weights(found, model)
    assert found.provenance == {"source": "a.ckpt", "format": "torch", "tensors": said}


def test_safetensors_of_a_wrapped_network_are_read(tmp_path):
    model = create_model("squeezenet1_0", num_classes=3)
    safetensors.torch.save_file(prefixed(model.state_dict(), "module."), tmp_path / "a.safetensors")
    found = load_model(tmp_path / "a.safetensors")
    check_same_weights(found, model)
    assert found.provenance["tensors"] == "without the prefix `module.`"


def test_of_two_networks_none_is_guessed(tmp_path):
    state = create_model("squeezenet1_1", num_classes=3).state_dict()
    torch.save(prefixed(state, "student.") | prefixed(state, "teacher."), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="expected one network, got 2: under `student.`, `teacher.`; save one"):
        load_model(tmp_path / "a.pth")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4967000\n"
PAGES = ["<!DOCTYPE html><html>", "\ufeff\n <HTML lang=en>", '<?xml version="1.0"?><Error/>', "<!-- x --><html>"]


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.net"])
@pytest.mark.parametrize(("text", "message"), [(LFS, "git lfs pull"), *((page, "a web page") for page in PAGES)])
def test_what_stands_for_a_file_is_recognised(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path / name)


def test_read_only_pixels_need_no_warning():
    pixels = np.frombuffer(bytes(range(48)), np.uint8).reshape(1, 4, 4, 3)
    how = Preprocessing(crop_size=4, resize_size=4)
    expected = (pixels.astype(np.float32) - 128) / 64
    for view in (pixels, pixels[:, ::-1]):
        expected = ((view.astype(np.float32) - 128) / 64).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(normalize_pixels(view, how).numpy(), expected)


def test_zip_bomb_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(200 << 20))
    assert (tmp_path / "a.pth").stat().st_size < 1 << 20
    with pytest.raises(WeightsError, match="expected at most 150994944 bytes unpacked, got 209715200"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"not a pickle", b"PK\3\4" + bytes(60), b"PK\5\6" + bytes(18)])
def test_broken_torch_files_are_refused(tmp_path, data):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(WeightsError, match="cannot be read as one"):
        load_model(tmp_path / "a.pth")


def test_run_folder_gives_its_best_weights_else_the_last(tmp_path):
    last, best = small_model(seed=1), small_model(seed=2)
    save_safetensors(last, tmp_path / "last.safetensors")
    check_same_weights(load_model(tmp_path), last)
    save_safetensors(best, tmp_path / "best.safetensors")
    check_same_weights(load_model(str(tmp_path)), best)


def test_load_model_changes_the_head_only_for_other_classes(tmp_path):
    model = small_model()
    model.labels = Labels(("a", "b", "c"))
    save_safetensors(model, tmp_path / "a.safetensors")
    check_same_weights(load_model(tmp_path / "a.safetensors", num_classes=3), model)
    other = load_model(tmp_path / "a.safetensors", num_classes=10)
    assert (other.spec.num_classes, other.spec.head_relu, other.labels) == (10, False, None)


def test_compressed_file_is_loaded_for_training(tmp_path):
    write_sqz(tmp_path / "a.sqz", SqzFile(network=random_network(tiny_spec())))
    model = load_model(tmp_path / "a.sqz")
    assert model.spec == tiny_spec()
    assert model.training
    assert load_model(tmp_path / "a.sqz", num_classes=2).spec.num_classes == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "there is no MODEL 'no_such_thing': a MODEL is a .sqz"),
        ("squeezenet1_2", "squeezenet1_2: no such file or folder; .*squeezenet1_0, squeezenet1_1"),
        ("a.onnx", "a.onnx: no such file"),
        ("absent.safetensors", "no such file or folder"),
        ("absent.sqz", "no such file or folder"),
        ("absent.net", "no such file or folder"),
        ("\0.net", "no such file or folder"),
        ("folder", "expected a run folder with best.safetensors or last.safetensors"),
        ("folder.safetensors", "expected a run folder with"),
        ("fifo.net", "got a folder or a device"),
        ("fifo.sqz", "got a folder or a device"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, source, message):

    for folder in ("folder", "folder.safetensors"):
        (tmp_path / folder).mkdir()
    for fifo in ("fifo.net", "fifo.sqz"):
        os.mkfifo(tmp_path / fifo)
    with pytest.raises(ModelNotFoundError, match=message):
        load_model(tmp_path / source if source else "no_such_thing")


def test_state_of_a_hostile_torch_file_without_values_is_refused():
    state = small_model().state_dict()
    state["features.0.bias"] = torch.zeros(64, device="meta")
    with pytest.raises(WeightsError, match="features.0.bias: expected a dense tensor with values"):
        model_from_state(named_spec("squeezenet1_1", num_classes=3), state)
