"""A table of files and labels as DATA."""

import pytest
from PIL import Image

from image_files import encode
from squeezenet import open_data
from squeezenet.data.imageset import open_train_and_val
from squeezenet.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "c.png", "in/a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(Image.new("RGB", (4, 4), (len(name), 0, 0))))
    return tmp_path


def table(folder, text, name="labels.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def found(images):
    return [(item.name.split("labels.csv/")[1], images.classes[item.label]) for item in images.items]


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,dog\nb.png,cat\nin/a.png,cat\n",
        "\ufefflabel;file\ndog;a.png\ncat;b.png\ncat;in/a.png\n",
        'id\tImage_Path\tCategory\n1\ta.png\tdog\n\n2\tb.png\t"cat"\n3\tin/a.png\t cat \n',
    ],
)
def test_files_and_classes_are_read(folder, text):
    images = open_data(table(folder, text))
    assert images.classes == ("cat", "dog")
    assert found(images) == [("cat/a.png", "cat"), ("cat/b.png", "cat"), ("dog/a.png", "dog")]
    assert images.read(0) == (folder / "in/a.png").read_bytes()
    assert images.ignored == ()


def test_splits_are_those_of_a_column(folder):
    path = table(folder, "file,label,split\na.png,dog,train\nb.png,cat,train\nc.png,cat,valid\n")
    train, val = open_train_and_val(path)
    assert [name for name, _ in found(train)] == ["train/cat/b.png", "train/dog/a.png"]
    assert [name for name, _ in found(val)] == ["valid/cat/c.png"]


def test_rows_that_cannot_be_used_are_named(folder):
    (folder / "text.txt").write_text("no image")
    rows = ["a.png,dog", "gone.png,dog", ",cat", "b.png", "a.png,dog", "text.txt,cat", "c.png,cat"]
    images = open_data(table(folder, "\n".join(["file,label", *rows])))
    assert found(images) == [("cat/c.png", "cat"), ("dog/a.png", "dog")]
    assert [(name.rsplit("/", 1)[-1], reason) for name, reason in images.ignored] == [
        ("labels.csv, row 3", "gone.png: no such file"),
        ("labels.csv, row 4", "no file"),
        ("labels.csv, row 5", "no class"),
        ("labels.csv, row 6", "a.png: already in row 2"),
        ("labels.csv, row 7", "text.txt: not an image"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a first row that names the columns file and label, got ''"),
        ("a.png,dog\n", "expected a first row that names the columns file and label, got 'a.png, dog'"),
        ("file,label\na.png,dog\na.png,cat\n", "row 3: a.png is 'cat' here and 'dog' in row 2"),
        ("file,label,split\na.png,dog,fold1\n", "row 2: expected a split such as train, val or test, got 'fold1'"),
        ("file,label\ngone.png,dog\n", r"expected images .*, got none; ignored 1, such as .*row 2 \(gone.png: no such"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(folder, text, message):
    with pytest.raises(DataError, match=message):
        open_data(table(folder, text))


def test_table_that_is_not_text_is_refused(folder):
    (folder / "labels.csv").write_bytes(b"file,label\n\xff\xfe,dog\n")
    with pytest.raises(DataError, match=r"labels\.csv: expected a table in UTF-8"):
        open_data(folder / "labels.csv")


def test_a_table_is_known_by_its_first_row(folder):
    (folder / "labels.csv").write_bytes(b"file,label\na.png,dog\n\xff\xfe,dog\n")
    with pytest.raises(DataError, match=r"labels\.csv: expected a table in UTF-8"):
        open_data(folder / "labels.csv", unlabelled=True)


def test_images_of_a_table_serve_without_their_classes(folder):
    images = open_data(table(folder, "file,label\na.png,dog\nb.png,cat\n"), unlabelled=True)
    assert [item.label for item in images.items] == [None, None]
    other = open_data(table(folder, "x,y\n1,2\n", "notes.csv"), unlabelled=True)  # taken for an image, as other files
    assert [item.name for item in other.items] == [str(folder / "notes.csv")]
