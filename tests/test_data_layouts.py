import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from image_files import contents_of, png, write_tree
from shared import shared_path
from squeezenet.data import open_data
from squeezenet.data.imageset import open_train_and_val
from squeezenet.data.sources import FolderSource
from squeezenet.errors import DataError, ImageError


def write_zip(path, names, data=None):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, data or contents_of(name, number))
    return path


def short_names(images):
    return [item.name.split("/set/")[1].split(".zip/")[-1] for item in images.items]


LAYOUTS = {
    "classes": (["b/1.png", "a/2.png"], None, ["a/2.png", "b/1.png"]),
    "nested": (["a/x/y/1.png", "b/2.JPG"], None, ["a/x/y/1.png", "b/2.JPG"]),
    "wrapper": (["photos/a/1.png", "photos/b/2.png"], None, ["photos/a/1.png", "photos/b/2.png"]),
    "train only": (["train/a/1.png", "train/b/2.png"], "val", ["train/a/1.png", "train/b/2.png"]),
    "train of two": (["train/a/1.png", "val/a/2.png"], "train", ["train/a/1.png"]),
    "val of two": (["train/a/1.png", "Validation/a/2.png"], "val", ["Validation/a/2.png"]),
    "both": (["train/a/1.png", "val/a/2.png"], None, ["train/a/1.png", "val/a/2.png"]),
    "splits in wrapper": (["w/train/a/1.png", "w/val/a/2.png"], "val", ["w/val/a/2.png"]),
    "class called train": (["train/1.png", "boat/2.png"], None, ["boat/2.png", "train/1.png"]),
    "hidden": (["a/1.png", "a/._1.png", ".git/a/2.png", "__MACOSX/a/1.png"], None, ["a/1.png"]),
    "other files": (["a/1.png", "a/readme.txt", "notes.md"], None, ["a/1.png"]),
    "loose image": (["a/1.png", "logo.png"], None, ["a/1.png"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_folder_layouts(tmp_path, name):
    names, split, expected = LAYOUTS[name]
    assert short_names(open_data(write_tree(tmp_path / "set", names), split=split)) == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_zip_layouts(tmp_path, name):
    names, split, expected = LAYOUTS[name]
    (tmp_path / "set").mkdir()
    assert short_names(open_data(write_zip(tmp_path / "set" / "x.zip", names), split=split)) == expected


def test_classes_are_sorted_and_labels_follow_them(tmp_path):
    images = open_data(write_tree(tmp_path, ["dog/1.png", "cat/1.png", "dog/2.png"]))
    assert images.classes == ("cat", "dog")
    assert images.labels == (0, 1, 1)
    assert images.class_counts() == {"cat": 1, "dog": 2}


def test_joined_sources_share_classes_by_name(tmp_path):
    one = write_tree(tmp_path / "one", ["b/1.png"])
    two = write_zip(tmp_path / "two.zip", ["a/1.png", "b/2.png"])
    images = open_data([one, two])
    assert images.classes == ("a", "b")
    assert images.labels == (0, 1, 1)
    assert images.read(1) == png(0)
    assert images.read(2) == png(1)


def test_splits_may_come_from_different_sources(tmp_path):
    sources = [write_zip(tmp_path / f"{split}.zip", [f"{split}/a/1.png"]) for split in ("train", "val")]
    assert open_data(sources, split="val").items[0].name.endswith("val.zip/val/a/1.png")
    assert open_data(sources).splits == ("train", "val")


def test_ignored_files_are_named_with_a_reason(tmp_path):
    images = open_data(write_tree(tmp_path, ["a/1.png", "a/readme.txt", "logo.png"]))
    assert [(name.rsplit("/", 1)[1], reason) for name, reason in images.ignored] == [
        ("readme.txt", "not an image"),
        ("logo.png", "outside the class folders"),
    ]


def test_class_folders_without_images_are_no_classes(tmp_path):
    write_tree(tmp_path, ["a/1.png", "b/notes.txt"])
    (tmp_path / "c").mkdir()
    images = open_data(tmp_path)
    assert images.classes == ("a",)
    assert images.empty_classes == ("b", "c")


def test_unlabelled_takes_flat_folders_and_files(tmp_path):
    write_tree(tmp_path, ["flat/2.png", "flat/1.png", "one.png"])
    images = open_data([tmp_path / "flat", tmp_path / "one.png"], unlabelled=True)
    assert [item.name.rsplit("/", 1)[1] for item in images.items] == ["1.png", "2.png", "one.png"]
    assert {item.label for item in images.items} == {None}
    with pytest.raises(DataError, match="without classes"):
        _ = images.labels


def test_flat_folder_is_refused_where_classes_are_needed(tmp_path):
    write_tree(tmp_path, ["1.png"])
    with pytest.raises(DataError, match=r"expected images in class folders .* ignored 1, such as .*1.png"):
        open_data(tmp_path)


def test_holdout_takes_evenly_from_every_class(tmp_path):
    images = open_data(write_tree(tmp_path, [f"a/{i:02d}.png" for i in range(20)] + ["b/0.png", "b/1.png", "c/0.png"]))
    rest, held = images.split_holdout(0.1)
    assert [item.name.rsplit("/", 2)[1:] for item in held.items] == [["a", "05.png"], ["a", "15.png"], ["b", "1.png"]]
    assert len(rest) == 20


def test_labels_can_follow_another_set(tmp_path):
    train = open_data(write_tree(tmp_path / "train_set", ["a/1.png", "b/1.png", "c/1.png"]))
    val = open_data(write_tree(tmp_path / "val_set", ["c/1.png"]))
    assert val.with_classes_of(train).labels == (2,)
    with pytest.raises(DataError, match="got also 'a', 'b': rename"):
        train.with_classes_of(val)


def test_sets_survive_pickling(tmp_path):
    images = open_data(write_zip(tmp_path / "x.zip", ["a/1.png", "a/2.png"]))
    images.read(0)
    assert pickle.loads(pickle.dumps(images)).read(1) == png(1)


def test_zip_is_read_correctly_in_a_forked_process(tmp_path):
    images = open_data(write_zip(tmp_path / "x.zip", ["a/1.png", "a/2.png"]))
    images.read(0)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, images.read(1))
        os._exit(0)
    os.wait()
    assert os.read(reading, 10_000) == png(1)
    assert images.read(0) == png(0)


def test_zip_members_that_climb_out_are_ignored(tmp_path):
    images = open_data(write_zip(tmp_path / "x.zip", ["a/1.png", "../../a/2.png", "/b/3.png", "c\\4.png"]))
    assert images.classes == ("a", "b", "c")
    assert [reason for _, reason in images.ignored] == ["a path that leaves the archive"]


def test_zip_with_a_password_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", ["a/1.png"])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="without a password, but 'a/1.png' is encrypted"):
        open_data(path)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_zip_is_refused(tmp_path, share):
    path = write_zip(tmp_path / "x.zip", ["a/1.png", "a/2.png"])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="expected a zip archive"):
        open_data(path)


def test_damaged_zip_member_is_an_error_about_that_image(tmp_path):
    path = write_zip(tmp_path / "x.zip", ["a/1.png", "a/2.png"])
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    images = open_data(path)
    with pytest.raises(ImageError, match="a/1.png: cannot be read .BadZipFile: Bad CRC"):
        images.read(0)
    assert images.read(1) == png(1)


def test_zip_bomb_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("squeezenet.data.sources.MAX_FILE_BYTES", 1000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(1001))
    with pytest.raises(ImageError, match="a/1.png: expected at most 1000 bytes, got 1001"):
        open_data(path).read(0)


def test_file_deleted_after_listing_is_an_error_about_that_image(tmp_path):
    images = open_data(write_tree(tmp_path, ["a/1.png"]))
    (tmp_path / "a/1.png").unlink()
    with pytest.raises(ImageError, match="a/1.png: cannot be read .No such file"):
        images.read(0)


def test_fifo_in_place_of_a_file_does_not_block(tmp_path):
    images = open_data(write_tree(tmp_path, ["a/1.png"]))
    (tmp_path / "a/1.png").unlink()
    os.mkfifo(tmp_path / "a/1.png")
    with pytest.raises(ImageError, match="expected a file, got a folder or a device"):
        images.read(0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "no such file or folder; expected a folder of class folders, a zip of one, or digits"),
        ("text.txt", "expected a folder of class folders or a zip of one, got another kind of file"),
        ("empty", "expected images in class folders .*, got none"),
    ],
)
def test_unusable_source_is_refused(tmp_path, source, message):
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / source)


