"""`squeezenet teach`: from class folders to a file, added to later, safe against what goes wrong."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from networks import random_network, random_spec, tiny_spec
from squeezenet import (
    Classifier,
    FireSpec,
    Labels,
    Preprocessing,
    SqzFile,
    StemSpec,
    find_model,
    read_sqz,
    teach,
    write_sqz,
)
from squeezenet.cli import cli
from squeezenet.container import Limits
from squeezenet.errors import BadTable, DataError, FormatError
from squeezenet.files import atomic_write
from squeezenet.teaching.solver import FeatureCode
from squeezenet.teaching.taught import decode_taught, encode_taught

COLOURS = {"red": (210, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}


def paint(folder, name, count, colour, *, seed=0, size=40):
    rng = np.random.default_rng([seed, len(name), colour[0]])
    (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        light = rng.normal(0, 30, 3)  # no two photos with the same features
        pixels = np.clip(np.array(colour) + light + rng.normal(0, 30, (size, size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{seed}-{index}.png")


@pytest.fixture
def photos(tmp_path):
    for name, colour in COLOURS.items():
        paint(tmp_path / "photos", name, 6, colour)
    return tmp_path / "photos"


@pytest.fixture
def base(tmp_path):
    spec = tiny_spec(
        input_size=32, stem=StemSpec(channels=16, kernel=3, stride=2), num_classes=4,
        fires=(FireSpec(squeeze_channels=8, expand1x1_channels=16, expand3x3_channels=16),) * 2,
    )  # fmt: skip
    contents = SqzFile(
        network=random_network(spec, seed=3), labels=Labels(("ant", "bee", "cat", "dog")),
        preprocessing=Preprocessing(crop_size=32, resize_size=36), facts={"temperature": 1.5, "made": "by a test"},
    )  # fmt: skip
    write_sqz(tmp_path / "base.sqz", contents)
    return tmp_path / "base.sqz"


def names_of(folder):
    return sorted(path.name for path in folder.iterdir())


def test_colours_are_learnt_and_the_file_is_an_ordinary_one(base, photos, tmp_path):
    result = teach(photos, on=base, output=tmp_path / "new.sqz")
    assert (result.accuracy.n_images, result.accuracy.top1) == (18, 100)
    contents = read_sqz(tmp_path / "new.sqz")
    assert contents.class_names == ("blue", "green", "red")
    assert contents.preprocessing == read_sqz(base).preprocessing
    assert "temperature" not in contents.facts  # the old head's
    paint(tmp_path / "others", "red", 5, COLOURS["red"], seed=9)
    classifier = Classifier(tmp_path / "new.sqz")
    for (best,) in classifier.predict(sorted((tmp_path / "others/red").iterdir()), top=1):
        assert best.label == "red"
        assert best.probability > 0.5
    assert contents.unknown is not None
    assert not contents.unknown.is_unknown(classifier.features(sorted((photos / "blue").iterdir()))).all()
    assert [row[:3] for row in result.rows()] == [("blue", "6", "6"), ("green", "6", "6"), ("red", "6", "6")]


@pytest.mark.parametrize("keep", [False, True])
def test_in_two_steps_the_bytes_are_those_of_one(base, photos, tmp_path, keep):
    teach(photos, on=base, output=tmp_path / "at-once.sqz", keep=keep)
    (tmp_path / "later").mkdir()
    (photos / "red").rename(tmp_path / "later/red")
    (tmp_path / "first").mkdir()
    for name in ("blue", "green"):
        (tmp_path / "first" / name).mkdir()
        for path in sorted((photos / name).iterdir())[:4]:
            path.rename(tmp_path / "first" / name / path.name)
    teach(tmp_path / "first", on=base, output=tmp_path / "steps.sqz", keep=keep)
    assert len(decode_taught((tmp_path / "steps.taught").read_bytes()).names) == 8
    for rest in (photos, tmp_path / "later", tmp_path / "later"):  # the last adds nothing
        teach(rest, on=tmp_path / "steps.sqz", output=tmp_path / "steps.sqz")
    for suffix in (".sqz", ".taught"):
        assert (tmp_path / f"steps{suffix}").read_bytes() == (tmp_path / f"at-once{suffix}").read_bytes()


def test_classes_can_be_kept(base, photos, tmp_path):
    result = teach(photos, on="cifar10", output=tmp_path / "new.sqz", keep=True)
    old, new = read_sqz(find_model("cifar10").path), read_sqz(tmp_path / "new.sqz")
    assert new.class_names == (*old.class_names, "blue", "green", "red")
    assert new.facts.get("temperature") == old.facts.get("temperature")
    np.testing.assert_array_equal(new.network.convs["conv10"].weight[:10], old.network.convs["conv10"].weight)
    everything = [path for name in COLOURS for path in sorted((photos / name).iterdir())]
    found = [best.label for (best,) in Classifier(new).predict(everything, top=1)]
    expected = [path.parent.name for path in everything]
    assert np.mean([a == b for a, b in zip(found, expected, strict=True)]) >= 0.8  # a tenth may go to old classes
    assert result.unknown is None
    with pytest.raises(DataError, match="expected no photos of something else with kept classes"):
        teach(photos, on=result.path, output=result.path, foreign=photos)
    paint(tmp_path / "photos", "Bee", 2, (9, 9, 9))
    with pytest.raises(DataError, match="expected new classes to keep beside those of the network, got 'Bee'"):
        teach(photos, on=base, output=tmp_path / "more.sqz", keep=True)


def test_one_photo_a_class_is_enough(base, tmp_path):
    for name, colour in COLOURS.items():
        paint(tmp_path / "few", name, 1, colour)
    result = teach(tmp_path / "few", on=base, output=tmp_path / "new.sqz")
    assert result.accuracy.n_images == 0
    assert (result.suspects, result.confusions) == ([], [])  # a head made of the others has no such class
    everything = [path for name in COLOURS for path in (tmp_path / "few" / name).iterdir()]
    assert [best.label for (best,) in Classifier(result.path).predict(everything, top=1)] == list(COLOURS)


def test_any_architecture_can_be_taught(tmp_path, photos):
    for seed in range(6):
        spec = random_spec(np.random.default_rng(seed))
        write_sqz(tmp_path / f"{seed}.sqz", SqzFile(network=random_network(spec, seed=seed)))
        made = teach(photos, on=tmp_path / f"{seed}.sqz", output=tmp_path / "new.sqz", keep=seed % 2 == 1)
        assert read_sqz(made.path).network.spec.num_classes == 3 + (spec.num_classes if seed % 2 else 0)


def test_val_and_photos_of_something_else_are_measured(base, photos, tmp_path):
    for name, colour in COLOURS.items():
        paint(tmp_path / "val", name, 2, colour, seed=5)
    (tmp_path / "foreign").mkdir()
    for index in range(4):
        stripes = np.arange(40) // (index + 2) % 2 * 255
        Image.fromarray(np.tile(stripes, (40, 1)).astype(np.uint8)).save(tmp_path / f"foreign/{index}.png")
    result = CliRunner().invoke(
        cli, ["teach", str(photos), "--on", str(base), "-o", str(tmp_path / "new.sqz"), "--val", str(tmp_path / "val"),
              "--not", str(tmp_path / "foreign"), "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert (facts["val"]["n_images"], facts["val"]["top1_correct"]) == (6, 6)
    assert facts["foreign_caught"] >= 50
    assert len(decode_taught((tmp_path / "new.taught").read_bytes()).foreign_names) == 4


def test_wrong_labels_are_pointed_out(base, photos, tmp_path):
    wrong = photos / "red/wrong.png"
    (photos / "blue/0-0.png").rename(wrong)
    result = teach(photos, on=base, output=tmp_path / "new.sqz")
    assert [(suspect.name, suspect.looks_like) for suspect in result.suspects] == [("red/wrong.png", "blue")]
    assert result.confusions == [("red", "blue", 1)]
    printed = CliRunner().invoke(cli, ["teach", str(photos), "--on", str(base), "-o", str(tmp_path / "new.sqz")]).output
    assert "label looks wrong: red/wrong.png (looks like blue)" in printed
    assert "leave-one-out accuracy: 94.4 % (17 of 18; 95 % interval" in printed


def test_two_classes_with_the_same_photos_are_no_better_than_chance(base, photos, tmp_path):
    for path in (photos / "red").iterdir():
        (photos / "green" / path.name).write_bytes(path.read_bytes())
    result = teach(photos, on=base, output=tmp_path / "new.sqz")
    assert result.accuracy.n_images == 18
    assert result.accuracy.top1_correct <= 12


def test_photo_under_another_name_counts_once_and_is_named(base, photos, tmp_path):
    teach(photos, on=base, output=tmp_path / "plain.sqz")
    for name, copy in (("red/0-0.png", "red/zz.png"), ("red/0-1.png", "blue/zz.png")):
        (photos / copy).write_bytes((photos / name).read_bytes())
    result = teach(photos, on=base, output=tmp_path / "new.sqz")
    assert [tuple(entry) for entry in result.repeated] == [("red/zz.png", "red/0-0.png")]
    assert result.shared == (("blue/zz.png", "red/0-1.png"),)
    assert (len(result.lesson.names), result.to_dict()["repeated"]) == (19, [["red/zz.png", "red/0-0.png"]])
    run = CliRunner().invoke(cli, ["teach", str(photos), "--on", str(base), "-o", str(tmp_path / "new.sqz")])
    assert "skipped red/zz.png: the same photo as red/0-0.png" in run.stderr
    assert "the same photo in several places: blue/zz.png, red/0-1.png" in run.stderr
    again = teach(photos, on=result.path, output=result.path)  # the same photos, read again, are nothing to speak of
    assert (len(again.lesson.names), again.shared) == (19, result.shared)
    (photos / "blue/zz.png").unlink()
    assert teach(photos, on=base, output=tmp_path / "new.sqz").file_bytes > 0
    assert (tmp_path / "new.sqz").read_bytes() == (tmp_path / "plain.sqz").read_bytes()


def test_photo_of_something_else_that_is_in_a_class_is_named(base, photos, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/x.png").write_bytes((photos / "red/0-0.png").read_bytes())
    result = teach(photos, on=base, output=tmp_path / "new.sqz", foreign=tmp_path / "foreign")
    assert result.shared == (("red/0-0.png", "foreign/x.png"),)


def test_unreadable_photos_are_named(base, photos, tmp_path):
    (photos / "red/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    result = teach(photos, on=base, output=tmp_path / "new.sqz")
    assert [entry.name.rsplit("/", 1)[-1] for entry in result.unreadable] == ["broken.jpg"]
    (tmp_path / "photos/bad").mkdir()
    (tmp_path / "photos/bad/x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="expected a readable photo of each class, got none of 'bad'"):
        teach(photos, on=base, output=tmp_path / "new.sqz")


def test_one_class_alone_needs_others(base, tmp_path):
    paint(tmp_path / "one", "red", 1, COLOURS["red"])
    with pytest.raises(DataError, match="expected photos of at least two classes, got one, 'red'"):
        teach(tmp_path / "one", on=base, output=tmp_path / "new.sqz")
    assert teach(tmp_path / "one", on=base, output=tmp_path / "new.sqz", keep=True).lesson.kept == 4


def test_500_classes_can_be_taught(base, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(500):
        (tmp_path / f"many/{index:03}").mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)).resize((32, 32)).save(
            tmp_path / f"many/{index:03}/a.png"
        )
    result = teach(tmp_path / "many", on=base, output=tmp_path / "new.sqz")
    assert read_sqz(result.path).network.spec.num_classes == 500
    assert result.unknown is None  # too many for a rule


# --- what goes wrong ---


@pytest.fixture
def taught(base, photos, tmp_path):
    teach(photos, on=base, output=tmp_path / "new.sqz")
    return tmp_path / "new.sqz"


def state(path):
    return path.read_bytes(), path.with_suffix(".taught").read_bytes()


def test_full_disk_leaves_both_files_as_they_were(taught, photos, monkeypatch):
    before = state(taught)
    paint(photos, "grey", 3, (128, 128, 128))
    written = []

    def full(path):
        if written:
            raise OSError(28, "No space left on device", os.fspath(path))
        written.append(path)
        return atomic_write(path)

    monkeypatch.setattr("squeezenet.files.atomic_write", full)
    result = CliRunner().invoke(cli, ["teach", str(photos), "--on", str(taught), "-o", str(taught)])
    assert result.exit_code == 1
    assert result.output.rstrip().endswith("No space left on device")
    assert state(taught) == before
    assert names_of(taught.parent) == ["base.sqz", "new.sqz", "new.taught", "photos"]


def test_kill_leaves_whole_files(taught, photos):
    before = state(taught)
    paint(photos, "grey", 3, (128, 128, 128))
    program = (
        "import os, signal, squeezenet.files as files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from squeezenet import teach\n"
        f"teach({str(photos)!r}, on={str(taught)!r}, output={str(taught)!r})\n"
    )
    run = subprocess.run([sys.executable, "-c", program], check=False, timeout=120)
    assert run.returncode == -signal.SIGKILL
    assert state(taught) == before
    assert teach(photos, on=taught, output=taught).lesson.classes == ("blue", "green", "red", "grey")


def test_taught_file_of_another_network_is_refused(taught, photos, tmp_path):
    other = SqzFile(network=random_network(tiny_spec(), seed=8))
    write_sqz(taught, other)
    with pytest.raises(DataError, match=r"new\.taught: expected the photos of this network, got those of another"):
        teach(photos, on=taught, output=tmp_path / "more.sqz")
    assert not (tmp_path / "more.sqz").exists()


def test_classes_without_their_photos_are_not_lost_silently(taught, photos, tmp_path):
    taught.with_suffix(".taught").unlink()  # or the file is from a page
    before = taught.read_bytes()
    (photos / "red").rename(photos / "crimson")
    with pytest.raises(DataError, match=r"new\.taught, which holds .* is missing: its classes would be lost; choose"):
        teach(photos, on=taught, output=taught)
    assert taught.read_bytes() == before
    run = CliRunner().invoke(cli, ["teach", str(photos), "--on", str(taught), "-o", str(tmp_path / "more.sqz")])
    assert "is missing: its classes are not kept (--keep keeps them)" in run.stderr
    (tmp_path / "one/grey").mkdir(parents=True)
    (photos / "crimson/0-0.png").rename(tmp_path / "one/grey/0.png")
    teach(tmp_path / "one", on=taught, output=taught, keep=True)
    assert read_sqz(taught).class_names == ("blue", "green", "red", "grey")


def test_damaged_taught_file_is_one_line(taught, photos):
    path = taught.with_suffix(".taught")
    path.write_bytes(path.read_bytes()[:-40])
    result = CliRunner().invoke(cli, ["teach", str(photos), "--on", str(taught), "-o", str(taught)])
    assert result.exit_code == 1
    assert re.search(r"new\.taught \(remove it to teach .*\): .*SHA-256 does not match$", result.output.strip())


@pytest.mark.parametrize("name", ["new.taught", "new.onnx", "new"])
def test_output_that_is_not_named_sqz_is_refused(base, photos, tmp_path, name):
    with pytest.raises(DataError, match=r"expected an output named \*\.sqz, got '.*new"):
        teach(photos, on=base, output=tmp_path / name)
    assert names_of(tmp_path) == ["base.sqz", "photos"]


def test_val_that_cannot_be_used_is_said_before_anything_is_written(base, photos, tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        teach(photos, on=base, output=tmp_path / "new.sqz", val=tmp_path / "vall")
    paint(tmp_path / "val", "purple", 1, (200, 0, 200))
    with pytest.raises(DataError, match="class folder 'purple' matches no class"):
        teach(photos, on=base, output=tmp_path / "new.sqz", val=tmp_path / "val")
    assert names_of(tmp_path) == ["base.sqz", "photos", "val"]


def test_names_too_long_for_a_reader_are_not_written(base, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("squeezenet.teaching.head.DEFAULT_LIMITS", Limits(meta_bytes=100))
    with pytest.raises(FormatError, match=r"META: expected at most 100 bytes of JSON, got \d+: fewer classes"):
        teach(photos, on=base, output=tmp_path / "new.sqz")
    assert names_of(tmp_path) == ["base.sqz", "photos"]


@pytest.mark.parametrize("change", [{"shift": 3}, {"signed": True}, {"channels": 16}])
def test_codes_of_another_kind_are_refused(taught, photos, change):
    path = taught.with_suffix(".taught")
    lesson = decode_taught(path.read_bytes())
    code = FeatureCode(change.get("shift", lesson.code.shift), change.get("signed", lesson.code.is_signed))
    codes = lesson.codes[:, : change.get("channels")]
    path.write_bytes(encode_taught(dataclasses.replace(lesson, code=code, codes=codes)))
    with pytest.raises(DataError, match=r"new\.taught: expected the feature codes of this network, got others"):
        teach(photos, on=taught, output=taught)


def test_taught_file_comes_back(taught):
    data = taught.with_suffix(".taught").read_bytes()
    assert encode_taught(decode_taught(data)) == data


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_gets_past_the_reader(taught, seed):
    import hashlib

    data = taught.with_suffix(".taught").read_bytes()
    rng = np.random.default_rng(seed)
    body = bytearray(zlib.decompress(data[8:-32]))
    for _ in range(int(rng.integers(1, 6))):
        body[int(rng.integers(0, min(len(body), 1200)))] = int(rng.integers(0, 256))
    cut = bytes(body[: int(rng.integers(0, len(body)))] if seed % 3 == 0 else body)
    made = data[:8] + zlib.compress(cut)
    try:
        decode_taught(made + hashlib.sha256(made).digest())
    except FormatError:
        return  # any other error is one of the reader


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "expected version 1"), ({"channels": 0}, "expected 1 to 4096 channels"),
        ({"channels": True}, "expected whole numbers"), ({"shift": 99}, "expected 1 to 4096 channels"),
        ({"network": "zz"}, "expected the header"), ({"classes": []}, "expected photos and classes"),
        ({"classes": [{"name": 1, "photos": ["a"]}]}, "expected names"), ({"foreign": "abc"}, "expected the header"),
        ({"classes": [{"name": "a", "photos": []}]}, "expected photos and classes"), ({"kept": -1}, "kept -1"),
        ({"classes": [{"name": " ", "photos": ["a"]}]}, "expected a name for each class"),
        ({"classes": [{"name": "Red_x", "photos": ["a"]}, {"name": "red X", "photos": ["b"]}]}, "and no name twice"),
        ({"channels": 4096, "foreign": ["a"] * 70_000}, "expected at most 268435456 bytes of codes"),
    ],
)  # fmt: skip
def test_impossible_headers_are_refused(taught, change, message):
    import hashlib

    data = taught.with_suffix(".taught").read_bytes()
    body = zlib.decompress(data[8:-32])
    size = int.from_bytes(body[:4], "little")
    header = json.dumps({**json.loads(body[4 : 4 + size]), **change}).encode()
    made = data[:8] + zlib.compress(len(header).to_bytes(4, "little") + header + body[4 + size :])
    with pytest.raises(FormatError, match=message):
        decode_taught(made + hashlib.sha256(made).digest())
    short = data[:8] + zlib.compress(body[:-1])
    with pytest.raises(BadTable, match="expected 32 bytes for each"):
        decode_taught(short + hashlib.sha256(short).digest())


def test_bomb_is_not_inflated(taught):
    import hashlib

    data = taught.with_suffix(".taught").read_bytes()
    deflater = zlib.compressobj(9)
    packed = [deflater.compress(zlib.decompress(data[8:-32]))]
    packed += [deflater.compress(bytes(1 << 20)) for _ in range(200)]
    made = b"".join([data[:8], *packed, deflater.flush()])
    tracemalloc.start()
    with pytest.raises(BadTable, match="expected 32 bytes for each of 18 photos"):
        decode_taught(made + hashlib.sha256(made).digest())
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    made = data[:8] + zlib.compress((1 << 27).to_bytes(4, "little") + bytes(1000))
    with pytest.raises(FormatError, match="expected names of 1 to 67108864 bytes, got 134217728"):
        decode_taught(made + hashlib.sha256(made).digest())


def test_more_than_can_be_read_is_not_written(taught, monkeypatch):
    lesson = decode_taught(taught.with_suffix(".taught").read_bytes())
    monkeypatch.setattr("squeezenet.teaching.taught._MAX_PHOTOS", 17)
    with pytest.raises(FormatError, match="expected at most 17 photos with 256 MiB of features"):
        encode_taught(lesson)


def test_no_torch_is_imported(base, photos, tmp_path):
    program = f"""
