import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from squeezenet import evaluate
from squeezenet.errors import DataError, TrainingError
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, load_model
from squeezenet.progress import PlainReporter
from squeezenet.reports.network_page import write_evaluation_page
from squeezenet.training import load_recipe
from squeezenet.training import step as step_module
from squeezenet.training import train as train_module
from squeezenet.training.run_report import run_facts, run_history, shown_facts
from squeezenet.training.state import TrainingState
from training_runs import TINY, digests, train, write_images

STEPS = 8  # 33 images in batches of 8, two epochs


class Crash(BaseException):
    """Stands for a process that dies: nothing handles it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "data")


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("whole") / "run")


def train_until_crash(data, run_dir, monkeypatch, number, **options):
    """Start a run that dies before its step `number`."""
    real_step, calls = step_module.train_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise Crash
        return real_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "train_step", step)
        with pytest.raises(Crash):
            train(data, run_dir, **options)


@pytest.mark.parametrize("number", [1, 4, 5, STEPS])
def test_run_that_dies_before_any_step_ends_in_the_same_bytes(data, whole_run, tmp_path, monkeypatch, number):
    train_until_crash(data, tmp_path / "run", monkeypatch, number, checkpoint_every_s=-1)
    resumed = train(data, tmp_path / "run", resume=True)
    assert digests(resumed) == digests(whole_run)
    assert resumed.epochs_done == 2


def test_run_without_mid_epoch_checkpoints_repeats_the_steps_it_lost(data, whole_run, tmp_path, monkeypatch):
    train_until_crash(data, tmp_path / "run", monkeypatch, 7)
    assert digests(train(data, tmp_path / "run", resume=True)) == digests(whole_run)


def test_resumed_run_may_stream_what_was_kept_in_memory(data, whole_run, tmp_path, monkeypatch):
    train_until_crash(data, tmp_path / "run", monkeypatch, 3, checkpoint_every_s=-1)
    assert digests(train(data, tmp_path / "run", resume=True, cache_bytes=0)) == digests(whole_run)


@pytest.mark.parametrize("moment", ["best.safetensors", "last.safetensors", "checkpoint.pt"])
def test_run_that_dies_while_writing_a_file_ends_in_the_same_bytes(data, whole_run, tmp_path, monkeypatch, moment):
    real_replace = Path.replace

    def replace(self, target):
        if Path(target).name == moment:
            raise Crash
        return real_replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(Crash):
            train(data, tmp_path / "run")
    assert digests(train(data, tmp_path / "run", resume=True)) == digests(whole_run)


def run_in_process(data, run_dir, extra=""):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent)]!r}
        from squeezenet.training import step as step_module
        from training_runs import train
        real_step, calls = step_module.train_step, []
        def step(*args, **kwargs):
            calls.append(1)
            if len(calls) == 6:
                {extra}
            return real_step(*args, **kwargs)
        step_module.train_step = step
        result = train({str(data)!r}, {str(run_dir)!r}, progress=True, checkpoint_every_s=-1)
        print(result.is_finished)
        """
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_killed_process_resumes_to_the_same_bytes(data, whole_run, tmp_path):
    killed = run_in_process(data, tmp_path / "run", "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL
    assert digests(train(data, tmp_path / "run", resume=True)) == digests(whole_run)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_saves_and_says_how_to_continue(data, whole_run, tmp_path, name):
    stopped = run_in_process(data, tmp_path / "run", f"os.kill(os.getpid(), signal.{name})")
    assert stopped.stdout == "False\n"
    assert "stopped by a signal in epoch 2, step 2; everything is saved: continue with --resume" in stopped.stderr
    assert digests(train(data, tmp_path / "run", resume=True)) == digests(whole_run)


def test_signal_handlers_are_put_back(data, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(data, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is before


def test_resume_without_a_checkpoint_begins_the_run(data, whole_run, tmp_path):
    assert digests(train(data, tmp_path / "run", resume=True)) == digests(whole_run)


class Moments:
    """Lets a run die at a named moment: a process that is killed runs none of its own code."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def die(self, name, *args, **options):
        def crash(*_, **__):
            raise Crash

        with self.monkeypatch.context() as patch:
            patch.setattr(train_module, name, crash)
            with pytest.raises(Crash):
                train(*args, **options)


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """Weights to start from and to learn from."""
    return [
        train(data, tmp_path_factory.mktemp("models") / name, TINY.replace(seed=s)).best
        for s, name in ((3, "init"), (4, "teacher"))
    ]


BEGINNINGS = ["prepare_data", "start_model", "open_teacher", "open_batches", "ValBatches"]


@pytest.mark.parametrize("moment", BEGINNINGS)
def test_run_that_dies_before_its_first_step_resumes_as_itself_without_its_options(
    data, models, tmp_path, monkeypatch, moment
):
    """`--resume` alone, as docs/train.md has it: recipe, length, weights and teacher are those of the beginning."""
    options = {"init": models[0], "teacher": models[1], "epochs": 1}
    whole = train(data, tmp_path / "whole", **options)
    Moments(monkeypatch).die(moment, data, tmp_path / "run", **options)
    resumed = train(data, tmp_path / "run", None, resume=True)
    assert digests(resumed) == digests(whole)
    assert resumed.epochs_done == 1
    recipes = [
        load_recipe(folder / "recipe.toml").replace(name="") for folder in (tmp_path / "run", tmp_path / "whole")
    ]
    assert recipes[0] == recipes[1]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole").iterdir()
    )


@pytest.mark.parametrize("option", ["recipe", "init", "teacher", "epochs"])
def test_run_that_died_before_its_checkpoint_does_not_become_another(data, models, tmp_path, monkeypatch, option):
    Moments(monkeypatch).die("prepare_data", data, tmp_path / "run")
    other = {"recipe": "digits", "init": models[0], "teacher": models[0], "epochs": 3}[option]
    with pytest.raises(TrainingError, match=f"expected the {option} that this run began with, got another"):
        train(data, tmp_path / "run", **{"recipe": None, option: other}, resume=True)


def test_network_in_memory_is_asked_for_again(data, models, tmp_path, monkeypatch):
    init = load_model(models[0])
    whole = train(data, tmp_path / "whole", init=init)
    Moments(monkeypatch).die("prepare_data", data, tmp_path / "run", init=init)
    with pytest.raises(TrainingError, match="expected the network that this run began with as `init`"):
        train(data, tmp_path / "run", None, resume=True)
    assert digests(train(data, tmp_path / "run", None, init=init, resume=True)) == digests(whole)


def test_run_whose_checkpoint_is_gone_is_not_resumed_as_another(data, tmp_path):
    train(data, tmp_path / "run")
    before = (tmp_path / "run/recipe.toml").read_bytes()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / "run" / name).unlink()
    with pytest.raises(TrainingError, match="expected a checkpoint to continue from, got a run without one"):
        train(data, tmp_path / "run", None, resume=True)
    assert (tmp_path / "run/recipe.toml").read_bytes() == before


def test_full_disk_before_the_first_checkpoint_is_said_as_it_is(data, tmp_path, monkeypatch):
    def full(self, path, previous=None):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", full)
        with pytest.raises(TrainingError, match="No space left on device.; nothing was trained yet") as caught:
            train(data, tmp_path / "run", checkpoint_every_s=-1)
    assert "--resume" not in str(caught.value)
    assert train(data, tmp_path / "run").is_finished


def test_resume_with_other_images_to_validate_on_is_refused(data, tmp_path):
    train(data, tmp_path / "run", val=write_images(tmp_path / "val", per_class=2))
    with pytest.raises(TrainingError, match="images that this run began with"):
        train(data, tmp_path / "run", val=write_images(tmp_path / "other", per_class=3), resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_second_run_in_a_folder_is_refused_while_the_first_is_alive(data, tmp_path, resume):
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path[:0] = {[str(Path(__file__).parent)]!r}
        from training_runs import train
        def wait(row):
            if row.epoch == 1:
                print("trained", flush=True)
                sys.stdin.read()
        train({str(data)!r}, {str(tmp_path / "run")!r}, on_epoch=wait)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"trained\n"
        before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
        with pytest.raises(TrainingError, match="another process is using this folder"):
            train(data, tmp_path / "run", TINY.replace(lr=0.01), resume=resume)
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
        first.stdin.close()
    assert first.returncode == 0
    assert not (tmp_path / "run/lock").exists()


def test_run_from_weights_that_name_the_classes_otherwise_can_be_resumed(data, tmp_path, monkeypatch):
    init = SqueezeNet(TINY.spec(4))
    init.labels = Labels(("Ramp, slope", "LIGHT", "another", "dark_, dark"))
    whole = train(data, tmp_path / "whole", init=init)
    train_until_crash(data, tmp_path / "run", monkeypatch, 6, init=init)
    resumed = train(data, tmp_path / "run", init=init, resume=True)
    assert digests(resumed) == digests(whole)
    assert load_model(resumed.best).labels.names == ("dark_, dark", "LIGHT", "Ramp, slope")


def test_resume_of_a_finished_run_changes_nothing(data, tmp_path):
    before = train(data, tmp_path / "run")
    after = train(data, tmp_path / "run", None, resume=True)
    assert digests(after) == digests(before)
    assert (after.top1, after.is_finished) == (before.top1, True)


def test_resume_with_another_recipe_or_other_images_is_refused(data, tmp_path):
    train(data, tmp_path / "run")
    with pytest.raises(TrainingError, match="recipe that this run began with, got another lr, momentum"):
        train(data, tmp_path / "run", TINY.replace(lr=0.1, momentum=0.8), resume=True)
    with pytest.raises(TrainingError, match="images that this run began with"):
        train(write_images(tmp_path / "other", per_class=11), tmp_path / "run", resume=True)


def damage(path, kind):
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[:-1000])
    elif kind == "one bit":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif kind == "text":
        path.write_text("hello")
    else:
        torch.save({"format": 1, "x": os.system} if kind == "pickle" else {"format": 2}, path)


DAMAGES = ("truncated", "one bit", "text", "pickle", "other")


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoint_is_passed_over_for_the_one_before(data, whole_run, tmp_path, monkeypatch, kind):
    train_until_crash(data, tmp_path / "run", monkeypatch, 7, checkpoint_every_s=-1)
    damage(tmp_path / "run/checkpoint.pt", kind)
    stream = io.StringIO()
    resumed = train(data, tmp_path / "run", resume=True, progress=PlainReporter(stream))
    assert f"skipped {tmp_path}/run/checkpoint.pt: expected" in stream.getvalue()
    assert "continuing" in stream.getvalue()
    assert digests(resumed) == digests(whole_run)


@pytest.mark.parametrize("kind", DAMAGES)
def test_checkpoints_that_are_both_damaged_are_one_clear_error(data, tmp_path, kind):
    train(data, tmp_path / "run")
    damage(tmp_path / "run/checkpoint.pt", kind)
    damage(tmp_path / "run/checkpoint.previous.pt", kind)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: expected (a checkpoint of a run|checkpoint format 1)"):
        train(data, tmp_path / "run", resume=True)


def test_temporary_files_of_killed_writers_are_removed(data, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.0123456789abcdef.tmp").touch()
    (tmp_path / "run/.mine.tmp").touch()
    train(data, tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").glob(".*")] == [".mine.tmp"]


def test_run_goes_on_while_the_disk_is_full_and_fails_only_at_its_end(data, tmp_path, monkeypatch):
    real_save, saved = TrainingState.save, []

    def full(self, path, previous=None):
        saved.append(path)
        if len(saved) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_save(self, path, previous)

    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", full)
        with pytest.raises(TrainingError, match="No space left on device.; the last whole checkpoint is still there"):
            train(data, tmp_path / "run", progress=PlainReporter(stream), checkpoint_every_s=-1)
    assert "WARNING" in stream.getvalue()
    assert train(data, tmp_path / "run", resume=True).is_finished


def test_failed_attempt_to_continue_forgets_nothing(data, whole_run, tmp_path, monkeypatch):
    Moments(monkeypatch).die("prepare_data", data, tmp_path / "run")
    with pytest.raises(DataError):
        train(tmp_path / "missing", tmp_path / "run", None, resume=True)
    assert digests(train(data, tmp_path / "run", None, resume=True)) == digests(whole_run)


def test_full_disk_at_the_first_byte_names_the_folder(data, tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("squeezenet.training.run_folder.atomic_write", full)
    with pytest.raises(TrainingError, match=r"run: cannot be written \(No space left on device\)"):
        train(data, tmp_path / "run")


def tampered(data):
    """Checkpoints of other contents, each whole: what a run's code would stumble over, and what it must say."""
    flat = {"history": [], "epoch": 0}
    row = {**data["history"][0]}
    yield "pixels", {"preprocessing": {**data["preprocessing"], "crop_size": 1024, "resize_size": 1024}}
    yield "labels", {"labels": {"names": ["a", "b"]}}
    for name in ("epoch", "step", "best_epoch", "images_seen", "skipped_steps"):
        yield name, {name: -1}
        yield name, {name: "1"}
    yield "epoch", {"epoch": 10**9}
    yield "epoch", {"epoch": 1}
    yield "best_epoch", {"best_epoch": 3}
    yield "history", {"history": [{}, {}]}
    yield "history", {"history": [row, {**row, "top1": "99"}]}
    yield "history", {"history": 5}
    yield "history", {"history": [row]}
    yield "alarms", {"alarms": [1]}
    yield "unreadable", {"unreadable": [["a"]]}
    yield "unreadable", {"unreadable": [[1, 2]]}
    yield "precision", {"precision": "float8"}
    yield "optimizer", {"optimizer": {}}
    yield "optimizer", {"optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}}
    yield "optimizer", {"optimizer": {"state": {99: {"momentum_buffer": torch.zeros(3)}}}}
    yield "recipe", {"recipe": {**data["recipe"], "epochs": 1}}
    yield "flat", {**flat, "best_epoch": 2}


def test_tampered_checkpoints_are_named_errors(data, tmp_path):
    run = train(data, tmp_path / "run")
    checkpoint = run.run_dir / "checkpoint.pt"
    (run.run_dir / "checkpoint.previous.pt").unlink()
    contents = torch.load(checkpoint, weights_only=True)
    assert train(data, tmp_path / "run", None, resume=True).is_finished
    for number, (name, changes) in enumerate(tampered(contents)):
        torch.save({**contents, **changes}, checkpoint)
        with pytest.raises(TrainingError, match=r"run/checkpoint\.pt: expected") as caught:
            train(data, tmp_path / "run", None, resume=True)
        assert "\n" not in str(caught.value), (number, name)


def write_page(folder, data):
    run = folder / "run"
    facts = shown_facts(run_facts(run))
    write_evaluation_page(evaluate(run, data), folder / "page.html", history=run_history(run), facts=facts)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[]"),
        ("run.json", '{"recipe": [1], "data": 5, "hardware": "x", "versions": [2]}'),
        ("run.json", '{"training_seconds": "long", "seconds": null, "processes": {}}'),
        ("run.json", "[" * 100_000),
        ("log.csv", "epoch\n1\n"),
        ("log.csv", "epoch,train_loss\n1,2,3,4\n"),
        ("log.csv", "\0"),
        ("log.csv", "x" * 200_000 + "\n"),
    ],
)
def test_evaluation_page_of_a_tampered_run_is_written(data, whole_run, tmp_path, name, text):
    shutil.copytree(whole_run.run_dir, tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    write_page(tmp_path, data)
    assert "<html" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("name", ["run.json", "log.csv"])
def test_evaluation_page_does_not_wait_for_a_pipe(data, whole_run, tmp_path, name):
    shutil.copytree(whole_run.run_dir, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    write_page(tmp_path, data)