def test_digits_have_a_val_split_of_a_fifth_of_each_class():
    train, val = open_data("digits", split="train"), open_data("digits", split="val")
    assert (len(train), len(val)) == (1442, 355)
    assert list(val.class_counts().values()) == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    pixels = np.asarray(Image.open(io.BytesIO(val.read(0))))
    assert pixels.shape == (8, 8)
    assert pixels.max() > 200


def test_shared_zips_have_the_documented_contents():
    images = open_data([shared_path("data/imagenette-train.zip"), shared_path("data/imagenette-val.zip")], split="val")
    assert (len(images), len(images.classes), images.splits) == (1000, 10, ("train", "val"))


def test_sample_is_evenly_spaced_from_the_first_to_the_last(tmp_path):
    images = open_data(write_tree(tmp_path / "set", [f"a/{n}.png" for n in range(10)]))
    assert short_names(images.sample(4)) == ["a/0.png", "a/3.png", "a/6.png", "a/9.png"]
    assert short_names(images.sample(1)) == ["a/0.png"]
    assert images.sample(11) == images


def test_both_splits_of_a_source_are_found_in_one_listing(tmp_path, monkeypatch):
    real, listed = FolderSource.list_files, []
    monkeypatch.setattr(FolderSource, "list_files", lambda self: listed.append(self.name) or real(self))
    root = write_tree(tmp_path / "set", ["train/a/1.png", "train/b/2.png", "val/b/3.png", "val/4.png", "notes.md"])
    train, val = open_train_and_val(root)
    assert listed == [str(root)]
    assert (short_names(train), short_names(val)) == (["train/a/1.png", "train/b/2.png"], ["val/b/3.png"])
    assert (train.ignored, val.ignored) == (
        open_data(root, split="train").ignored,
        open_data(root, split="val").ignored,
    )
    assert val.classes == ("b",)
    assert open_train_and_val(write_tree(tmp_path / "other", ["a/1.png", "b/1.png"]))[1] is None


def test_urls_and_empty_names_are_no_working_folder():
    with pytest.raises(DataError, match="https://a.de/b.zip: expected a file or a folder on this machine, got a URL"):
        open_data("https://a.de/b.zip")
    for empty in ("", " "):
        with pytest.raises(DataError, match="expected a file or a folder, got an empty name"):
            open_data(empty)