import sys
from squeezenet.cli import cli
cli(["teach", {str(photos)!r}, "--on", {str(base)!r}, "-o", {str(tmp_path / "new.sqz")!r}], standalone_mode=False)
print([name for name in ("torch", "matplotlib", "pyarrow") if name in sys.modules])
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    assert output.splitlines()[-1] == "[]"


def test_evaluating_a_taught_head_warns_of_its_own_photos(base, photos, tmp_path):
    teach(photos, on=base, output=tmp_path / "new.sqz")
    run = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "new.sqz"), str(photos)])
    assert "the head was taught from 18 photos: measured on these same photos, accuracy is meaningless" in run.stderr


def test_nothing_is_stored_that_was_measured_on_the_photos_taught_from(base, photos, tmp_path):
    made = teach(photos, on=base, output=tmp_path / "new.sqz").path
    before = made.read_bytes()
    paint(tmp_path / "val", "red", 3, COLOURS["red"], seed=8)
    paint(tmp_path / "val", "blue", 3, COLOURS["blue"], seed=8)
    (tmp_path / "val/red/again.png").write_bytes((photos / "red/0-0.png").read_bytes())
    run = CliRunner().invoke(cli, ["evaluate", str(made), str(tmp_path / "val"), "--store"])
    assert (run.exit_code, made.read_bytes() == before) == (2, True)
    assert "--store needs images that were not used to train or teach MODEL" in run.stderr
    (tmp_path / "val/red/again.png").unlink()
    run = CliRunner().invoke(cli, ["evaluate", str(made), str(tmp_path / "val"), "--store"])
    assert (run.exit_code, made.read_bytes() == before) == (0, False), run.output


