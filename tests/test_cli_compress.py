"""`squeezenet compress`: files and reports, refusals before the work begins, nothing left behind after a failure."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import squeezenet
from image_files import write_tree
from networks import tiny_spec
from squeezenet import Classifier, open_data, read_sqz
from squeezenet.cli import cli
from squeezenet.cli.compress import _FIELDS, _METHODS
from squeezenet.compression.methods import METHODS, RateDistortion
from squeezenet.errors import SqueezeNetError
from squeezenet.evaluation.predictor import collect_logits, match_classes
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, save_safetensors
from squeezenet.preprocess import Preprocessing
from squeezenet.unknown import fit_unknown


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(num_classes=10, input_size=8, pools=(), head_relu=False, batch_norm=True))
    model.labels = Labels(tuple("0123456789"))
    model.preprocessing = Preprocessing(crop_size=8, resize_size=8)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_safetensors(model, path)
    return path


def run(*arguments):
    return CliRunner().invoke(cli, ["compress", *map(str, arguments)])


def test_int8_writes_a_file_and_a_report_that_agree(model, tmp_path):
    file = tmp_path / "tiny.sqz"
    result = run(model, "-o", file, "--preset", "int8", "--calibration", "digits", "--photos", 50, "--val", "digits")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "tiny.sqz.report.json").read_text())
    assert report["file_bytes"] == file.stat().st_size
    assert report["params"] == sum(op.params for op in tiny_spec(num_classes=10).convs)
    assert report["fidelity"]["n_images"] == 10
    assert report["fidelity"]["kl"] < 0.01
    assert report["accuracy"]["compressed"]["n_images"] == 355
    assert report["is_data_free"] is False
    assert f"{file}: {report['file_bytes']:,} bytes" in result.stdout
    assert Classifier(file).labels.names == tuple("0123456789")
    assert read_sqz(file).facts["provenance"]["compressed"] == {"preset": "int8"}


def test_without_photos_the_report_says_that_it_is_data_free(model, tmp_path):
    result = run(model, "-o", tmp_path / "a.sqz", "--preset", "int8", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["is_data_free"] is True
    assert report["fidelity"] is None
    assert report["calibration"] == "synthetic pictures"
    assert "no calibration photos: using synthetic pictures" in result.stderr
    facts = read_sqz(tmp_path / "a.sqz").facts
    assert facts["provenance"]["compressed"] == {"preset": "int8", "calibration": "synthetic pictures"}


@pytest.mark.parametrize(("own", "n_left"), [((), 1432), (("--calibration", "digits"), 1442)])
def test_photos_of_the_data_that_judge_are_not_trained_on(model, tmp_path, monkeypatch, own, n_left):
    """Without --calibration, photos of --data calibrate, and a fifth of the 50 is set aside."""
    given = []

    def stop(self, job):
        given.append(job.data)
        raise SqueezeNetError("enough")

    monkeypatch.setattr(RateDistortion, "run", stop)
    options = ("--photos", 50, "--data", "digits", "--epochs", 1, "--max-bytes", 4000)
    assert run(model, "-o", tmp_path / "a.sqz", *own, *options).exit_code == 1
    assert len(given[0]) == n_left


def test_rate_distortion_meets_a_budget_of_bytes(model, tmp_path):
    file = tmp_path / "a.sqz"
    whole = tmp_path / "whole.sqz"
    assert run(model, "-o", whole, "--preset", "int8", "--calibration", "digits").exit_code == 0
    budget = int(0.7 * whole.stat().st_size)
    result = run(model, "-o", file, "--calibration", "digits", "--photos", 60, "--max-bytes", budget)
    assert result.exit_code == 0, result.output
    assert file.stat().st_size <= budget
    report = json.loads((tmp_path / "a.sqz.report.json").read_text())
    assert report["meets_target"] is True
    assert min(point["file_bytes"] for point in report["points"]) <= budget


def test_budget_that_cannot_be_met_gives_the_nearest_file_and_exit_code_3(model, tmp_path):
    file = tmp_path / "a.sqz"
    result = run(model, "-o", file, "--calibration", "digits", "--photos", 60, "--max-bytes", 100)
    assert result.exit_code == 3, result.output
    assert "the budget was not met" in result.stderr
    assert file.stat().st_size > 100


def test_labelled_images_train_under_the_budget(model, tmp_path):
    file = tmp_path / "a.sqz"
    result = run(
        model, "-o", file, "--calibration", "digits", "--photos", 60, "--max-bytes", 4000, "--data", "digits",
        "--epochs", 1, "--val", "digits",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert file.stat().st_size <= 4000
    report = json.loads((tmp_path / "a.sqz.report.json").read_text())
    assert "distil" in {point["stage"] for point in report["points"]}
    accuracy = report["accuracy"]
    lost = accuracy["float"]["top1_correct"] - accuracy["compressed"]["top1_correct"]
    assert sum(row["float_correct"] - row["compressed_correct"] for row in accuracy["classes"]) == lost
    assert (tmp_path / "a.sqz.report.svg").read_bytes().startswith(b"<?xml")
    # The rule for "unknown" is made of the images trained on; those of --val set its threshold.
    classifier, images = Classifier(file), open_data("digits", split="train")
    scores = collect_logits(classifier, match_classes(classifier, images))
    made = fit_unknown(scores.features, scores.labels)
    np.testing.assert_array_equal(classifier.contents.unknown.vectors, made.rule.vectors)
    judged = collect_logits(classifier, match_classes(classifier, open_data("digits", split="val")))
    right = judged.logits.argmax(axis=1) == judged.labels
    assert 94 < 100 * (~classifier.contents.unknown.is_unknown(judged.features[right])).mean() < 98


def test_smallest_file_that_loses_few_enough_points(model, tmp_path):
    loose, tight = tmp_path / "loose.sqz", tmp_path / "tight.sqz"
    common = ("--calibration", "digits", "--photos", 60, "--val", "digits")
    assert run(model, "-o", loose, *common, "--max-drop", 50).exit_code == 0
    assert run(model, "-o", tight, *common, "--max-drop", 0.5).exit_code == 0
    report = json.loads((tmp_path / "tight.sqz.report.json").read_text())
    assert report["accuracy"]["points_lost"] <= 0.5
    assert report["is_chosen_on_val"] is True
    assert loose.stat().st_size < tight.stat().st_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-bytes", 9, "--max-kl", 1), "expected one budget, got --max-bytes and --max-kl"),
        (("--max-bytes", 9, "--max-drop", 1, "--val", "digits"), "expected one budget, got --max-bytes and --max-drop"),
        (("--max-drop", 1), "--max-drop is measured on labelled images: expected --val, got none"),
        (("--polish", 1, "--data", "digits"), "use --epochs"),
    ],
)
def test_options_that_contradict_each_other_are_refused_at_once(model, tmp_path, options, message):
    result = run(model, "-o", tmp_path / "a.sqz", *options)
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_deep_compression_needs_labelled_images(model, tmp_path):
    result = run(model, "-o", tmp_path / "a.sqz", "--preset", "deep-compression")
    assert result.exit_code == 2
    assert "deep-compression retrains on labelled images: expected --data, got none" in result.stderr


def test_two_budgets_exclude_each_other(model, tmp_path):
    result = run(model, "-o", tmp_path / "a.sqz", "--max-bytes", 1000, "--max-kl", 0.1)
    assert result.exit_code == 2
    assert "expected one budget, got --max-bytes and --max-kl" in result.stderr


def test_missing_output_folder_is_refused_before_the_work(model, tmp_path):
    result = run(model, "-o", tmp_path / "nowhere/a.sqz", "--preset", "int8")
    assert result.exit_code == 2
    assert "expected a folder to write to" in result.stderr


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_output_that_is_no_file_is_refused_before_the_work(model, tmp_path, kind):
    output = tmp_path / "there" if kind == "folder" else "/dev/null"
    (tmp_path / "there").mkdir()
    result = run(model, "-o", output, "--calibration", tmp_path / "no-photos")
    assert result.exit_code == 2
    assert "expected a file to write, got a folder or a device" in result.stderr


def test_failure_leaves_nothing_behind(model, tmp_path):
    result = run(model, "-o", tmp_path / "a.sqz", "--calibration", tmp_path / "no-photos")
    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("int8", ("--max-bytes", 1000), "--max-bytes applies to --method rate-distortion, not to int8"),
        ("int8", ("--polish", 1), "--polish applies to --method rate-distortion, not to int8"),
        ("int8", ("--epochs", 1), "--epochs applies to --method rate-distortion or deep-compression, not to int8"),
        ("int8", ("--data", "digits"), "int8 does not train: expected no --data or --unlabelled"),
        ("deep-compression", ("--max-kl", 1, "--data", "digits"), "--max-kl applies to --method rate-distortion"),
        ("rate-distortion", ("--density", 0.5), "--density applies to --method deep-compression"),
    ],
)
def test_options_of_another_method_are_refused(model, tmp_path, method, options, message):
    result = run(model, "-o", tmp_path / "a.sqz", "--method", method, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_options_are_fields_of_the_methods_and_show_their_defaults():
    """The command must not import torch to know them."""
    shown = {option.name: option.default for option in cli.get_command(None, "compress").params}
    for option, fields in _FIELDS.items():
        for method, field in fields.items():
            has_number = isinstance(shown[option], (int, float))
            assert not has_number or shown[option] == getattr(METHODS[method], field), option
    assert tuple(METHODS) == _METHODS


def test_two_methods_in_one_call_are_python_too(model, tmp_path):
    result = squeezenet.compress(model, method=squeezenet.Int8(), calibration="digits", n_photos=50, progress=False)
    assert list(tmp_path.iterdir()) == []
    result.write(tmp_path / "a.sqz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sqz", "a.sqz.report.json"]
    assert (tmp_path / "a.sqz").read_bytes() == result.encoded
    assert "KL to the float network" in result._repr_html_()
    assert squeezenet.describe(tmp_path / "a.sqz").file.file_bytes == result.file_bytes


def test_photos_that_are_left_out_are_named(model, tmp_path):
    photos = write_tree(tmp_path / "photos", [f"{number}.png" for number in range(9)] + ["notes.txt", "@eaDir/1.png"])
    (photos / "broken.png").write_bytes(b"text")
    result = run(model, "-o", tmp_path / "a.sqz", "--preset", "int8", "--calibration", photos)
    assert result.exit_code == 0, result.output
    assert f"ignored (2): {photos}/@eaDir (of a photo server); {photos}/notes.txt (not an image)" in result.stderr
    assert f"unreadable, skipped (1): {photos}/broken.png (expected an image" in result.stderr
