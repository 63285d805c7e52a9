"""Preprocessing by labelled photos: of a network whose answers are known, the one that it was made with is found."""

import numpy as np
import pytest
import torch
from PIL import Image

from commands import run
from imported import random_model, variant
from squeezenet import Labels, import_weights, load_safetensors
from squeezenet.errors import DataError, WeightsError
from squeezenet.evaluation.predictor import FloatPredictor
from squeezenet.imports import CONVENTIONS, read_foreign
from squeezenet.models import model_from_foreign
from test_imports_caffe import caffemodel
from test_imports_onnx import exported_by_torch

NAMES = ("ant", "bee", "cat")


def photos():
    """Pictures of all colours; a network that is wrong about channels or scales answers otherwise."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        patches = rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)
        yield Image.fromarray(patches).resize((80, 60), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module", params=["torchvision", "caffe", "0-to-1", "-1-to-1-bgr"])
def place(request, tmp_path_factory):
    """A network trained with a convention, as an ONNX file with names that say nothing, and photos that it knows."""
    folder = tmp_path_factory.mktemp("check")
    convention = CONVENTIONS[request.param]
    model = random_model(variant(num_classes=3, head_relu=False))
    exported_by_torch(torch.nn.Sequential(model).requires_grad_(False), folder / "net.onnx", size=47)
    pixels = list(photos())

    def predictor():
        return FloatPredictor(model_from_foreign(read_foreign(folder / "net.onnx"), convention))

    how = predictor().preprocessing
    logits = predictor().logits(np.stack([how(photo) for photo in pixels]))
    with torch.no_grad():  # each class becomes the answer to some photos
        model.head.bias -= torch.from_numpy(logits.mean(0)).float()
        model.head.weight /= float(logits.std())
        model.head.bias /= float(logits.std())
    exported_by_torch(torch.nn.Sequential(model), folder / "net.onnx", size=47)
    answers = predictor().logits(np.stack([how(photo) for photo in pixels])).argmax(1)
    for number, (photo, answer) in enumerate(zip(pixels, answers, strict=True)):
        (folder / "photos" / NAMES[answer]).mkdir(parents=True, exist_ok=True)
        photo.save(folder / "photos" / NAMES[answer] / f"{number}.png")
    assert len(list((folder / "photos").iterdir())) == 3
    (folder / "names.txt").write_text("\n".join(NAMES))
    return folder, request.param, model


def test_right_convention_is_found(place):
    folder, name, _ = place
    found = import_weights(folder / "net.onnx", check=folder / "photos", labels=Labels(NAMES))
    assert found.trials[0].convention == name
    assert found.trials[0].accuracy.top1 == 100
    assert found.trials[1].accuracy.top1 < 100
    assert len(found.trials) == len(CONVENTIONS)
    assert found.model.preprocessing == found.trials[0].preprocessing == CONVENTIONS[name].at(47)
    assert found.preprocessing_from == "the best of 10 on 60 photos"
    assert "100.0 %" in found._repr_html_()


def test_command_prints_each_and_stores_the_best(place):
    folder, name, model = place
    result = run(
        "import", folder / "net.onnx", "-o", folder / "net.safetensors", "--labels", folder / "names.txt",
        "--check", folder / "photos",
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[2].split() == [name, "100.0", "%", "60", "of", "60"]
    assert len(lines) == 3 + len(CONVENTIONS)
    assert lines[-1].startswith("preprocessing: the best of 10 on 60 photos (resize ")
    stored = load_safetensors(folder / "net.safetensors")
    assert (stored.labels.names, stored.preprocessing) == (NAMES, CONVENTIONS[name].at(47))
    weight = model.convs["conv1"].weight
    assert torch.equal(stored.convs["conv1"].weight, weight.flip(1) if CONVENTIONS[name].is_bgr else weight)


def test_fewer_photos_can_be_asked_for(place):
    folder, _, _ = place
    found = import_weights(folder / "net.onnx", check=folder / "photos", labels=Labels(NAMES), n_photos=10)
    assert found.trials[0].accuracy.n_images == 10


def test_without_photos_the_guess_is_said_to_be_one(tmp_path):
    model = random_model(variant(num_classes=3))
    path = exported_by_torch(torch.nn.Sequential(model), tmp_path / "net.onnx", size=47)
    path.write_bytes(path.read_bytes().replace(b"features", b"blocks__"))  # nobody's names
    result = run("import", tmp_path / "net.onnx", "-o", tmp_path / "net.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "preprocessing: torchvision's, a guess: verify it with --check PHOTOS (" in result.stdout
    used = run("evaluate", path, tmp_path)
    message = "its preprocessing is torchvision's, a guess: verify it with `squeezenet import --check PHOTOS`"
    assert used.stderr.splitlines()[0] == f"{path}: {message}"


def test_what_cannot_be_checked_is_one_error(place, tmp_path):
    folder, _, _ = place
    with pytest.raises(DataError, match="expected a model with class names"):
        import_weights(folder / "net.onnx", check=folder / "photos")
    with pytest.raises(WeightsError, match="expected 3 labels, got 2"):
        import_weights(folder / "net.onnx", labels=Labels(("a", "b")))
    with pytest.raises(DataError):
        import_weights(folder / "net.onnx", check=tmp_path, labels=Labels(NAMES))


def test_known_convention_wins_where_photos_cannot_tell(tmp_path):
    """A network that always gives one answer fits every convention equally."""
    model = random_model(variant(num_classes=3, head_relu=False))
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(model))
    for number, photo in enumerate(photos()):
        if number < 4:
            (tmp_path / "photos" / NAMES[number % 2]).mkdir(parents=True, exist_ok=True)
            photo.save(tmp_path / "photos" / NAMES[number % 2] / f"{number}.png")
    found = import_weights(tmp_path / "net.caffemodel", check=tmp_path / "photos", labels=Labels(NAMES))
    assert found.trials[0].convention == "caffe"
