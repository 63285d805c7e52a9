"""Bulk prediction on a local cluster of two machines with one processor each; both kinds of loss happen on the way."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from image_files import encode, photo, write_tree
from networks import random_network, tiny_spec
from ray_workers import busy_workers
from squeezenet import Classifier
from squeezenet.cli import cli
from squeezenet.cluster import ClusterTasks, predict_to_parquet
from squeezenet.cluster.connection import connected
from squeezenet.cluster.entries import list_entries
from squeezenet.cluster.parts import Parts
from squeezenet.errors import ClusterError, DataError
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.images import IMAGE_FORMATS
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing
from squeezenet.process import keeping_signal_handlers
from squeezenet.progress import SilentReporter, Task

# Ray's own, in importing and in what it leaves to the interpreter's end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
N_PHOTOS = 16


@pytest.fixture(scope="module")
def cluster():
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0")
    import ray
    from ray.cluster_utils import Cluster

    with keeping_signal_handlers():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        cluster.machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_a_cluster_leaves_the_handlers_of_signals_as_they_were(monkeypatch):
    """Ray never takes its handler of SIGTERM back: a `multiprocessing.Pool` made later could not end its processes."""
    ray = types.SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **_: signal.signal(signal.SIGTERM, lambda *_: None),
        cluster_resources=lambda: {"CPU": 3.0},
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    before = signal.getsignal(signal.SIGTERM)
    with connected("local") as processors:
        assert processors == 3
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A network, and a folder of photos of which one is broken."""
    folder = tmp_path_factory.mktemp("bulk")
    spec = tiny_spec(input_size=32, num_classes=5)
    preprocessing = Preprocessing(crop_size=32, resize_size=32)
    labels = Labels(("ant", "bee", "cat", "dog", "eel"))
    contents = SqzFile(network=random_network(spec), labels=labels, preprocessing=preprocessing)
    write_sqz(folder / "tiny.sqz", contents)
    (folder / "photos").mkdir()
    for number in range(N_PHOTOS):
        data = encode(photo(40 + number, 40), "JPEG") if number != 3 else b"broken"
        (folder / "photos" / f"{number:02}.jpg").write_bytes(data)
    return folder


def rows_of(path):
    return pq.read_table(path).to_pylist()


def check_complete(path, job, n_images):
    """Every image once and in order, with what the classifier says by itself."""
    rows = rows_of(path)
    assert [row["index"] for row in rows] == list(range(n_images))
    classifier = Classifier(job / "tiny.sqz")
    for number in range(N_PHOTOS):
        if number == 3:
            continue
        (best, *_), *_ = classifier.predict(job / "photos" / f"{number:02}.jpg")
        for row in rows[number::N_PHOTOS]:
            assert (Path(row["path"]).name, row["class"], row["probability"], row["error"]) == (
                f"{number:02}.jpg", best.label, best.probability, None,
            )  # fmt: skip
    broken = rows[3::N_PHOTOS]
    assert {(row["class"], row["error"]) for row in broken} == {
        (None, f"expected an image ({', '.join(IMAGE_FORMATS)}), got something else")
    }


class Calling(SilentReporter):
    """Calls a function with the numbers of images done and of all."""

    def __init__(self, function):
        self.function = function

    @contextlib.contextmanager
    def task(self, title, total, unit="img", done=0):
        yield Task(lambda done, text: self.function(done, total), total, unit, done)


def test_lost_worker_costs_nothing_but_time(cluster, job, tmp_path):
    killed = []

    def kill(done, total):
        if not killed and (found := busy_workers("classify_block")):
            os.kill(found[0], signal.SIGKILL)
            killed.append(done)

    result = predict_to_parquet(
        job / "tiny.sqz", [job / "photos"] * 200, tmp_path / "out.parquet", progress=Calling(kill)
    )
    assert killed
    assert killed[0] < 3200
    assert (result.n_images, result.n_errors, result.n_earlier, result.n_processors) == (3200, 200, 0, 2)
    check_complete(tmp_path / "out.parquet", job, 3200)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


class Stop(Exception):  # noqa: N818
    pass


