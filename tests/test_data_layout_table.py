"""The rule of docs/train.md for folders, over layouts that people have; each as a folder and as a zip."""

import random
import time
import unicodedata
import zipfile

import pytest

from image_files import contents_of, write_tree
from squeezenet.data import check_data, open_data
from squeezenet.data.imageset import open_everything, open_train_and_val
from squeezenet.data.layout import split_of
from squeezenet.errors import DataError
from squeezenet.labels import Labels
from squeezenet.text import nfc

NFC, NFD = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")

# name: paths; then what training sees: images by class, of validation after a bar; what is left aside with the reason;
# and notes, or the error.
TABLE = {
    "classes": ("cat/1.png dog/2.png", "cat/1 dog/2", "", ""),
    "folders in classes": ("cat/a/1.png cat/b/2.png dog/3.png", "cat/1,2 dog/3", "", ""),
    "wrapper": ("photos/cat/1.png photos/dog/2.png", "cat/1 dog/2", "", ""),
    "two wrappers": ("v2/photos/cat/1.png v2/photos/dog/2.png", "cat/1 dog/2", "", ""),
    "loose picture": ("cat/1.png dog/2.png cover.png", "cat/1 dog/2", "cover.png (outside the class folders)", ""),
    "loose beside a wrapper": (
        "w/cat/1.png w/dog/2.png cover.png", "cat/1 dog/2", "cover.png (outside the class folders)", "",
    ),
    "train and val": (
        "train/cat/1.png train/dog/2.png val/cat/3.png val/dog/4.png", "cat/1 dog/2 | cat/3 dog/4", "", "",
    ),
    "case of splits": ("Train/cat/1.png Train/dog/2.png VAL/cat/3.png", "cat/1 dog/2 | cat/3", "", ""),
    "other names of splits": (
        "training/cat/1.png training/dog/2.png dev/cat/3.png", "cat/1 dog/2 | cat/3", "", "",
    ),
    "short names of splits": (
        "trn/cat/1.png trn/dog/2.png tst/cat/3.png", "cat/1 dog/2", "", "split test is not used; number of images: 1",
    ),
    "held out": (
        "train/cat/1.png train/dog/2.png hold-out/cat/3.png", "cat/1 dog/2", "",
        "split test is not used; number of images: 1",
    ),
    "folds": (
        "fold1/cat/1.png fold1/dog/2.png fold2/cat/3.png fold2/dog/4.png", "fold1/1,2 fold2/3,4", "",
        "fold1/ and fold2/ are taken for classes, though each holds cat/ and dog/",
    ),
    "the same folders in classes": (
        "cat/1.png cat/in/2.png cat/out/3.png dog/in/4.png dog/out/5.png", "cat/1,2,3 dog/4,5", "", "",
    ),
    "validation": ("train/cat/1.png train/dog/2.png validation/dog/4.png", "cat/1 dog/2 | dog/4", "", ""),
    "sets": (
        "training_set/cat/1.png training_set/dog/2.png val_set/cat/3.png", "cat/1 dog/2 | cat/3", "", "",
    ),
    "years": ("train2017/cat/1.png train2017/dog/2.png val2017/cat/3.png", "cat/1 dog/2 | cat/3", "", ""),
    "splits in a wrapper": (
        "w/train/cat/1.png w/train/dog/2.png w/val/cat/3.png", "cat/1 dog/2 | cat/3", "", "",
    ),
    "F1: loose picture beside splits": (
        "train/cat/1.png train/dog/2.png val/cat/3.png cover.png", "cat/1 dog/2 | cat/3",
        "cover.png (beside train/ and val/)", "",
    ),
    "F1: folder beside splits": (
        "train/cat/1.png train/dog/2.png val/cat/3.png extra/4.png", "cat/1 dog/2 | cat/3",
        "extra/4.png (beside train/ and val/)", "",
    ),
    "class folders beside splits": (
        "train/cat/1.png train/dog/2.png val/cat/3.png old/cat/4.png", "cat/1 dog/2 | cat/3",
        "old/cat/4.png (beside train/ and val/)", "",
    ),
    "picture in a split": (
        "train/cat/1.png train/dog/2.png train/x.png val/cat/3.png", "cat/1 dog/2 | cat/3",
        "train/x.png (outside the class folders)", "",
    ),
    "wrapper with a picture and splits": (
        "w/train/cat/1.png w/train/dog/2.png w/val/cat/3.png w/x.png", "cat/1 dog/2 | cat/3",
        "w/x.png (beside train/ and val/)", "",
    ),
    "train alone": ("train/cat/1.png train/dog/2.png", "cat/1 dog/2", "", ""),
    "train and a flat folder": (
        "train/cat/1.png train/dog/2.png unlabelled/3.png", "cat/1 dog/2", "unlabelled/3.png (beside train/)", "",
    ),
    "F19: test is left alone": (
        "train/cat/1.png train/dog/2.png test/cat/3.png test/dog/4.png", "cat/1 dog/2", "",
        "split test is not used; number of images: 2",
    ),
    "flat test": (
        "train/cat/1.png train/dog/2.png test/3.png", "cat/1 dog/2", "test/3.png (outside the class folders)",
        "split test is not used; number of images: 1",
    ),
    "three splits": (
        "train/cat/1.png train/dog/2.png val/cat/3.png test/cat/4.png", "cat/1 dog/2 | cat/3", "",
        "split test is not used; number of images: 1",
    ),
    "split in a split of its name": (
        "train/train/cat/1.png train/train/dog/2.png val/val/cat/3.png", "cat/1 dog/2 | cat/3", "", "",
    ),
    "images in splits": (
        "train/images/cat/1.png train/images/dog/2.png val/images/cat/3.png", "cat/1 dog/2 | cat/3", "", "",
    ),
    "splits in classes": (
        "cat/train/1.png dog/train/2.png cat/val/3.png dog/val/4.png", "cat/1 dog/2 | cat/3 dog/4", "", "",
    ),
    "sets side by side": (
        "one/train/cat/1.png one/val/cat/2.png two/train/cat/3.png two/val/cat/4.png", "error", "",
        "expected one set, got one in each of one/ and two/: name one of them as DATA",
    ),
    "flat splits": (
        "train/1.png val/2.png", "error", "",
        "expected class folders in train/ and val/, got images: the folders must be <split>/<class>/<image>",
    ),
    "flat splits of detection data": (
        "images/train/1.png images/val/2.png labels/train/1.txt", "error", "",
        "expected class folders in train/ and val/",
    ),
    "flat splits and a class": (
        "train/1.png val/2.png cat/3.png", "error", "", "expected class folders in train/ and val/, got images",
    ),
    "splits in a split": (
        "train/train/cat/1.png train/val/cat/2.png test/cat/3.png", "error", "",
        "expected class folders in test/ and train/, got train/ and val/: the folders must be",
    ),
    "flat train": ("train/1.png train/2.png", "error", "", "expected class folders in train/, got images"),
    "a class called train": (
        "boat/1.png train/2.png", "boat/1 train/2", "",
        "train/ is taken for a class, since it lies beside other classes",
    ),
    "a class called train with folders": (
        "boat/x/1.png boat/y/2.png train/x/3.png train/y/4.png", "boat/1,2 train/3,4", "",
        "train/ is taken for a class",
    ),
    "names that begin like splits": ("bullet_train/1.png trainer/2.png", "bullet_train/1 trainer/2", "", ""),
    "F17: a hidden class": (
        ".net/1.png java/2.png c++/3.png", "c++/3 java/2", ".net (hidden: rename the folder if it is a class)", "",
    ),
    "thumbnails of a photo server": (
        "cat/1.png cat/@eaDir/1.png/x.jpg dog/2.png dog/@eaDir/2.png/x.jpg @eaDir/x.jpg", "cat/1 dog/2",
        "@eaDir (of a photo server); cat/@eaDir (of a photo server); dog/@eaDir (of a photo server)", "",
    ),
    "bins and snapshots": (
        "cat/1.png dog/2.png #recycle/3.png @Recycle/4.png #snapshot/5.png", "cat/1 dog/2",
        "#recycle (of a photo server); #snapshot (of a photo server); @Recycle (of a photo server)", "",
    ),
    "thumbnails": (
        "cat/1.png dog/2.png .thumbnails/3.png cat/Thumbs/4.png", "cat/1 dog/2",
        ".thumbnails (hidden: rename the folder if it is a class);"
        " cat/Thumbs (thumbnails: rename the folder if it is a class)", "",
    ),
    "a Mac's zip": (
        "cat/1.png dog/2.png __MACOSX/cat/._1.png cat/.DS_Store cat/._1.png", "cat/1 dog/2",
        "__MACOSX (of an operating system); cat/.DS_Store (a hidden file); cat/._1.png (a hidden file)", "",
    ),
    "Windows": (
        "cat/1.png dog/2.png cat/Thumbs.db desktop.ini $RECYCLE.BIN/3.png", "cat/1 dog/2",
        "$RECYCLE.BIN (of an operating system); cat/Thumbs.db (a file of an operating system);"
        " desktop.ini (a file of an operating system)", "",
    ),
    "notebooks": (
        "cat/1.png dog/2.png .ipynb_checkpoints/3.png", "cat/1 dog/2",
        ".ipynb_checkpoints (hidden: rename the folder if it is a class)", "",
    ),
    "junk beside splits": (
        "train/cat/1.png train/dog/2.png val/cat/3.png @eaDir/4.png .git/x/5.png", "cat/1 dog/2 | cat/3",
        ".git (hidden: rename the folder if it is a class); @eaDir (of a photo server)", "",
    ),
    "junk beside a wrapper": (
        "set/cat/1.png set/dog/2.png __MACOSX/set/cat/1.png", "cat/1 dog/2", "__MACOSX (of an operating system)", "",
    ),
    "other files": (
        "cat/1.png dog/2.png cat/notes.txt labels.csv", "cat/1 dog/2",
        "cat/notes.txt (not an image); labels.csv (not an image)", "",
    ),
    "pictures without a suffix": ("cat/1 dog/2", "cat/1 dog/2", "", ""),
    "F18: forms of Unicode in two splits": (
        f"train/{NFC}/1.png train/tea/2.png val/{NFD}/3.png", f"{NFC}/1 tea/2 | {NFC}/3", "", "",
    ),
    "forms of Unicode in one split": (f"{NFC}/1.png {NFD}/2.png tea/3.png", f"{NFC}/1,2 tea/3", "", ""),
    "case in two splits": (
        "train/Cat/1.png train/dog/2.png val/cat/3.png val/Dog/4.png", "Cat/1 dog/2 | Cat/3 dog/4", "", "",
    ),
    "underscores in two splits": (
        "train/golden_retriever/1.png train/pug/2.png val/golden/3.png val/Golden~retriever/4.png", "error", "",
        "got also 'golden': rename or remove",
    ),
    "two classes that differ in case": ("A/1.png a/2.png", "A/1 a/2", "", ""),
    "those in two splits": ("train/A/1.png train/a/2.png val/a/3.png val/A/4.png", "A/1 a/2 | A/4 a/3", "", ""),
}  # fmt: skip


