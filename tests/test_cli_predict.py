import csv
import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from commands import HOSTILE, SHOWN, run
from image_files import encode, photo, png
from networks import random_network, tiny_spec
from squeezenet import Classifier
from squeezenet.cli import cli, predict
from squeezenet.engine import native_kernels
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing


def write_model(path, labels=("ant", "bee", "cat", "dog", "eel")):
    spec = tiny_spec(input_size=32, num_classes=len(labels))
    contents = SqzFile(
        network=random_network(spec), labels=Labels(labels), preprocessing=Preprocessing(crop_size=32, resize_size=32)
    )
    write_sqz(path, contents)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.sqz")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("b.png", "a.jpg")):
        (folder / name).write_bytes(encode(photo(40, 40 + 9 * number), "PNG" if name.endswith("png") else "JPEG"))
    return folder


def table_of(model, *paths, top=5):
    """What the table must show, from the classifier itself."""
    lines = []
    for path in paths:
        lines.append(str(path))
        (predictions,) = Classifier(model).predict(path, top=top)
        lines += [f"    {100 * p.probability:5.1f} %  {p.label}" for p in predictions]
    return "\n".join(lines) + "\n"


def records_of(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def names_of(result):
    return [os.path.basename(record["image"]) for record in records_of(result)]


def test_table_shows_the_image_and_its_classes(model, photos):
    result = run("predict", model, photos / "b.png", "-k", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == table_of(model, photos / "b.png", top=2)
    assert result.stdout.count("\n") == 3


def test_several_files_keep_their_order(model, photos):
    result = run("predict", model, photos / "b.png", photos / "a.jpg")
    assert (result.exit_code, result.stdout) == (0, table_of(model, photos / "b.png", photos / "a.jpg"))


def test_json_is_one_object_a_line(model, photos):
    result = run("predict", model, photos / "b.png", photos / "a.jpg", "--json", "--top", "3")
    assert result.exit_code == 0
    records = records_of(result)
    assert names_of(result) == ["b.png", "a.jpg"]
    for record, path in zip(records, ("b.png", "a.jpg"), strict=True):
        assert record["predictions"] == [
            {"index": p.index, "label": p.label, "probability": p.probability}
            for p in Classifier(model).predict(photos / path, top=3)[0]
        ]
        assert set(record) == {"image", "predictions"}


def test_csv_is_one_row_a_class(model, photos):
    (photos / "bad.png").write_bytes(b"nothing")
    result = run("predict", model, photos / "b.png", photos / "bad.png", "--csv", "-k", "2")
    assert result.exit_code == 0
    rows = list(csv.reader(io.StringIO(result.stdout)))
    (predictions,) = Classifier(model).predict(photos / "b.png", top=2)
    assert rows[0] == ["image", "rank", "index", "label", "probability", "is_unknown", "error"]
    assert rows[1:3] == [
        [str(photos / "b.png"), str(rank), str(p.index), p.label, str(p.probability), "", ""]
        for rank, p in enumerate(predictions, start=1)
    ]
    assert rows[3][:6] == [str(photos / "bad.png"), "", "", "", "", ""]
    assert rows[3][6].startswith("expected an image")
    assert len(rows) == 4


def test_folder_is_read_in_the_order_of_names(model, photos):
    result = run("predict", model, photos, "--json")
    assert (result.exit_code, names_of(result)) == (0, ["a.jpg", "b.png"])


def test_bad_image_in_a_folder_is_one_error_record(model, photos):
    (photos / "aa.png").write_bytes(png()[:40])
    result = run("predict", model, photos, "--json")
    assert result.exit_code == 0
    assert names_of(result) == ["a.jpg", "aa.png", "b.png"]
    assert [set(record) for record in records_of(result)] == [
        {"image", "predictions"}, {"image", "error"}, {"image", "predictions"},
    ]  # fmt: skip


def test_bad_image_goes_to_stderr_in_the_table(model, photos):
    (photos / "bad.png").write_bytes(b"")
    result = run("predict", model, photos / "bad.png", photos / "b.png")
    assert (result.exit_code, result.stdout) == (0, table_of(model, photos / "b.png"))
    assert result.stderr == f"{photos / 'bad.png'}\n    error: the file is empty\n"


def test_exit_code_is_1_only_if_nothing_could_be_read(model, photos):
    (photos / "bad.png").write_bytes(b"")
    result = run("predict", model, photos / "bad.png", photos / "none.png", "--json")
    assert result.exit_code == 1
    assert result.stderr == "Error: no image could be read\n"
    assert names_of(result) == ["bad.png", "none.png"]
    assert all("error" in record for record in records_of(result))


def test_pattern_is_expanded(model, photos):
    result = run("predict", model, photos / "*.jpg", photos / "*.png", "--json")
    assert (result.exit_code, names_of(result)) == (0, ["a.jpg", "b.png"])


def test_pattern_that_fits_nothing_is_an_error_record(model, photos):
    for images in ([photos / "b.png", photos / "*.gif"], [photos / "*.gif", photos / "b.png"]):
        result = run("predict", model, *images, "--json")
        assert (result.exit_code, sorted(names_of(result))) == (0, ["*.gif", "b.png"])
        assert sum("no such file" in record.get("error", "") for record in records_of(result)) == 1


def test_pattern_that_fits_a_folder_reads_it_once(model, photos, tmp_path):
    result = run("predict", model, tmp_path / "ph*", "--json")
    assert (result.exit_code, names_of(result)) == (0, ["a.jpg", "b.png"])


def test_file_whose_name_is_a_pattern_is_taken_as_it_is(model, photos):
    path = photos / "[ab].png"
    path.write_bytes(encode(photo()))
    result = run("predict", model, path, "--json")
    assert (result.exit_code, names_of(result)) == (0, ["[ab].png"])


def test_file_without_extension_is_read(model, photos):
    (photos / "b.png").rename(photos / "photo")
    result = run("predict", model, photos / "photo")
    assert (result.exit_code, result.stdout) == (0, table_of(model, photos / "photo"))


def test_zip_is_read(model, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(photos / "b.png", "inner/b.png")
        archive.writestr("inner/notes.txt", "no image")
    result = run("predict", model, tmp_path / "photos.zip", "--json")
    assert (result.exit_code, names_of(result)) == (0, ["b.png", "notes.txt"])


def test_broken_zip_does_not_spoil_its_neighbours(model, photos, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 broken")
    result = run("predict", model, photos / "b.png", tmp_path / "broken.zip", photos / "a.jpg", "--json")
    assert (result.exit_code, names_of(result)) == (0, ["b.png", "broken.zip", "a.jpg"])
    assert ["error" in record for record in records_of(result)] == [False, True, False]


def test_standard_input_is_one_image(model, photos):
    result = run("predict", model, "-", "--json", input=(photos / "b.png").read_bytes())
    assert result.exit_code == 0
    (record,) = records_of(result)
    assert record["image"] == "-"
    assert record["predictions"][0]["probability"] == Classifier(model).predict(photos / "b.png")[0][0].probability


@pytest.mark.parametrize("data", [b"", b"nothing", png()[:30]])
def test_bad_standard_input_is_an_error_record(model, data):
    result = run("predict", model, "-", "--json", input=data)
    assert result.exit_code == 1
    (record,) = records_of(result)
    assert record["image"] == "-"
    assert not record["error"].startswith("image:")


def test_standard_input_goes_before_a_file_of_that_name(model, photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "-").write_bytes(b"a file")
    result = run("predict", model, "b.png", "-", "--json", input=(photos / "b.png").read_bytes())
    assert (result.exit_code, names_of(result)) == (0, ["b.png", "-"])
    assert all("error" not in record for record in records_of(result))


def test_hostile_labels_are_shown_harmlessly(tmp_path, photos):
    model = write_model(tmp_path / "hostile.sqz", HOSTILE)
    table = run("predict", model, photos / "b.png")
    assert table.exit_code == 0
    assert sorted(line[13:] for line in table.stdout.splitlines()[1:]) == sorted(SHOWN)
    as_csv = run("predict", model, photos / "b.png", "--csv")
    rows = csv.reader(io.StringIO(as_csv.stdout_bytes.decode(), newline=""))
    assert sorted(row[3].removeprefix("'") for row in rows) == sorted(["label", *HOSTILE])
    as_json = run("predict", model, photos / "b.png", "--json")
    assert sorted(p["label"] for p in records_of(as_json)[0]["predictions"]) == sorted(HOSTILE)
    assert table.stdout.replace("\n", "").isprintable()


@pytest.mark.parametrize("layout", ["--csv", "--json"])
def test_data_on_a_terminal_are_escaped(tmp_path, photos, layout, monkeypatch):
    monkeypatch.setattr(predict, "_is_shown", lambda: True)
    shown = run("predict", write_model(tmp_path / "hostile.sqz", HOSTILE), photos / "b.png", layout).stdout
    assert shown.replace("\n", "").isprintable()


NAMES = ("9.41.00\u202fAM", "non\u00a0breaking", "می\u200cخواهم", "👩\u200d🌾", "日本", "ca\u0301fe")


@pytest.mark.parametrize("layout", ["--csv", "--json"])
def test_names_are_data(tmp_path, photos, layout):
    """Narrow spaces, joiners and letters outside the console's code page are part of a name."""
    model = write_model(tmp_path / "names.sqz", NAMES)
    for name in NAMES:
        (photos / "b.png").rename(photos / f"{name}.png")
        arguments = ["predict", str(model), str(photos / f"{name}.png"), layout]
        result = CliRunner(charset="cp1252").invoke(cli, arguments)
        assert result.exit_code == 0, result.output
        lines = result.stdout_bytes.decode("utf-8")
        if layout == "--json":
            record = json.loads(lines)
            assert record["image"] == str(photos / f"{name}.png")
            assert {p["label"] for p in record["predictions"]} < set(NAMES)
        else:
            assert {row[0] for row in list(csv.reader(io.StringIO(lines)))[1:]} == {str(photos / f"{name}.png")}
        (photos / f"{name}.png").rename(photos / "b.png")


@pytest.mark.parametrize("name", ["=cmd|'calc'!A0", "+1", "-2+3", "@SUM(A1)", "\t=1"])
def test_cells_that_a_spreadsheet_would_run_are_made_harmless(tmp_path, photos, name, monkeypatch):
    monkeypatch.chdir(photos)
    model = write_model(tmp_path / "formula.sqz", (name,))
    rows = list(csv.reader(io.StringIO(run("predict", "-m", model, "b.png", "--csv").stdout)))
    assert rows[1][3] == f"'{name}"
    assert rows[1][0] == "b.png"


def test_hostile_file_names_are_shown_harmlessly(model, photos):
    path = photos / "\x1b[31m.png"
    (photos / "b.png").rename(path)
    (photos / "\x1b[32m.png").write_bytes(b"bad")
    result = run("predict", model, photos)
    assert result.exit_code == 0
    assert (result.stdout + result.stderr).replace("\n", "").isprintable()
    (photos / "\x1b[33m.sqz").write_bytes(b"no model")
    for name in ("\x1b[31m.sqz", "\x1b[33m.sqz"):  # missing, damaged
        result = run("predict", photos / name, path)
        assert result.exit_code == 1
        assert ascii(name)[1:-1] in result.stderr
        assert result.stderr.replace("\n", "").isprintable()


def test_folders_of_images_are_not_taken_for_a_model(model, photos, monkeypatch):
    for name in ("a", "b"):
        (photos / name).mkdir()
        (photos / f"{name}.copy.png").write_bytes(b"not an image")
        (photos / name / "1.png").write_bytes(encode(photo()))
    monkeypatch.chdir(photos)
    result = run("predict", "a", "b", "--json")
    assert [record["image"] for record in records_of(result)] == ["a/1.png", "b/1.png"]


def test_one_odd_path_does_not_end_the_others(model, photos):
    long, locked = "x" * 300 + ".png", photos / "locked"
    locked.mkdir()
    result = run("predict", model, photos / "b.png", long, "\0.png", photos / "a.jpg", "--json")
    assert result.exit_code == 0, result.output
    errors = [record.get("error") is not None for record in records_of(result)]
    assert errors == [False, True, True, False]


def test_model_without_labels_gives_numbers(tmp_path, photos):
    write_sqz(tmp_path / "nameless.sqz", SqzFile(network=random_network(tiny_spec())))
    result = run("predict", tmp_path / "nameless.sqz", photos / "b.png", "--json")
    assert all(p["label"] == str(p["index"]) for p in records_of(result)[0]["predictions"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("predict",), 2, "Missing argument 'IMAGE...'"),
        (("predict", "none.sqz"), 2, "Missing argument 'IMAGE...'"),
        (("predict", "none.sqz", "x.png"), 1, "Error: none.sqz: no such file or folder; a MODEL is"),
        (("predict", "none.sqz", "x.png", "-k", "0"), 2, "0 is not in the range x>=1"),
        (("predict", "none.sqz", "x.png", "--xml"), 2, "No such option"),
        (("predict", "-m", ".", "x.png"), 1, "Error: .: expected a run folder"),
        (("predict", ".", "x.png"), 1, "x.png\n    error: no such file or folder"),
        (("predict", ""), 1, "error: expected a file or a folder, got an empty name"),
        (("predict", "https://example.org/x.png"), 1, "got a URL: download it first"),
        (("predict", "a" * 300 + ".png"), 1, "error: "),
        (("predict", "model.pth", "x.png"), 1, "Error: model.pth: no such file or folder"),
        (("predict", "squeezenet2", "x.png"), 1, "Error: there is no MODEL 'squeezenet2': did you mean squeezenet1_"),
        (("nothing",), 2, "No such command 'nothing'"),
    ],
)
def test_bad_usage_is_explained(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert os.listdir(tmp_path) == []


def test_damaged_model_is_one_line(model, tmp_path):
    data = bytearray(model.read_bytes())
    data[-60] ^= 1
    (tmp_path / "damaged.sqz").write_bytes(data)
    result = run("predict", tmp_path / "damaged.sqz", "x.png")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / 'damaged.sqz'}: chunk ")
    assert result.stderr.count("\n") == 1


def test_closed_pipe_ends_quietly(model, photos):
    import subprocess
    import sys

    for number in range(300):
        (photos / f"{number}.png").write_bytes(png(number % 256))
    command = [sys.executable, "-m", "squeezenet", "predict", str(model), str(photos), "--csv"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore::UserWarning"}  # that the native engine is missing
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 1)


def test_closed_pipe_ends_with_code_1(model, photos, monkeypatch):
    from squeezenet.cli import predict

    def broken(answer, sink):
        raise BrokenPipeError

    moved = []
    monkeypatch.setattr(predict, "_json", broken)
    monkeypatch.setattr(os, "dup2", lambda old, new: moved.append(new))  # not the test's own output
    result = run("predict", model, photos / "b.png", "--json")
    assert (result.exit_code, result.output, moved) == (1, "", [1])


def test_letters_that_the_terminal_lacks_are_escaped(tmp_path, photos):
    import subprocess
    import sys

    model = write_model(tmp_path / "m.sqz", ("\u00e9t\u00e9", "\u732b"))
    command = [sys.executable, "-m", "squeezenet", "predict", str(model), str(photos / "b.png")]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert b"\\u732b\n" in result.stdout
    assert b"\xe9t\xe9\n" in result.stdout


def test_batches_do_not_change_the_figures(model, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    images = {f"{number:02d}.png": photo(33 + number, 40) for number in range(35)}
    for name, image in images.items():
        (folder / name).write_bytes(encode(image) if name != "17.png" else b"bad")
    result = run("predict", model, folder, "--json", "-k", "1")
    records = records_of(result)
    assert names_of(result) == sorted(images)
    assert "error" in records.pop(17)
    del images["17.png"]
    expected = [predictions[0].probability for predictions in Classifier(model).predict(images.values(), top=1)]
    np.testing.assert_array_equal([record["predictions"][0]["probability"] for record in records], expected)


def test_a_missing_engine_is_one_line_on_standard_error(model, photos):
    """Without a line of source and a file of ours, which Python's warnings show."""
    program = (
        "import sys; from squeezenet import native_library; from squeezenet.cli import main;"
        "native_library._load = lambda: (None, native_library._NOT_BUILT); main()"
    )
    command = [sys.executable, "-c", program, "predict", model, photos / "a.jpg"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stderr.startswith("warning: the native engine was not built")
    assert result.stderr.count("\n") == 1
    assert "ant" in result.stdout


def test_a_cold_start_has_no_pool_of_threads_for_numpy(model, photos):
    """NumPy's BLAS would start one as it is imported, 50 ms of 250, and the C engine does all the work."""
    if not native_kernels():
        pytest.skip("the C engine was not built")
    program = (
        "import sys, threadpoolctl; from squeezenet.cli import cli; cli(sys.argv[1:], standalone_mode=False);"
        "print([pool['num_threads'] for pool in threadpoolctl.threadpool_info() if pool['internal_api'] == 'openblas'])"
    )
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", program, "predict", model, photos / "a.jpg"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.splitlines()[-1] in ("[1]", "[]")


def test_every_file_of_a_folder_is_a_record(model, photos, tmp_path):
    folder = tmp_path / "all"
    (folder / "inner").mkdir(parents=True)
    image = photo()
    kinds = {
        "a.tif": "TIFF", "b.avif": "AVIF", "c.jp2": "JPEG2000", "d.ppm": "PPM", "e.mpo": "JPEG", "f.heic": "JPEG",
        "g.apng": "PNG", "h.ico": "ICO", "i": "JPEG", "inner/j.dat": "WEBP", "k.png": "TIFF",
    }  # fmt: skip
    for name, kind in kinds.items():
        image.save(folder / name, kind)
    broken = {
        "empty.png": b"", "empty": b"", "text.jpg": b"text", "notes.txt": b"text", ".DS_Store": b"x", "Thumbs.db": b"x",
        "real.heic": b"\0\0\0\x18ftypheic" + bytes(40), "film.mp4": b"\0\0\0\x18ftypisom", "page.pdf": b"%PDF-1.7",
    }  # fmt: skip
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    result = run("predict", model, folder, "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert sorted(record["image"] for record in records) == sorted(str(folder / name) for name in [*kinds, *broken])
    assert {record["image"] for record in records if "error" in record} == {str(folder / name) for name in broken}
    (heic,) = [record["error"] for record in records if record["image"].endswith("real.heic")]
    assert heic == "a HEIC image needs another package: pip install pillow-heif"


def test_documents_that_are_zips_without_pictures_are_records_in_their_place(model, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "report.docx", "w") as archive:
        archive.writestr("a.xml", "x")
    result = run("predict", model, tmp_path / "report.docx", photos / "b.png", tmp_path / "gone.jpg", "--json")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["image"].rsplit("/", 1)[1] for record in records] == ["report.docx", "b.png", "gone.jpg"]
    assert [record.get("error") for record in records] == [
        "expected an image or a zip of images, got a zip without any", None, "no such file or folder",
    ]  # fmt: skip
    (alone,) = run("predict", model, tmp_path / "report.docx", "--json").stdout.splitlines()
    assert json.loads(alone) == records[0]
    with zipfile.ZipFile(tmp_path / "report.docx", "a") as archive:
        archive.writestr("[Content_Types].xml", "x")
        archive.writestr("media/1.png", encode(photo()))
    (picture,) = run("predict", model, tmp_path / "report.docx", "--json").stdout.splitlines()
    assert json.loads(picture)["image"].endswith("report.docx/media/1.png")


@pytest.mark.parametrize(("name", "option"), [("out.csv", "--csv"), ("out.jsonl", "--json"), ("OUT.NDJSON", "--json")])
def test_records_go_to_a_file_as_to_the_console(model, photos, tmp_path, name, option):
    (photos / "日本\u202f=1.png").write_bytes(b"broken")
    shown = run("predict", model, photos, option)
    result = run("predict", model, photos, "-o", tmp_path / name)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / name}: 3 images, 1 could not be read\n")
    assert (tmp_path / name).read_bytes() == shown.stdout_bytes
    assert shown.stdout_bytes


def test_json_file_is_one_array(model, photos, tmp_path):
    (photos / "c.png").write_bytes(b"broken")
    for images in (photos, photos / "b.png"):
        assert run("predict", model, images, "-o", tmp_path / "out.json").exit_code == 0
        lines = run("predict", model, images, "--json").stdout.splitlines()
        assert json.loads((tmp_path / "out.json").read_bytes()) == [json.loads(line) for line in lines]


def test_file_of_records_is_written_whole_whatever_the_images(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"broken")
    result = run("predict", model, tmp_path / "a.png", "-o", tmp_path / "out.csv")
    assert (result.exit_code, result.stderr) == (1, "Error: no image could be read\n")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("more", [("-o", "x.parquet"), ("-o", "x"), ("-o", "x.csv", "--json")])
def test_outputs_of_other_names_are_refused_before_anything_is_read(model, more):
    result = run("predict", model, "none.png", *more)
    assert result.exit_code == 2
    assert "expected an output named *.csv, *.jsonl or *.json, or --ray for *.parquet, got x" in result.stderr


def test_lists_of_files_stand_for_their_lines(model, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "@a.png").write_bytes(encode(photo()))
    (photos / "list.txt").write_bytes(b"\xef\xbb\xbfb.png\r\n\r\na.jpg\r\nmissing.png\r\nhttps://a.de/b.png\r\n")
    result = run("predict", model, "@list.txt", "@a.png", "--json", "-k", 1)
    assert [record["image"] for record in records_of(result)] == [
        "b.png", "a.jpg", "missing.png", "https://a.de/b.png", "@a.png",
    ]  # fmt: skip
    assert run("predict", model, "@none.txt").stderr == "Error: none.txt: cannot be read (No such file or directory)\n"
    (photos / "empty.txt").write_text("\n")
    assert "expected names of images, one per line, got none" in run("predict", model, "@empty.txt").stderr


def test_model_that_comes_last_is_named(model, photos):
    for late in (model, "cifar10"):
        result = run("predict", photos / "b.png", late)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{late} is a MODEL: put it first, or use --model" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("evaluate", "cifar10", ""), ("train", "", "-o", "run"), ("train", "d", "-o", ""), ("train", "d", "--output="),
     ("compress", "cifar10", "-o", " "), ("export", "cifar10", "-o", ""), ("verify", "cifar10", "--images", "")],
)  # fmt: skip
def test_empty_arguments_are_not_the_working_folder(arguments, photos, monkeypatch):
    monkeypatch.chdir(photos)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected no empty argument: a variable of the shell may be unset" in result.stderr
    assert sorted(os.listdir()) == ["a.jpg", "b.png"]


def test_pipes_and_devices_are_records_of_predict(model):
    (record,) = records_of(run("predict", model, "/dev/null", "--json"))
    assert record["error"] == "expected an image, or a folder or zip of images, got a device, a pipe or a socket"