def test_stopped_run_classifies_nothing_twice(cluster, job, tmp_path):
    arguments = (job / "tiny.sqz", [job / "photos"] * 40, tmp_path / "out.parquet")

    def stop(done, total):
        if done >= 256:
            raise Stop

    with pytest.raises(Stop):
        predict_to_parquet(*arguments, progress=Calling(stop))
    parts = tmp_path / "out.parquet.parts"
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(stamps) == 2
    assert not (tmp_path / "out.parquet").exists()

    with pytest.raises(ClusterError, match="expected the run that was begun here, got another top"):
        predict_to_parquet(*arguments, top=3)

    seen = []
    result = predict_to_parquet(*arguments, progress=Calling(lambda done, total: seen.append(done)))
    assert seen == [384, 512, 640]
    assert (result.n_images, result.n_earlier) == (640, 256)
    check_complete(tmp_path / "out.parquet", job, 640)

    again = predict_to_parquet(*arguments)  # finished: nothing is left to do
    assert (again.n_earlier, again.n_errors, again.n_processors) == (640, 40, 0)


DRIVER = """
import sys
from squeezenet import predict_to_parquet
model, photos, out, address = sys.argv[1:]
predict_to_parquet(model, [photos] * 40, out, address=address)
"""


def test_killed_driver_costs_nothing_but_time(cluster, job, tmp_path):
    out, parts = tmp_path / "out.parquet", tmp_path / "out.parquet.parts"
    before = 0
    for _ in range(2):
        command = [sys.executable, "-c", DRIVER, job / "tiny.sqz", job / "photos", out, cluster.address]
        driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while driver.poll() is None and len(list(parts.glob("*.parquet"))) <= before:
            time.sleep(0.001)
        driver.kill()
        driver.wait()
        before = len(list(parts.glob("*.parquet")))
    result = predict_to_parquet(job / "tiny.sqz", [job / "photos"] * 40, out)
    assert (result.n_images, result.n_earlier) == (640, 128 * before)
    assert before >= 2
    check_complete(out, job, 640)
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_parquet_columns_and_uris_are_read(cluster, job, tmp_path):
    names = sorted((job / "photos").iterdir())
    values = [{"bytes": path.read_bytes(), "path": path.name} for path in names[:5]] + [None]
    pq.write_table(pa.table({"image": values, "label": list(range(6))}), tmp_path / "set.parquet", row_group_size=4)
    sources = [tmp_path / "set.parquet", (job / "photos").as_uri()]
    predict_to_parquet(job / "tiny.sqz", sources, tmp_path / "out.parquet", top=2)
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["path"].rsplit("/", 1)[-1] for row in rows[:7]] == [*(f"set.parquet#{n}" for n in range(6)), "00.jpg"]
    assert rows[5]["error"] == "expected an image, got nothing"
    assert rows[3]["error"] == f"expected an image ({', '.join(IMAGE_FORMATS)}), got something else"
    assert [row["probability"] for row in rows[:3]] == [row["probability"] for row in rows[6:9]]
    assert len(rows) == 6 + N_PHOTOS
    assert len(rows[0]["top_classes"]) == len(rows[0]["top_probabilities"]) == 2
    assert rows[0]["top_probabilities"][0] == rows[0]["probability"]


def test_command_line_writes_the_file_and_says_how_many(cluster, job, tmp_path):
    out = tmp_path / "out.parquet"
    arguments = ["predict", str(job / "tiny.sqz"), str(job / "photos"), "--ray", "local", "-o", str(out)]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{out}: 16 images, 1 could not be read\n")
    assert len(rows_of(out)) == N_PHOTOS


def test_calls_come_back_as_they_end(cluster):
    with ClusterTasks.open("local", pow) as tasks:
        assert tasks.capacity == 2
        tasks.submit("a", 2, 5)
        tasks.submit("b", 3, 2)
        results = {tasks.next_result(lambda: False) for _ in range(2)}
    assert results == {("a", 32), ("b", 9)}


def test_call_that_raises_names_itself(cluster):
    with ClusterTasks.open("local", int) as tasks:
        tasks.submit("trial 7", "x")
        with pytest.raises(ClusterError, match="trial 7: ValueError: invalid literal"):
            tasks.next_result(lambda: False)


def test_call_that_kills_every_worker_is_given_up(cluster):
    with ClusterTasks.open("local", os._exit) as tasks, pytest.raises(ClusterError, match=r"a\.jpg to b\.jpg: "):
        list(tasks.run_all([("a.jpg to b.jpg", (1,))]))


