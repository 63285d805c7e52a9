"""Measuring on photos that were trained on is said, and where some were set aside, these are measured."""

import json
import shutil
import zipfile

import pytest

from commands import run
from squeezenet import compress, evaluate
from squeezenet.compression.methods import Int8
from squeezenet.data import open_data
from squeezenet.data.holdout import known_part, moved_with_groups, training_mark
from squeezenet.models import load_safetensors
from training_runs import TINY, train, write_images


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty images of each class, three of which are set aside."""
    return write_images(tmp_path_factory.mktemp("set") / "photos", per_class=30)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    return train(photos, tmp_path_factory.mktemp("runs") / "run", TINY.replace(epochs=1, warmup_epochs=0.0))


@pytest.fixture(scope="module")
def file(trained, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "net.sqz"
    compress(trained.run_dir, path, method=Int8(), calibration=photos, progress=False)
    return path


SAID = "trained on 81 of these 90 images: only the 9 held-out ones are measured"


@pytest.mark.parametrize("kind", ["run", "best", "last", "sqz"])
def test_images_that_were_set_aside_are_measured(trained, file, photos, kind):
    model = {"run": trained.run_dir, "best": trained.best, "last": trained.last, "sqz": file}[kind]
    result = evaluate(model, photos)
    assert result.note == SAID
    assert result.accuracy.n_images == 9
    assert not result.is_of_trained_images
    held = {item.name for item in open_data(photos).split_holdout(0.1)[1].items}
    assert {item.name for item in result.images.items} == held


def test_run_folder_s_accuracy_is_measured_again(trained, photos):
    assert evaluate(trained.best, photos).accuracy.top1 == trained.top1


def test_trained_part_can_be_asked_for(trained, photos):
    result = evaluate(trained.best, photos, split="train")
    assert (result.accuracy.n_images, result.is_of_trained_images, result.note) == (81, True, None)


def test_the_same_images_are_recognised_wherever_they_lie(trained, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "elsewhere")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, f"wrapper/{path.relative_to(photos)}")
    for there in (tmp_path / "elsewhere", tmp_path / "photos.zip", open_data(photos)):
        assert evaluate(trained.best, there).note == SAID


def test_other_images_of_the_same_names_are_measured_whole(trained, tmp_path):
    result = evaluate(trained.best, write_images(tmp_path / "photos", per_class=30, seed=9))
    assert (result.accuracy.n_images, result.note) == (90, None)


def test_very_images_trained_on_are_named(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "set/train")
    write_images(tmp_path / "set/val", per_class=4, seed=5)
    run_ = train(tmp_path / "set", tmp_path / "run", TINY.replace(epochs=1, warmup_epochs=0.0))
    other = evaluate(run_.best, tmp_path / "set")
    assert (other.is_of_trained_images, other.note) == (False, None)
    result = evaluate(run_.best, tmp_path / "set/train")
    assert result.accuracy.n_images == 90
    assert result.is_of_trained_images
    assert result.note == "WARNING: the network was trained on these images, so this accuracy is meaningless"


def test_weights_that_began_as_weights_know_both_sets(trained, photos, tmp_path):
    other = write_images(tmp_path / "other", per_class=8, seed=7)
    tuned = train(other, tmp_path / "run", TINY.replace(epochs=1, warmup_epochs=0.0), init=trained.best)
    assert evaluate(tuned.best, photos).note == SAID
    assert evaluate(tuned.best, other).accuracy.n_images == 3


def test_commands_say_it(trained, file, photos):
    shown = run("evaluate", trained.run_dir, photos)
    assert shown.stderr == f"{SAID}\n"
    assert "of 9;" in shown.stdout
    facts = json.loads(run("evaluate", file, photos, "--json").stdout)
    assert (facts["note"], facts["n_images"]) == (SAID, 9)


def test_compress_measures_and_chooses_on_what_was_set_aside(trained, photos, tmp_path):
    shown = run(
        "compress", trained.run_dir, "-o", tmp_path / "n.sqz", "--preset", "int8", "--calibration", photos,
        "--val", photos,
    )  # fmt: skip
    assert shown.exit_code == 0, shown.output
    assert f"--val: {SAID}" in shown.stderr
    assert json.loads((tmp_path / "n.sqz.report.json").read_text())["accuracy"]["compressed"]["n_images"] == 9


def test_mark_is_small_and_in_the_files(trained, photos):
    mark = training_mark(open_data(photos).split_holdout(0.1)[0])
    assert mark.startswith("81-")
    assert len(mark) == 19
    assert load_safetensors(trained.best).provenance["trained_on"] == mark
    assert json.loads((trained.run_dir / "run.json").read_text())["trained_on"] == mark


@pytest.mark.parametrize("provenance", [None, 7, [], {"trained_on": 3}, {"init": {"init": None}}, {"trained_on": "81"}])
def test_provenance_of_any_kind_is_no_error(photos, provenance):
    images = open_data(photos)
    assert known_part(images, provenance) == (images, 0, 0)


def test_file_that_is_gone_is_no_error(trained, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    images = open_data(tmp_path / "photos")
    for path in list((tmp_path / "photos").rglob("0*.png")):
        path.unlink()
    assert known_part(images, load_safetensors(trained.best).provenance) == (images, 0, 0)


def test_explored_networks_know_what_they_were_trained_on(photos, tmp_path):
    pytest.importorskip("optuna")
    from squeezenet.exploration import Space, explore

    space = Space.from_dict({"fixed": {"base_e": 8, "incr_e": 8, "n_fires": 2}, "space": {"squeeze_ratio": [0.5]}})
    result = explore(
        photos, study_dir=tmp_path / "s", space=space, recipe=TINY.replace(pools=(1,)), epochs=1, trials=1,
        retrain=False, progress=False,
    )  # fmt: skip
    folder = tmp_path / "s/trials" / result.findings[0].folder
    assert evaluate(folder / "net.sqz", photos).note == SAID


def test_pictures_of_one_group_are_not_divided(photos):
    images = open_data(photos)
    held = sorted(images.holdout(0.1))
    others = [i for i in range(len(images)) if i not in held and images.labels[i] == images.labels[held[0]]]
    assert moved_with_groups(images, []) == moved_with_groups(images, [held[:1]]) == []
    assert moved_with_groups(images, [[held[0], others[0]]]) == [held[0]]  # undecided: to training
    assert moved_with_groups(images, [[held[0], held[1], others[0]]]) == [others[0]]
    every = [i for i, label in enumerate(images.labels) if label == images.labels[held[0]]]
    assert moved_with_groups(images, [every]) == []  # something has to be left to validate on
    moved = [held[0], others[0]]
    rest, aside = images.split_holdout(0.1, moved=moved)
    assert images.items[others[0]] in aside.items
    assert images.items[held[0]] in rest.items
    mark = training_mark(rest, moved)
    assert known_part(images, {"trained_on": mark}).images.items == aside.items
    assert known_part(images, {"trained_on": mark}, is_trained=True).images.items == rest.items


def test_marks_of_any_kind_are_no_error(photos):
    images = open_data(photos)
    for mark in ("9-0+999999", "9-0+x,-1,,5", "+", f"{len(images)}-0+1", "9-0+" + "1" * 5000):
        assert known_part(images, {"trained_on": mark}) == (images, 0, 0)
