"""Torch files as people have them, read without torch and without running what is in them."""

import argparse
import collections
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from commands import run
from imported import check_same_convs, check_same_logits, images_for, random_model, torch_logits, variant
from squeezenet import create_model, import_weights, load_safetensors, named_spec
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign
from squeezenet.models import model_from_foreign


@pytest.fixture(scope="module")
def model():
    return random_model(named_spec("squeezenet1_1", num_classes=3))


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def pruned(model):
    """As torch's pruning leaves a layer: the weight and a mask."""
    state = dict(model.state_dict())
    weight = state.pop("features.0.weight")
    state["features.0.weight_orig"], state["features.0.weight_mask"] = weight, torch.ones_like(weight)
    return state


class Lit:
    """A class of the user's, as Lightning keeps some in checkpoints."""

    def __init__(self, value=3):
        self.value = value


FORMS = {
    "plain": lambda model: model.state_dict(),
    "whole module": lambda model: model,
    "module of parallel training": lambda model: torch.nn.DataParallel(model),
    "compiled": lambda model: prefixed(model.state_dict(), "_orig_mod."),
    "compiled and parallel": lambda model: prefixed(model.state_dict(), "_orig_mod.module."),
    "Lightning": lambda model: {
        "epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.5.0", "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": prefixed(model.state_dict(), "model.") | {"criterion.weight": torch.ones(3)},
        "callbacks": {"checkpoint": {"best": Lit(), "path": "x.ckpt"}}, "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "scheduler": collections.defaultdict(list), "args": argparse.Namespace(a=1)},
        "optimizer_states": [torch.optim.SGD(model.parameters(), 0.1, 0.9).state_dict()],
    },
    "timm": lambda model: {"arch": "squeezenet", "state_dict": model.state_dict(), "state_dict_ema": {}, "version": 2},
    "ema only": lambda model: {"state_dict_ema": prefixed(model.state_dict(), "module."), "args": Lit()},
    "averaged": lambda model: prefixed(model.state_dict(), "module.") | {"n_averaged": torch.tensor(3)},
    "pruned": pruned,
    "with a teacher": lambda model: prefixed(model.state_dict(), "model.") | prefixed(model.state_dict(), "teacher."),
    "channels last": lambda model: {
        name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in model.state_dict().items()
    },
    "views of one storage": lambda model: views(model.state_dict()),
    "parameters": lambda model: dict(model.named_parameters()),
    "double": lambda model: {name: tensor.double() for name, tensor in model.state_dict().items()},
}  # fmt: skip


