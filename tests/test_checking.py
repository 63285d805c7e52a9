"""`check` and `similar` on photos whose faults are known."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from commands import run
from squeezenet import check, open_data, similar
from squeezenet.checking.duplicates import groups_of, near_duplicates, neighbours
from squeezenet.checking.labels import leave_one_out
from squeezenet.checking.looks import look_at
from squeezenet.data.holdout import known_part
from squeezenet.progress import SilentReporter
from squeezenet.training.setup import prepare_data


def picture(seed, size=(160, 120), hue=None):
    """Smooth shapes with some texture: no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    if hue is not None:
        coarse = coarse // 4
        coarse[..., hue] += 150
    fine = rng.normal(0, 12, (30, 40, 3))
    image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.float64)
    image += np.asarray(Image.fromarray(np.clip(fine + 128, 0, 255).astype(np.uint8)).resize(size)) - 128.0
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red and blue pictures in two splits, one of each fault."""
    root = tmp_path_factory.mktemp("photos")
    for split, first, count in (("train", 0, 14), ("val", 100, 5)):
        for number in range(first, first + count):
            save(root / split / "red" / f"{number}.png", picture(number, hue=0))
            save(root / split / "blue" / f"{number}.png", picture(1000 + number, hue=2))
    save(root / "train/red/copy.jpg", picture(3, hue=0), quality=40)
    save(root / "val/red/leak.png", picture(5, hue=0).crop((10, 12, 150, 114)))
    save(root / "train/blue/brighter.png", ImageEnhance.Brightness(picture(1002, hue=2)).enhance(1.3))
    save(root / "train/blue/wrong.png", picture(77, hue=0))
    save(root / "train/blue/both.png", picture(8, hue=0))
    save(root / "train/red/plain.png", Image.new("RGB", (160, 120), (120, 10, 12)))
    soft = picture(9, (320, 240), hue=0)
    soft.paste(Image.new("RGB", (160, 240), (255, 200, 200)))
    save(root / "train/red/soft.png", soft.filter(ImageFilter.GaussianBlur(8)))
    save(root / "train/blue/wide.png", picture(55, (400, 100), hue=2))
    (root / "train/red/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    return root


@pytest.fixture(scope="module")
def found(photos):
    return check(photos)


def short(found, photos_of):
    return [{"/".join(found.names[i].split("/")[-3:]) for i in group.photos} for group in photos_of]


def test_duplicates_are_found_whatever_was_done_to_them(found):
    groups = short(found, found.duplicates)
    assert {"train/red/3.png", "train/red/copy.jpg"} in groups
    assert {"train/blue/2.png", "train/blue/brighter.png"} in groups
    assert {"train/red/5.png", "val/red/leak.png"} in groups
    assert {"train/red/8.png", "train/blue/both.png"} in groups
    assert len(groups) == 4


def test_leaks_and_contradictions_are_told_apart(found):
    assert short(found, found.leaks) == [{"train/red/5.png", "val/red/leak.png"}]
    assert short(found, found.contradictions) == [{"train/red/8.png", "train/blue/both.png"}]
    assert found.has_errors


def test_wrong_label_is_the_first_suspect(found):
    names = [found.names[suspect.photo].rsplit("/", 1)[-1] for suspect in found.suspects]
    assert set(names[:2]) == {"wrong.png", "both.png"}
    assert {suspect.looks_like for suspect in found.suspects[:2]} == {"red"}
    low, high = found.accuracy_interval
    assert low < found.accuracy < high


def test_photos_of_nothing_are_named(found):
    assert [found.names[i].rsplit("/", 1)[-1] for i in found.blank] == ["plain.png"]
    assert [found.names[i].rsplit("/", 1)[-1] for i in found.blurred] == ["soft.png"]
    assert [entry.name.rsplit("/", 1)[-1] for entry in found.unreadable] == ["broken.png"]


def test_what_the_crop_takes_away_is_counted(found):
    seen = dict(zip((name.rsplit("/", 1)[-1] for name in found.names), found.seen, strict=True))
    # A short side of 146 pixels, of which the middle 128 x 128 are seen.
    assert seen["wide.png"] == pytest.approx(128**2 / (146 * 584))
    assert seen["0.png"] == pytest.approx(128**2 / (146 * 194))
    assert found.seen_squashed == pytest.approx((128 / 146) ** 2)
    assert found.would_squash  # all of them are 4:3 or wider
    assert found.names[found.cut[0]].endswith("wide.png")


def test_command_prints_a_summary_writes_a_page_and_fails(photos, tmp_path):
    done = run("check", photos, "--report", tmp_path / "page.html")
    assert done.exit_code == 1
    for line in ("unreadable: 1", "blank: 1", "blurred: 1", "near-duplicates: 4 groups; 4 photos could be removed"):
        assert line in done.output
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 12
    assert "<script" not in page
    assert "leak.png" in page
    data = json.loads(run("check", photos, "--json").stdout)
    assert len(data["duplicates"]) == 4
    assert data["suspects"][0]["label"] == "blue"


def test_photos_that_are_not_looked_at_are_named(tmp_path):
    for name in ("a/0.png", "b/1.png", "loose.png"):
        save(tmp_path / name, picture(len(name), (120, 120)))
    done = run("check", tmp_path)
    assert "photos: 2, compared" in done.stdout
    assert re.search(r"ignored \(1\): .*loose\.png", done.stderr)


def test_photos_without_fault_pass_and_need_no_classes(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", picture(number, (120, 120)))
    done = run("check", tmp_path)
    assert done.exit_code == 0, done.output
    assert "labels" not in done.output
    save(tmp_path / "again.png", picture(2, (120, 120)))
    assert run("check", tmp_path).exit_code == 0
    assert run("check", tmp_path, "--strict").exit_code == 1


def test_one_photo_alone_is_enough(tmp_path):
    save(tmp_path / "a/1.png", picture(1))
    found = check(tmp_path)
    assert (found.duplicates, found.suspects, found.accuracy) == ((), (), None)


def test_class_of_val_that_train_lacks_is_a_finding(tmp_path):
    photos = tmp_path
    for number in range(4):
        save(photos / f"train/red/{number}.png", picture(number, hue=0))
        save(photos / f"train/blue/{number}.png", picture(9 + number, hue=2))
    save(photos / "val/red/0.png", picture(55, hue=0))
    save(photos / "val/purple/0.png", picture(77))
    found = check(photos)
    assert (found.untrained, found.has_errors) == (("purple",), True)
    done = run("check", photos)
    assert (done.exit_code, "classes of val that are missing in train (1): 'purple'" in done.output) == (1, True)
    assert json.loads(run("check", photos, "--json").stdout)["untrained"] == ["purple"]


def test_folder_without_photos_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    assert "expected images" in run("check", tmp_path).output


def test_the_nearest_photos_come_first(photos, tmp_path):
    photos = shutil.copytree(photos / "train", tmp_path / "train").parent
    shutil.copy(photos / "train/red/3.png", photos / "train/red/copy.png")
    found = similar(str(photos / "train/red/3.png"), str(photos / "train"), top=3)
    assert found[0].name.endswith("train/red/copy.png")  # not the photo itself
    assert {entry.name.split("/")[-2] for entry in found} == {"red"}
    assert found[0].cosine == 1
    assert found[0].cosine > found[1].cosine > found[2].cosine
    done = run("similar", photos / "train/red/3.png", photos / "train", "-k", 1)
    assert done.output.startswith("1.0000  ")
    assert done.output.rstrip().endswith("red/copy.png")
    lines = run("similar", photos / "train/red/3.png", photos / "train", "-k", 2, "--json").stdout.splitlines()
    assert [json.loads(line)["cosine"] for line in lines] == [entry.cosine for entry in found[:2]]


def test_groups_join_pairs_that_share_a_photo():
    assert groups_of([]) == []
    assert groups_of([(2, 3), (0, 1), (3, 5), (1, 5)]) == [[0, 1, 2, 3, 5]]


def test_neighbours_by_hand():
    x = np.array([[1, 0], [0, 2], [3, 3], [0, 0]])
    assert [entry[0] for entry in next(iter(neighbours(x, count=9)))] == [2, 1, 3]
    assert list(neighbours(x[:1], x[1:], count=1)) == [[(1, 0.707107)]]
    assert list(neighbours(x[:1])) == [[]]


def test_photos_of_like_features_and_other_pixels_are_no_duplicates():
    features = np.ones((3, 4), int)
    greys = np.stack([look_at(picture(seed)).grey for seed in (1, 2)] + [np.zeros((64, 64), np.uint8)])
    assert near_duplicates(features, greys) == []
    assert near_duplicates(features, greys[[0, 0, 1]]) == [(0, 1)]


def test_scores_without_a_photo_are_those_of_a_fit_without_it():
    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 50, (30, 6)), np.repeat([0, 1, 2], [14, 10, 6])
    features[labels == 1, 0] += 60
    features[labels == 2, 1] += 60
    scores = leave_one_out(features, labels, 3)
    assert scores.shape == (30, 3)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9
    flipped = labels.copy()
    flipped[3] = 2
    assert leave_one_out(features, flipped, 3)[3].argmax() == 0


def test_training_sets_near_duplicates_aside_together(tmp_path):
    for number in range(20):
        save(tmp_path / "red" / f"{number:02}.png", picture(number, hue=0))
        save(tmp_path / "blue" / f"{number:02}.png", picture(100 + number, hue=2))
    held = sorted(open_data(tmp_path).holdout(0.1))
    names = [item.name for item in open_data(tmp_path).items]
    for index in held:  # of each image that would be set aside, a copy that would be trained on
        with Image.open(names[index]) as image:
            save(Path(names[index]).with_name("99.jpg"), image.crop((6, 6, 150, 110)), quality=60)
    said = []
    reporter = SilentReporter()
    reporter.say = said.append
    prepared = prepare_data(tmp_path, None, reporter)
    assert any(line.startswith("near-duplicates: ") for line in said)
    found = check(prepared.train.joined(prepared.val))
    n_train = len(prepared.train)
    assert found.duplicates
    assert all(len({i < n_train for i in group.photos}) == 1 for group in found.duplicates)
    assert len(prepared.val)
    assert known_part(open_data(tmp_path), {"trained_on": prepared.mark}).images.items == prepared.val.items