def tree(paths):
    return [path.replace("~", " ") for path in paths.split(" ")]


def as_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, contents_of(name, number))
    return path


def seen(images):
    """Images by class, as "cat/1,2 dog/3"."""
    found = {}
    for item in images.items:
        found.setdefault(images.classes[item.label], []).append(item.name.rsplit("/", 1)[1].split(".")[0])
    return " ".join(f"{name}/{','.join(sorted(found[name]))}" for name in sorted(found))


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("name", TABLE)
def test_layout(tmp_path, name, kind):
    paths, expected, ignored, said = TABLE[name]
    root = write_tree(tmp_path / "d", tree(paths)) if kind == "folder" else as_zip(tmp_path / "d.zip", tree(paths))
    if expected == "error":
        with pytest.raises(DataError) as error:
            check_data(*open_train_and_val(root))
        assert said in str(error.value)
        return
    train, val = open_train_and_val(root)
    check = check_data(train, val)
    assert " | ".join(seen(images) for images in (check.train, check.val) if images) == expected
    shown = [f"{path.removeprefix(f'{root}/')} ({reason})" for path, reason in check.ignored]
    assert "; ".join(sorted(shown)) == ignored
    assert said in "; ".join(check.train.notes)
    assert bool(said) == bool(check.train.notes)
    everything = {item.name for item in open_data(root, unlabelled=True).items}
    listed = {item.name for images in (train, val) if images for item in images.items}
    assert listed <= everything