def test_machine_that_joins_gets_calls(cluster, monkeypatch):
    monkeypatch.setattr("squeezenet.cluster.tasks._COUNT_EVERY_S", 0.0)
    with ClusterTasks.open("local", pow) as tasks:
        before = tasks.capacity
        joined = cluster.add_node(num_cpus=1)
        assert len(list(tasks.run_all((number, (number, 2)) for number in range(12)))) == 12
        assert tasks.capacity == before + 1
    cluster.remove_node(joined)


# The last, since the machine does not come back.
def test_lost_machine_costs_nothing_but_time(cluster, job, tmp_path):
    def remove(done, total):
        if len(cluster.machines) == 2:
            cluster.remove_node(cluster.machines.pop(), allow_graceful=False)

    predict_to_parquet(job / "tiny.sqz", [job / "photos"] * 100, tmp_path / "out.parquet", progress=Calling(remove))
    check_complete(tmp_path / "out.parquet", job, 1600)


def test_without_ray_one_line_says_what_to_install(job, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["predict", str(job / "tiny.sqz"), str(job / "photos"), "--ray", "local", "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stderr) == (
        1, "Error: this needs `ray`, which is not installed: run `pip install squeezenet[ray]`\n",
    )  # fmt: skip


@pytest.mark.parametrize("more", [["--ray", "local"], ["--ray", "local", "-o", "x", "--json"]])
def test_options_that_do_not_fit_are_refused(job, more):
    result = CliRunner().invoke(cli, ["predict", str(job / "tiny.sqz"), str(job / "photos"), *more])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2, "Error: --ray needs -o OUT.parquet, and cannot be combined with --json or --csv",
    )  # fmt: skip


def test_columns_that_are_no_images_are_named(job, tmp_path):
    pq.write_table(pa.table({"a": [b"1"], "b": [b"2"], "c": [3]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match="or one called `image`, got a, b among a, b, c"):
        predict_to_parquet(job / "tiny.sqz", [tmp_path / "set.parquet"], tmp_path / "out.parquet")


def test_file_that_is_no_parquet_is_one_error(job, tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="expected a Parquet file, got something else"):
        predict_to_parquet(job / "tiny.sqz", [tmp_path / "set.parquet"], tmp_path / "out.parquet")


def test_run_under_way_is_not_disturbed(job, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    with (parts / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ClusterError, match="another process is using this folder"):
            predict_to_parquet(job / "tiny.sqz", [job / "photos"], tmp_path / "out.parquet")


def test_job_file_that_is_damaged_is_no_traceback(job, tmp_path):
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "job.json").write_text(json.dumps([1]))
    with pytest.raises(ClusterError, match="got another job"):
        predict_to_parquet(job / "tiny.sqz", [job / "photos"], tmp_path / "out.parquet")


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8))


