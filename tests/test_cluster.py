"""Bulk prediction on a local cluster of two machines with one processor each; both kinds of loss happen on the way."""

import json
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from image_files import encode, photo
from networks import random_network, tiny_spec
from ray_workers import busy_workers
from squeezenet import Classifier
from squeezenet.cli import cli
from squeezenet.cluster import ClusterTasks, predict_to_parquet
from squeezenet.errors import ClusterError, DataError
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing

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

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


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
        (None, "expected an image (JPEG, PNG, WEBP, BMP, GIF), got something else")
    }


def test_lost_worker_costs_nothing_but_time(cluster, job, tmp_path):
    killed = []

    def kill(done, total):
        if not killed and (found := busy_workers("classify_block")):
            os.kill(found[0], signal.SIGKILL)
            killed.append(done)

    result = predict_to_parquet(job / "tiny.sqz", [job / "photos"] * 200, tmp_path / "out.parquet", on_progress=kill)
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
        predict_to_parquet(*arguments, on_progress=stop)
    parts = tmp_path / "out.parquet.parts"
    stamps = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert len(stamps) == 2
    assert not (tmp_path / "out.parquet").exists()

    with pytest.raises(ClusterError, match="expected the run that was begun here, got another top"):
        predict_to_parquet(*arguments, top=3)

    seen = []
    result = predict_to_parquet(*arguments, on_progress=lambda done, total: seen.append(done))
    assert seen == [384, 512, 640]
    assert (result.n_images, result.n_earlier) == (640, 256)
    check_complete(tmp_path / "out.parquet", job, 640)

    again = predict_to_parquet(*arguments)  # finished: nothing is left to do
    assert (again.n_earlier, again.n_errors, again.n_processors) == (640, 40, 0)


def test_parquet_columns_and_uris_are_read(cluster, job, tmp_path):
    names = sorted((job / "photos").iterdir())
    values = [{"bytes": path.read_bytes(), "path": path.name} for path in names[:5]] + [None]
    pq.write_table(pa.table({"image": values, "label": list(range(6))}), tmp_path / "set.parquet", row_group_size=4)
    sources = [tmp_path / "set.parquet", (job / "photos").as_uri()]
    predict_to_parquet(job / "tiny.sqz", sources, tmp_path / "out.parquet", top=2)
    rows = rows_of(tmp_path / "out.parquet")
    assert [row["path"].rsplit("/", 1)[-1] for row in rows[:7]] == [*(f"set.parquet#{n}" for n in range(6)), "00.jpg"]
    assert rows[5]["error"] == "expected an image, got nothing"
    assert rows[3]["error"] == "expected an image (JPEG, PNG, WEBP, BMP, GIF), got something else"
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

    predict_to_parquet(job / "tiny.sqz", [job / "photos"] * 100, tmp_path / "out.parquet", on_progress=remove)
    check_complete(tmp_path / "out.parquet", job, 1600)


def test_without_ray_one_line_says_what_to_install(job, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["predict", str(job / "tiny.sqz"), str(job / "photos"), "--ray", "local", "-o", str(tmp_path / "o")]
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stderr) == (
        1, "Error: this needs `ray`, which is not installed: run `pip install squeezenet[ray]`\n",
    )  # fmt: skip


@pytest.mark.parametrize("more", [["--ray", "local"], ["-o", "x.parquet"], ["--ray", "local", "-o", "x", "--json"]])
def test_options_that_do_not_fit_are_refused(job, more):
    result = CliRunner().invoke(cli, ["predict", str(job / "tiny.sqz"), str(job / "photos"), *more])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2, "Error: --ray and -o go together, and exclude --json and --csv",
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
        with pytest.raises(ClusterError, match="another process is at work"):
            predict_to_parquet(job / "tiny.sqz", [job / "photos"], tmp_path / "out.parquet")


def test_job_file_that_is_damaged_is_no_traceback(job, tmp_path):
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "job.json").write_text(json.dumps([1]))
    with pytest.raises(ClusterError, match="got another job"):
        predict_to_parquet(job / "tiny.sqz", [job / "photos"], tmp_path / "out.parquet")