def views(state):
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    parts = flat.split([tensor.numel() for tensor in state.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(state.items(), parts, strict=True)}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_exactly(tmp_path, model, form, is_zip):
    torch.save(FORMS[form](model), tmp_path / "a.ckpt", _use_new_zipfile_serialization=is_zip)
    foreign = read_foreign(tmp_path / "a.ckpt")
    assert (foreign.spec, foreign.format, foreign.names) == (model.spec, "torch", "torchvision")
    check_same_convs(foreign, model)
    images = images_for(model.spec, 1)
    check_same_logits(torch_logits(model_from_foreign(foreign), images), torch_logits(model, images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, model, dtype):
    half = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    torch.save(half, tmp_path / "a.pth")
    foreign = read_foreign(tmp_path / "a.pth")
    for name, conv in foreign.convs.items():
        expected = half[f"{model.conv_paths[name]}.weight"].float().numpy()
        np.testing.assert_array_equal(conv.weight, expected)


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1_complex_bypass"])
def test_architecture_follows_from_names_and_shapes(tmp_path, name):
    expected = random_model(named_spec(name, num_classes=4))
    torch.save(expected.state_dict(), tmp_path / "a.pth")
    foreign = read_foreign(tmp_path / "a.pth")
    assert foreign.spec == expected.spec
    check_same_convs(foreign, expected)


def test_widths_are_those_of_the_file(tmp_path):
    expected = random_model(variant(fires=variant().fires * 3, pools=(1, 3, 5), input_size=224))
    torch.save(expected.state_dict(), tmp_path / "a.pth")
    foreign = read_foreign(tmp_path / "a.pth")
    assert foreign.spec == expected.spec
    check_same_convs(foreign, expected)


def test_simple_bypass_has_to_be_said(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert import_weights(tmp_path / "a.pth").model.spec.name == "squeezenet1_1"
    assert import_weights(tmp_path / "a.pth", bypass="simple").model.spec.name == "squeezenet1_1_simple_bypass"


@pytest.mark.parametrize("name", ["squeezenet_v1_0", "squeezenet_v1_1", "squeezeresnet_v1_0", "squeezeresnet_v1_1"])
def test_networks_of_pytorchcv_are_read(tmp_path, name):
    pytorchcv = pytest.importorskip("pytorchcv.models.squeezenet")

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(pytorchcv, name)().eval()
    torch.save(expected.state_dict(), tmp_path / f"{name}-0000.pth")
    foreign = read_foreign(tmp_path / f"{name}-0000.pth")
    version = "1_0" if name.endswith("1_0") else "1_1"
    assert foreign.spec.name == f"squeezenet{version}" + ("_simple_bypass" if "resnet" in name else "")
    assert (foreign.names, foreign.convention.name) == ("pytorchcv", "torchvision")
    images = images_for(foreign.spec, 1)
    check_same_logits(torch_logits(model_from_foreign(foreign), images), torch_logits(expected, images))


ORDERS = {
    "network": lambda names: names,
    "sorted": sorted,
    "head second": lambda names: [*names[:2], *names[-2:], *names[2:-2]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_other_names_are_matched_by_shapes_in_any_order(tmp_path, model, order):
    tensors = {}
    for layer, path in model.conv_paths.items():
        for part in ("weight", "bias"):
            tensors[f"net.{layer.replace('.', '/')}.{part}"] = model.state_dict()[f"{path}.{part}"]
    torch.save({name: tensors[name] for name in ORDERS[order]([*tensors])}, tmp_path / "a.pth")
    foreign = read_foreign(tmp_path / "a.pth")
    assert (foreign.spec, foreign.names, foreign.convention_from) == (model.spec, "shapes", "a guess")
    check_same_convs(foreign, model)


def changed(**tensors):
    return lambda state: {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


DIFFERENT = {
    "batch norm": (
        changed(features__0__norm__weight=torch.ones(64)),
        "expected convolutions only, got features.0.norm",
    ),
    "missing": (
        lambda state: {name: tensor for name, tensor in state.items() if "features.4.squeeze" not in name},
        "this is not a SqueezeNet: expected the convolution",
    ),
    "shape": (changed(features__4__squeeze__weight=torch.zeros(16, 127, 1, 1)), "fire3.squeeze: expected weights of"),
    "bias": (changed(features__4__squeeze__bias=torch.zeros(17)), "fire3.squeeze: expected a bias of"),
    "gap": (
        lambda state: {name.replace("s.4.", "s.40."): tensor for name, tensor in state.items()},
        "expected a Fire module at features.4, got features.6",
    ),
    "grey": (changed(features__0__weight=torch.zeros(64, 1, 3, 3)), "expected a first convolution of three channels"),
    "NaN": (changed(features__0__bias=torch.full((64,), torch.nan)), "conv1: expected finite numbers"),
    "integers": (changed(features__0__bias=torch.zeros(64, dtype=torch.int64)), "conv1: expected floats, got"),
    "two heads": (changed(classifier__3__weight=torch.zeros(3, 3, 1, 1)), "expected one layer with weights in"),
    "stem of 5x5": (changed(features__0__weight=torch.zeros(64, 3, 5, 5)), "stride and size are not known"),
}


@pytest.mark.parametrize("difference", DIFFERENT)
def test_other_networks_are_told_where_they_differ(tmp_path, model, difference):
    change, message = DIFFERENT[difference]
    torch.save(change(dict(model.state_dict())), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        read_foreign(tmp_path / "a.pth")
    assert str(caught.value).startswith(str(tmp_path / "a.pth: "))
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_weights_beside_hostile_code_are_read_and_the_code_is_not_run(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": model.state_dict(), "callbacks": Payload()}, tmp_path / "a.ckpt")
    check_same_convs(read_foreign(tmp_path / "a.ckpt"), model)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_reading_needs_no_torch(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "a.pth")
    code = (
        "import sys; from squeezenet.imports import read_foreign; print(read_foreign(sys.argv[1]).spec.name);"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "a.pth"], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("squeezenet1_1\n", "")


def test_command_says_what_was_found(tmp_path):
    model = create_model("squeezenet1_1", num_classes=3)
    torch.save(FORMS["Lightning"](model), tmp_path / "a.ckpt")
    result = run("import", tmp_path / "a.ckpt", "-o", tmp_path / "a.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:3] == [
        "format: torch, tensor names: torchvision",
        "notes: those under `state_dict`, without the prefix `model.`, without 1 others such as `criterion.weight`",
    ]
    assert torch.equal(load_safetensors(tmp_path / "a.safetensors").head.weight, model.head.weight)
