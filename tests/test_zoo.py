"""One door for MODEL: every way to write one, in every verb, and what is said about those that name nothing."""

import os
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

import squeezenet
from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet import zoo
from squeezenet.architectures import SPEC_NAMES
from squeezenet.cli import cli
from squeezenet.errors import ModelNotFoundError, SqueezeNetError
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels, imagenet_labels
from squeezenet.models import SqueezeNet, pretrained, save_safetensors
from squeezenet.preprocess import Preprocessing
from squeezenet.quantization import published

LABELS = Labels(("ant", "bee", "cat", "dog", "eel"))
PREPROCESSING = Preprocessing(crop_size=32, resize_size=32)
COMPRESSED = ("cifar10", "./own.sqz", "OWN.SQZ", "named.bin", "imagenet")
FLOATS = ("net.safetensors", "run", "last-only", "squeezenet1_1", "net.onnx")


def contents(classes=LABELS):
    spec = tiny_spec(input_size=32, num_classes=len(classes))
    return SqzFile(network=random_network(spec), labels=classes, preprocessing=PREPROCESSING)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a MODEL of every kind, among them a folder of the name of a network of the package."""
    (tmp_path / "package").mkdir()
    write_sqz(tmp_path / "package/cifar10.sqz", contents())
    monkeypatch.setattr(zoo, "bundled_models", lambda: {"cifar10": tmp_path / "package/cifar10.sqz"})
    monkeypatch.setenv("SQUEEZENET_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    write_sqz(zoo.imagenet_path(), contents(LABELS))
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(input_size=32))
    model.labels, model.preprocessing = LABELS, PREPROCESSING
    work = tmp_path / "work"
    for path in ("run", "last-only", "cifar10/ant", "photos/ant", "photos/bee"):
        (work / path).mkdir(parents=True)
    for path in ("own.sqz", "OWN.SQZ", "named.bin"):
        write_sqz(work / path, contents())
    for path in ("net.safetensors", "run/best.safetensors", "last-only/last.safetensors"):
        save_safetensors(model, work / path)
    squeezenet.export(model, work / "net.onnx")
    for number, name in enumerate(("ant", "bee")):
        (work / f"photos/{name}/a.png").write_bytes(encode(photo(40, 40 + number)))
    monkeypatch.setattr(pretrained, "create_model", lambda name, **options: model)
    monkeypatch.chdir(work)
    return work


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="squeezenet")


VERBS = {
    "predict": lambda model: ("predict", model, "photos/ant/a.png"),
    "predict -m": lambda model: ("predict", "-m", model, "photos/ant/a.png"),
    "evaluate": lambda model: ("evaluate", model, "photos"),
    "info": lambda model: ("info", model),
    "export floats": lambda model: ("export", model, "-o", "out.safetensors"),
    "compress": lambda model: ("compress", model, "-o", "out.sqz", "--method", "int8", "--calibration", "photos"),
    "train --init": lambda model: ("train", "photos", "-o", "new-run", "--epochs", "1", "--init", model),
    "bench": lambda model: ("bench", model, "--seconds", "0.1", "--json"),
    "export page": lambda model: ("export", model, "-o", "out.html"),
    "verify": lambda model: ("verify", model, "--images", "photos", "--limit", "1", "--json"),
}
NEEDS_INTEGERS = ("bench", "export page", "verify")


@pytest.fixture
def fast(monkeypatch):
    """Without what other tests cover: a whole training, and browsers, compilers and Node for `verify`."""
    from squeezenet import training
    from squeezenet.exports import verify

    def start(*sources, init, **options):
        squeezenet.load_model(init)
        raise SqueezeNetError("started")

    monkeypatch.setattr(training, "train_model", start)
    for engine in ("_run_node", "_run_chromium"):
        monkeypatch.setattr(verify, engine, lambda case, kernels: "not now")
    monkeypatch.setattr(verify, "_in_c", lambda weights: lambda case: "not now")


@pytest.mark.parametrize("model", COMPRESSED)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_compressed_model(place, fast, verb, model):
    result = run(*VERBS[verb](model))
    if verb == "train --init":
        assert result.stderr == "Error: started\n"
    else:
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("model", FLOATS)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_float_model_or_says_that_it_needs_integers(place, fast, verb, model):
    result = run(*VERBS[verb](model))
    if verb in NEEDS_INTEGERS:
        assert result.exit_code == 1
        assert result.stderr.startswith(
            f"Error: expected a .sqz file, got the float network '{model}': run `squeezenet"
        )
    elif verb == "train --init":
        assert result.stderr == "Error: started\n"
    else:
        assert result.exit_code == 0, result.output


WRONG = {
    "cifar01": "there is no MODEL 'cifar01': did you mean cifar10? A MODEL is a .sqz",
    "squeezenet1_1_simple_bypass": "there is no MODEL 'squeezenet1_1_simple_bypass': did you mean squeezenet1_1?",
    "./cifar10": "./cifar10: expected a run folder with best.safetensors or last.safetensors, got a folder without",
    "gone.sqz": "gone.sqz: no such file or folder; a MODEL is a .sqz",
    "photos/ant/a.png": "photos/ant/a.png: expected a MODEL, got another kind of file: a MODEL is a .sqz",
    "https://example.org/net.sqz": "expected a MODEL on this machine, got the URL 'https://example.org/net.sqz'",
    "run/checkpoint.pt": "run/checkpoint.pt: expected a MODEL, got a file of a run folder: use the folder, run",
}


# `info` also takes the names of architectures without published weights.
REFUSALS = [(verb, model) for verb in VERBS for model in WRONG if verb != "info" or model not in SPEC_NAMES]


@pytest.mark.parametrize(("verb", "model"), REFUSALS)
def test_every_verb_refuses_what_names_nothing_in_one_line(place, verb, model):
    (place / "run/checkpoint.pt").write_bytes(b"torch")
    result = run(*(("predict", "-m", model, "photos") if verb == "predict" else VERBS[verb](model)))
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ")
    assert WRONG[model] in result.stderr
    assert result.stderr.count("\n") == 1
    assert not {"out.sqz", "out.html", "out.safetensors", "new-run"} & set(os.listdir())


@pytest.mark.parametrize("take", [squeezenet.Classifier, squeezenet.load_model, squeezenet.open_model])
def test_python_takes_the_same_names(place, take):
    assert take("cifar10").labels == LABELS
    with pytest.raises(ModelNotFoundError, match="did you mean cifar10"):
        take("cifar01")
    with pytest.raises(FileNotFoundError):
        take("cifar01")


def test_classifier_explains_what_a_float_network_needs(place):
    with pytest.raises(ModelNotFoundError, match=r"the float network 'run': run `squeezenet compress` on it first"):
        squeezenet.Classifier("run")


def test_path_objects_are_paths_and_not_names(place):
    with pytest.raises(ModelNotFoundError, match="cifar10: expected a run folder"):
        zoo.find_model(place / "cifar10")


def test_imagenet_that_was_never_made_is_made_by_open_model_alone(place, monkeypatch):
    zoo.imagenet_path().unlink()
    with pytest.raises(ModelNotFoundError, match="imagenet is not in the cache yet"):
        squeezenet.Classifier("imagenet")
    model = SqueezeNet(tiny_spec(input_size=16, num_classes=1000))
    model.labels, model.preprocessing = imagenet_labels(), Preprocessing.plain(16)
    monkeypatch.setattr(published, "create_model", lambda name, **options: model)
    assert squeezenet.open_model("imagenet").spec.num_classes == 1000
    assert zoo.imagenet_path().is_file()


EXTRAS = [
    "torch", "scipy", "safetensors", "sklearn", "matplotlib", "rich", "kornia", "jinja2", "optuna", "ray", "pyarrow",
    "onnx", "webdataset",
]  # fmt: skip


def run_on_base_install(*arguments, cwd):
    """The command in a process in which no extra can be found, as after `pip install squeezenet`."""
    code = (
        "import importlib.machinery as m, sys\n"
        "find = m.PathFinder.find_spec\n"
        f"m.PathFinder.find_spec = lambda name, *rest: None if name in {EXTRAS} else find(name, *rest)\n"
        "from squeezenet.cli import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "digits", "-o", "run"), "train"),
        (("lr-find", "digits"), "train"),
        (("compress", "cifar10", "-o", "a.sqz", "--method", "int8"), "train"),
        (("explore", "digits", "-o", "study"), "train"),
        (("demo",), "train"),
        (("import", "a.pth", "-o", "a.safetensors"), "train"),
        (("evaluate", "squeezenet1_1", "photos"), "train"),
        (("export", "cifar10", "-o", "a.onnx"), "export"),
        (("evaluate", "cifar10", "photos", "--report", "a.html"), "report"),
        (("predict", "cifar10", "photos", "--ray", "local", "-o", "a.parquet"), "ray"),
    ],
)
def test_missing_extra_is_one_line_for_every_verb(tmp_path, arguments, extra):
    for name in ("airplane", "bird"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes(encode(photo()))
    done = run_on_base_install(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: this needs `"), done.stderr
    assert f"pip install squeezenet[{extra}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"photos", "demo"}


def test_misspelt_model_on_a_base_install_is_a_misspelt_model(tmp_path):
    done = run_on_base_install("predict", "-m", "imagenete", "photo.jpg", cwd=tmp_path)
    assert done.returncode == 1
    assert "did you mean imagenet" in done.stderr
    assert "torch" not in done.stderr


def test_folder_named_like_a_network_does_not_hide_it_on_a_base_install(tmp_path):
    (tmp_path / "imagenette").mkdir()
    (tmp_path / "photo.png").write_bytes(encode(photo()))
    done = run_on_base_install("predict", "photo.png", cwd=tmp_path)
    assert (done.returncode, done.stdout.count(" %  ")) == (0, 5), done.stderr


def test_door_opens_at_once():
    start = time.process_time()
    for _ in range(50):
        zoo.find_model("imagenette")
    assert time.process_time() - start < 0.5
