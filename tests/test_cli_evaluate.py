import json
import zipfile

import pytest

from commands import run
from image_files import encode, photo, png
from networks import random_network, tiny_spec
from squeezenet import Classifier
from squeezenet.evaluation.metrics import wilson_interval
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def write_model(path, **changes):
    settings = {
        "network": random_network(tiny_spec(input_size=32, num_classes=7)),
        "labels": Labels(NAMES),
        "preprocessing": Preprocessing(crop_size=32, resize_size=32),
    }
    write_sqz(path, SqzFile(**{**settings, **changes}))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.sqz")


@pytest.fixture
def data(tmp_path, model):
    """Three photos in the folder of the class that the model sees in them, one in another."""
    classifier = Classifier(model)
    for number in range(4):
        image = photo(33 + 7 * number, 40)
        best = classifier.predict(image, top=7)[0]
        folder = tmp_path / "data" / (best[0] if number else best[6]).label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode(image))
    return tmp_path / "data"


def test_accuracy_is_shown_with_its_interval_and_n(model, data):
    result = run("evaluate", model, data)
    assert (result.exit_code, result.stderr) == (0, "")
    low, high = wilson_interval(3, 4)
    lines = result.stdout.splitlines()
    for line, name in zip(lines[:2], ("top1", "top5"), strict=True):
        assert line == f"{name}   75.00 %  (3 of 4; 95 % interval {low:.2f} to {high:.2f})"
    assert lines[2].endswith(" ms per image, including reading and decoding")
    assert len(lines) == 3


def test_json_has_the_project_s_words(model, data):
    facts = json.loads(run("evaluate", model, data, "--json").stdout)
    assert list(facts) == [
        "model", "data", "n_images", "top1_correct", "top5_correct", "top1", "top5", "top1_interval", "top5_interval",
        "n_unreadable", "ms_per_image",
    ]  # fmt: skip
    assert (facts["n_images"], facts["top1"], facts["top5"], facts["n_unreadable"]) == (4, 75.0, 75.0, 0)
    assert facts["top1_interval"] == pytest.approx(wilson_interval(3, 4))
    assert (facts["top1_correct"], facts["top5_correct"]) == (3, 3)
    assert (facts["model"], facts["data"]) == (str(model), str(data))
    assert facts["ms_per_image"] > 0


def test_classes_are_matched_by_id_too(model, data, tmp_path):
    ids = tuple(f"n0{number}" for number in range(7))
    other = write_model(tmp_path / "ids.sqz", labels=Labels(NAMES, ids))
    for folder in list(data.iterdir()):
        folder.rename(data / ids[NAMES.index(folder.name)])
    assert json.loads(run("evaluate", other, data, "--json").stdout)["top1"] == 75.0


def test_unreadable_images_are_named_and_left_out(model, data):
    folder = next(data.iterdir())
    for number in range(7):
        (folder / f"bad{number}\x1b.png").write_bytes(png()[:40])
    result = run("evaluate", model, data)
    assert result.exit_code == 0
    assert "of 4;" in result.stdout
    skipped = result.stderr.splitlines()
    assert [line.startswith("skipped ") for line in skipped] == [True] * 6
    assert skipped[5] == "skipped 2 more unreadable images"
    assert "bad0\\x1b.png: " in skipped[0]
    assert json.loads(run("evaluate", model, data, "--json").stdout)["n_unreadable"] == 7


def test_folder_that_is_no_class_is_refused(model, data):
    next(data.iterdir()).rename(data / "unicorn")
    result = run("evaluate", model, data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: class folder 'unicorn' matches no class of the model (such as 'ant'):"
        " name folders after the model's class ids or names\n"
    )


def test_model_without_names_is_refused_even_where_numbers_would_fit(data, tmp_path):
    nameless = write_model(tmp_path / "nameless.sqz", labels=None)
    for number, folder in enumerate(list(data.iterdir())):
        folder.rename(data / str(number))
    result = run("evaluate", nameless, data)
    assert result.exit_code == 1
    assert "class folders are never matched by position" in result.stderr


def test_no_readable_image_is_an_error(model, tmp_path):
    (tmp_path / "d" / "ant").mkdir(parents=True)
    (tmp_path / "d" / "ant" / "x.png").write_bytes(b"bad")
    result = run("evaluate", model, tmp_path / "d")
    assert result.exit_code == 1
    assert "none of 1 images can be read" in result.stderr


def test_val_split_is_measured(model, data, tmp_path):
    (tmp_path / "split").mkdir()
    data.rename(tmp_path / "split" / "val")
    (tmp_path / "split" / "train" / "ant").mkdir(parents=True)
    (tmp_path / "split" / "train" / "ant" / "x.png").write_bytes(png())
    assert json.loads(run("evaluate", model, tmp_path / "split", "--json").stdout)["n_images"] == 4


def test_zip_is_measured(model, data, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in data.rglob("*.png"):
            archive.write(path, path.relative_to(data))
    assert json.loads(run("evaluate", model, tmp_path / "data.zip", "--json").stdout)["top1"] == 75.0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("evaluate",), 2, "Missing argument 'MODEL'"),
        (("evaluate", "none.sqz"), 2, "Missing argument 'DATA...'"),
        (("evaluate", "none.sqz", "x"), 1, "Error: none.sqz: no such file or folder"),
    ],
)
def test_bad_usage_is_explained(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr


def test_missing_data_is_one_line(model):
    result = run("evaluate", model, "no/such/folder")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: no/such/folder: no such file or folder")
    assert result.stderr.count("\n") == 1


def test_what_is_left_out_is_named(model, data):
    (data / "notes.txt").write_text("text")
    for options in ((), ("--json",)):
        result = run("evaluate", model, data, *options)
        assert f"ignored (1): {data}/notes.txt (not an image)" in result.stderr
