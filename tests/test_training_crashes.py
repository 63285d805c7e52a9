"""Every moment at which writing a checkpoint can fail: afterwards the newest or the previous one loads."""

import contextlib
import errno
import os
import signal

import pytest
import torch

from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet
from squeezenet.training.state import TrainingState
from training_runs import TINY

CALLS = ("open", "write", "fsync", "rename", "link", "close")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)


class Faults:
    """Counts the system calls of a write, and lets one of them fail."""

    def __init__(self, monkeypatch, point=None, act=None):
        self.seen = []
        self._point, self._act = point, act
        fdopen = os.fdopen
        for module, name, kind in ((os, "open", "open"), (os, "fsync", "fsync"), (os, "link", "link")):
            monkeypatch.setattr(module, name, self.around(kind, getattr(module, name)))
        # `Path.replace` ends in `os.replace`.
        monkeypatch.setattr(os, "replace", self.around("rename", os.replace))
        monkeypatch.setattr(os, "fdopen", lambda *args: FaultyStream(fdopen(*args), self))

    def around(self, kind, real):
        def call(*args, **kwargs):
            self.reach(f"before {kind}")
            result = real(*args, **kwargs)
            self.reach(f"after {kind}")
            return result

        return call

    def reach(self, moment):
        self.seen.append(moment)
        if self._point == len(self.seen) - 1:
            self._act()


class FaultyStream:
    def __init__(self, stream, faults):
        self._stream, self._faults = stream, faults

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with self._stream:
            self._faults.reach("before close")
        self._faults.reach("after close")

    def write(self, data):
        self._faults.reach("before write")
        self._stream.write(data[: len(data) // 2])
        self._stream.flush()
        self._faults.reach("within write")
        self._stream.write(data[len(data) // 2 :])
        self._faults.reach("after write")

    def flush(self):
        self._stream.flush()

    def fileno(self):
        return self._stream.fileno()


def state_at(step):
    torch.manual_seed(0)
    model = SqueezeNet(TINY.spec(3))
    model.labels, model.preprocessing = Labels(("a", "b", "c")), TINY.preprocessing()
    state = TrainingState.start(TINY, model, precision="float32", data_id="", device=torch.device("cpu"))
    state.step = step
    return state


@pytest.fixture
def folder(tmp_path):
    """A folder with two checkpoints: of steps 1 and 2."""
    for step in (1, 2):
        state_at(step).save(*names(tmp_path))
    return tmp_path


def names(folder):
    return folder / "checkpoint.pt", folder / "checkpoint.previous.pt"


def newest_step(folder):
    damages = []
    state = TrainingState.load_newest(names(folder), torch.device("cpu"), damages.append)
    assert damages == []
    return state.step


def moments(monkeypatch, folder):
    with monkeypatch.context() as patch:
        faults = Faults(patch)
        state_at(3).save(*names(folder))
    return faults.seen


def test_write_goes_through_every_kind_of_call(folder, monkeypatch):
    seen = moments(monkeypatch, folder)
    assert {moment.split()[1] for moment in seen} == set(CALLS)
    assert newest_step(folder) == 3
    assert TrainingState.load(names(folder)[1], torch.device("cpu")).step == 2


def test_death_at_any_moment_leaves_a_whole_checkpoint(folder, monkeypatch):
    state = state_at(3)
    before = {path: path.read_bytes() for path in names(folder)}
    steps = []
    for point in range(len(moments(monkeypatch, folder))):
        for path, data in before.items():
            path.unlink()
            path.write_bytes(data)
        child = os.fork()
        if child == 0:  # no clean-up of any kind runs in a process that kills itself
            with monkeypatch.context() as patch:
                Faults(patch, point, lambda: os.kill(os.getpid(), signal.SIGKILL))
                state.save(*names(folder))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        steps.append(newest_step(folder))
    assert set(steps) == {2, 3}
    assert steps == sorted(steps)


@pytest.mark.parametrize("number", ERRORS)
def test_error_at_any_moment_leaves_a_whole_checkpoint_and_no_litter(folder, monkeypatch, number):
    state = state_at(3)
    for point in range(len(moments(monkeypatch, folder))):
        state_at(2).save(*names(folder))

        def fail():
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            Faults(patch, point, fail)
            with contextlib.suppress(OSError):  # the folder itself need not be synced
                state.save(*names(folder))
        assert newest_step(folder) in (2, 3)
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_first_checkpoint_of_a_run_may_fail_as_well(tmp_path, monkeypatch):
    def fail():
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        Faults(patch, 0, fail)
        with pytest.raises(OSError, match="read-only"):
            state_at(1).save(*names(tmp_path))
    assert TrainingState.load_newest(names(tmp_path), torch.device("cpu"), print) is None