def small_job(job, tmp_path, names=("a.png", "b.png")):
    """A folder of photos that differ, and the arguments of a job on it; no worker runs where all is done."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes(encode(picture(number), "PNG"))
    return folder, (job / "tiny.sqz", [folder], tmp_path / "out.parquet")


def check_answers(path, job, files):
    """Every row is what the classifier says of the file named, each once."""
    rows = rows_of(path)
    assert [Path(row["path"]).name for row in rows] == [file.name for file in files]
    classifier = Classifier(job / "tiny.sqz")
    for row, file in zip(rows, files, strict=True):
        ((best, *_),) = classifier.predict([file])
        assert (row["class"], row["probability"]) == (best.label, best.probability)


def replace_in_place(folder):
    (folder / "a.png").write_bytes(encode(picture(9), "PNG"))


def replace_keeping_size_and_time(folder):
    path = folder / "a.png"
    before, data = path.stat(), encode(picture(9), "BMP")
    path.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange_names(folder):
    (folder / "a.png").rename(folder / "c")
    (folder / "b.png").rename(folder / "a.png")
    (folder / "c").rename(folder / "b.png")


def turn_a_link_elsewhere(folder):
    (folder / "a.png").rename(folder.parent / "old.png")
    (folder.parent / "new.png").write_bytes(encode(picture(11), "PNG"))
    (folder / "a.png").symlink_to(folder.parent / "new.png")


def put_another_folder_there(folder):
    folder.rename(folder.parent / "before")
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png")):
        (folder / name).write_bytes(encode(picture(20 + number), "PNG"))


CHANGES = [
    replace_in_place, replace_keeping_size_and_time, exchange_names, turn_a_link_elsewhere, put_another_folder_there,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_result_does_not_stand_for_other_images(cluster, job, tmp_path, change):
    folder, arguments = small_job(job, tmp_path)
    assert predict_to_parquet(*arguments).n_earlier == 0
    assert predict_to_parquet(*arguments).n_earlier == 2
    change(folder)
    assert predict_to_parquet(*arguments).n_earlier == 0
    if change is not replace_keeping_size_and_time:
        check_answers(arguments[2], job, sorted(folder.iterdir()))


@pytest.mark.parametrize("change", CHANGES)
def test_an_interrupted_run_does_not_go_on_with_other_images(cluster, job, tmp_path, change):
    folder, arguments = small_job(job, tmp_path)
    with pytest.raises(Stop):
        predict_to_parquet(*arguments, progress=Calling(stop_at_once))
    change(folder)
    with pytest.raises(ClusterError, match="got other images, or changed ones: use the same arguments"):
        predict_to_parquet(*arguments)


def stop_at_once(done, total):
    raise Stop


def test_another_folder_with_the_same_names_is_another_job(cluster, job, tmp_path, monkeypatch):
    for number, place in enumerate(("x", "y")):
        (tmp_path / place / "photos").mkdir(parents=True)
        (tmp_path / place / "photos" / "0.png").write_bytes(encode(picture(number), "PNG"))
    for place in ("x", "y"):
        monkeypatch.chdir(tmp_path / place)
        assert predict_to_parquet(job / "tiny.sqz", ["photos"], "../out.parquet").n_earlier == 0
        check_answers(tmp_path / "out.parquet", job, [tmp_path / place / "photos" / "0.png"])


def test_another_zip_with_the_same_members_is_another_job(cluster, job, tmp_path):
    for number in range(2):
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            archive.writestr("0.png", encode(picture(number), "PNG"))
        result = predict_to_parquet(job / "tiny.sqz", [tmp_path / "set.zip"], tmp_path / "out.parquet")
        assert result.n_earlier == 0


@pytest.mark.parametrize("name", ["thesis/chapter.txt", "notes.txt", "000000.parquet", "lock", "job.json"])
def test_a_folder_of_somebody_else_is_refused_and_left_alone(job, tmp_path, name):
    _, arguments = small_job(job, tmp_path)
    path = tmp_path / "out.parquet.parts" / name
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    with pytest.raises(ClusterError, match="choose another output"):
        predict_to_parquet(*arguments)
    assert [entry for entry in (tmp_path / "out.parquet.parts").rglob("*") if entry.is_file()] == [path]
    assert path.read_text() == "years of work"
    assert not arguments[2].exists()


def test_what_somebody_puts_among_the_parts_stays(cluster, job, tmp_path):
    _, arguments = small_job(job, tmp_path)
    with pytest.raises(Stop):
        predict_to_parquet(*arguments, progress=Calling(stop_at_once))
    parts = tmp_path / "out.parquet.parts"
    (parts / "notes.txt").write_text("mine")
    assert predict_to_parquet(*arguments).n_earlier == 2
    assert [path.name for path in parts.iterdir()] == ["notes.txt"]
    assert predict_to_parquet(*arguments).n_earlier == 2


def test_a_link_to_a_folder_may_hold_the_parts(cluster, job, tmp_path):
    _, arguments = small_job(job, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out.parquet.parts").symlink_to(tmp_path / "elsewhere")
    for n_earlier in (0, 2):
        assert predict_to_parquet(*arguments).n_earlier == n_earlier
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_output_may_lie_in_the_folder_that_is_read(cluster, job, tmp_path):
    folder, (model, sources, _) = small_job(job, tmp_path)
    (tmp_path / "way").symlink_to(folder)
    for place in (folder, tmp_path / "way"):
        output = place / "out.parquet"
        with pytest.raises(Stop):
            predict_to_parquet(model, sources, output, progress=Calling(stop_at_once))
        for damage in (folder / "out.parquet.parts").glob("*.parquet"):
            damage.write_bytes(b"")
        for n_earlier in (0, 2):  # with damaged parts in it, then with the result in it
            assert predict_to_parquet(model, sources, output).n_earlier == n_earlier
        assert predict_to_parquet(model, sources, folder / "second.parquet").n_images == 2
        for path in folder.glob("*.parquet"):
            path.unlink()


def test_a_folder_that_links_to_itself_is_read_once(cluster, job, tmp_path):
    folder, _ = small_job(job, tmp_path)
    pq.write_table(pa.table({"image": [(folder / "a.png").read_bytes()]}), folder / "set.parquet")
    (folder / "self").symlink_to(folder)
    for source in (folder, folder.as_uri()):
        out = tmp_path / "out.parquet"
        assert predict_to_parquet(job / "tiny.sqz", [source], out).n_images == 3
        assert [row["path"].rsplit("/")[-1] for row in rows_of(out)] == ["a.png", "b.png", "set.parquet#0"]


def test_damaged_parts_are_made_again(cluster, job, tmp_path):
    folder, arguments = small_job(job, tmp_path)
    with pytest.raises(Stop):
        predict_to_parquet(*arguments, progress=Calling(stop_at_once))
    (part,) = (tmp_path / "out.parquet.parts").glob("*.parquet")
    whole, parts = part.read_bytes(), Parts(arguments[2], json.loads((part.parent / "job.json").read_bytes()))
    rng = np.random.default_rng(0)
    assert parts_are_read(parts, part)
    for position in rng.choice(8 * len(whole), 300, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        part.write_bytes(damaged)
        assert not parts_are_read(parts, part)
    assert predict_to_parquet(*arguments).n_earlier == 0
    check_answers(arguments[2], job, sorted(folder.iterdir()))


def parts_are_read(parts, part):
    parts._files[0] = {part}
    return parts.read(0, 2) is not None


def test_a_damaged_result_is_made_again(cluster, job, tmp_path):
    folder, arguments = small_job(job, tmp_path)
    predict_to_parquet(*arguments)
    data = bytearray(arguments[2].read_bytes())
    position = data.find(b"in/a.png")
    data[position] ^= 1
    arguments[2].write_bytes(data)
    assert predict_to_parquet(*arguments).n_earlier == 0
    check_answers(arguments[2], job, sorted(folder.iterdir()))


def test_an_object_store_is_read_and_replaced_objects_are_other_images(cluster, job, tmp_path, monkeypatch):
    folder, (model, _, output) = small_job(job, tmp_path)
    pq.write_table(pa.table({"image": [(folder / "a.png").read_bytes()] * 2}), folder / "set.parquet")
    (folder / ".hidden.png").write_bytes(b"")

    class AnyFileSystem(type):
        def __instancecheck__(cls, value):
            return isinstance(value, file_system)

    file_system = pyarrow.fs.FileSystem

    class Store(metaclass=AnyFileSystem):
        @staticmethod
        def from_uri(uri):
            return pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem()), uri.removeprefix("s3://")

    monkeypatch.setattr("pyarrow.fs.FileSystem", Store)
    for n_earlier in (0, 4):
        assert predict_to_parquet(model, ["s3://in"], output).n_earlier == n_earlier
    rows = rows_of(output)
    names = ["a.png", "b.png", "set.parquet#0", "set.parquet#1"]
    assert [row["path"] for row in rows] == [f"s3://in/{name}" for name in names]
    assert {row["error"] for row in rows} == {None}
    assert rows[0]["probability"] == rows[2]["probability"] == rows[3]["probability"]
    replace_in_place(folder)
    assert predict_to_parquet(model, ["s3://in"], output).n_earlier == 0
    assert rows_of(output)[0]["probability"] != rows[0]["probability"]


def test_files_that_are_not_images_are_rows_with_a_reason(tmp_path):
    folder = write_tree(tmp_path / "photos", ["a.png", "notes.txt", "@eaDir/a.png"])
    with zipfile.ZipFile(tmp_path / "report.docx", "w") as archive:
        archive.writestr("a.xml", "x")
    readers, entries = list_entries([str(folder), str(tmp_path / "report.docx")])
    rows = {name: str(data) for entry in entries for name, data in readers[entry.source].read(entry)}
    assert list(rows) == [*(f"{folder}/{name}" for name in ("a.png", "@eaDir", "notes.txt")), f"{tmp_path}/report.docx"]
    assert list(rows.values())[1:] == [
        "ignored: of a photo server", "ignored: not an image",
        "expected an image or a zip of images, got a zip without any",
    ]  # fmt: skip
    with pytest.raises(DataError, match="expected images, got none"):
        list_entries([str(tmp_path / "report.docx")])