# --- features as a command ---


def test_features_are_written(base, photos, tmp_path):
    run = CliRunner().invoke(cli, ["features", str(photos), "-m", str(base), "-o", str(tmp_path / "f.npy")])
    assert run.exit_code == 0, run.output
    everything = [path for name in sorted(COLOURS) for path in sorted((photos / name).iterdir())]
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), Classifier(base).features(everything))
    pq = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    assert (
        CliRunner().invoke(cli, ["features", str(photos), "-m", str(base), "-o", str(tmp_path / "f.parquet")]).exit_code
        == 0
    )
    rows = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert [row["class"] for row in rows[::6]] == ["blue", "green", "red"]
    assert rows[0]["features"] == np.load(tmp_path / "f.npy")[0].tolist()


def test_features_of_photos_without_classes_are_written_too(base, photos, tmp_path):
    run = CliRunner().invoke(cli, ["features", str(photos / "red"), "-m", str(base), "-o", str(tmp_path / "f.npy")])
    assert run.exit_code == 0, run.output
    assert np.load(tmp_path / "f.npy").shape == (6, 32)
    (photos / "loose.png").write_bytes((photos / "red/0-0.png").read_bytes())
    mixed = CliRunner().invoke(cli, ["features", str(photos), "-m", str(base), "-o", str(tmp_path / "f.npy")])
    assert "ignored (1): " in mixed.stderr  # beside class folders
    bad = CliRunner().invoke(cli, ["features", str(photos), "-m", str(base), "-o", str(tmp_path / "f.csv")])
    assert "expected a file that ends in .npy or .parquet" in bad.output