def test_evaluation_where_there_is_test_and_no_val_names_what_to_do(tmp_path):
    root = write_tree(tmp_path / "d", ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"])
    with pytest.raises(DataError) as error:
        open_data(root, split="val")
    assert str(error.value).endswith(f"got none; it has test/ and train/: name one of these, such as {root}/test/")
    assert seen(open_data(root / "test", split="val")) == "a/3 b/4"


def test_splits_given_one_by_one_stay_splits(tmp_path):
    root = write_tree(tmp_path / "d", ["train/a/1.png", "train/b/2.png", "val/a/3.png", "val/B/4.png"])
    train, val = open_train_and_val([root / "train", root / "val"])
    assert (seen(train), seen(val)) == ("a/1 b/2", "a/3 b/4")
    assert [note.rsplit("/", 1)[1] for note in train.notes] == [
        "train is read as split train, because of its name", "val is read as split val, because of its name",
    ]  # fmt: skip
    assert seen(open_data([root / "train", root / "val"], split="val")) == "a/3 b/4"


def test_several_sources_join_classes_by_the_same_rule(tmp_path):
    one = write_tree(tmp_path / "one", [f"{NFC}/1.png", "golden_retriever/2.png"])
    two = write_tree(tmp_path / "two", [f"{NFD}/3.png", "Golden retriever/4.png"])
    assert seen(open_data([one, two])) == f"{NFC}/1,3 golden_retriever/2,4"
    assert open_data(two).with_classes_of(open_data(one)).classes == open_data(one).classes


@pytest.mark.parametrize("char", ["\u0300", "\uff9e", "\u0f73"])
def test_runs_of_combining_marks_take_no_time(char):
    name = "a" + 200_000 * (char + "\u0323")
    start = time.process_time()
    labels = Labels((name, "b"), (name, "b"))
    assert labels.match([name, "B"]) == {name: 0, "B": 1}
    assert nfc(name) == nfc(nfc(name))
    assert time.process_time() - start < 5


def test_names_with_many_marks_still_match_in_every_form():
    name = "a\u0323\u0300 e\u0301" * 50
    labels = Labels((unicodedata.normalize("NFC", name),))
    assert labels.match([unicodedata.normalize("NFD", name)]) == {unicodedata.normalize("NFD", name): 0}


def test_exact_names_come_before_those_of_another_case():
    assert Labels(("A", "a")).match(["a", "A"]) == {"a": 1, "A": 0}
    with pytest.raises(DataError, match="matches 2 classes"):
        Labels(("Ab", "aB")).match(["ab"])


def test_zip_of_overlapping_members_is_refused(tmp_path):
    path = as_zip(tmp_path / "x.zip", ["a/1.png", "b/2.png"])
    data = path.read_bytes()
    second = data.rindex(b"PK\x01\x02")
    path.write_bytes(data[: second + 42] + bytes(4) + data[second + 46 :])  # both members at offset 0
    with pytest.raises(DataError, match="cannot be read .'a/1.png' overlaps what follows"):
        open_data(path)


def test_advice_names_the_folder_of_a_split_in_a_wrapper_and_zips_are_to_be_unpacked(tmp_path):
    names = ["w/train/a/1.png", "w/train/b/2.png", "w/test/a/3.png"]
    root, path = write_tree(tmp_path / "d", names), as_zip(tmp_path / "d.zip", names)
    with pytest.raises(DataError, match=rf"it has w/test/ and w/train/: name one of these, such as {root}/w/test/$"):
        open_data(root, split="val")
    with pytest.raises(DataError, match="it has w/test/ and w/train/: unpack and name one$"):
        open_data(path, split="val")


FOLDERS = ["train", "val", "test", "dev", "cat", "dog", "Cat", "images", ".net", "@eaDir", "thumbs", NFC, NFD]


@pytest.mark.parametrize("seed", range(60))
def test_no_file_disappears_and_no_split_becomes_a_class_in_silence(tmp_path, seed):
    draw = random.Random(seed)
    pool = draw.sample(FOLDERS, draw.randint(2, 6))
    paths = set()
    for number in range(draw.randint(1, 12)):
        folders = [draw.choice(pool) for _ in range(draw.choice((0, 1, 1, 2, 2, 2, 3)))]
        paths.add("/".join([*folders, f"{number}{draw.choice(('.png', '.png', '', '.txt'))}"]))
    root = write_tree(tmp_path / "d", sorted(paths))

    def missing(names):
        files = [f"{root}/{path}" for path in paths]
        return [file for file in files if not any(file == name or file.startswith(f"{name}/") for name in names)]

    assert missing({item.name for item in open_everything([root]).items}) == []
    files, named = set(), []
    for split in ("train", "val", "test"):
        try:
            images = open_data(root, split=split)
        except DataError:  # says which folders it found, or is in the way of all splits
            return
        files |= {item.name for item in images.items} | {name for name, _ in images.ignored}
        named.append({split_of(name) for name in images.classes} - {None})
    assert missing(files) == []
    assert all(len(kinds) < 2 for kinds in named)
