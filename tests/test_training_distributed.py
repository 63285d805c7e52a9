"""Two processes, meeting over gloo, train one network."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezenet.models import load_model
from squeezenet.training.distributed import ALONE
from squeezenet.training.feed.augment import EpochDraw
from training_runs import TINY, digests, train, write_images

# Nothing random and no statistics of batches: then two processes compute what one does, but for rounding.
PLAIN = TINY.replace(batch_norm=False, dropout=0.0, crop="center", hflip=False, lr=0.01)

PRELUDE = f"""
import functools, os, signal, sys, json
sys.path[:0] = {[str(Path(__file__).parent)]!r}
import pathlib
from squeezenet.training import load_recipe, step as step_module
from squeezenet.training.distributed import ALONE
from training_runs import train
data, run_dir, recipe = sys.argv[1:4]
recipe = load_recipe(recipe)
train = functools.partial(train, checkpoint_every_s=-1)
"""

FORK = """
size = int(sys.argv[4])
children = []
for rank in range(size):
    pid = os.fork()
    if pid == 0:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
        try:
            WORK
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children))
"""

STOP_AT_STEP_6 = """
real_step, calls = step_module.train_step, []
def step(*args, **kwargs):
    calls.append(1)
    if len(calls) == 6 and os.environ["RANK"] == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        ACTION
    return real_step(*args, **kwargs)
step_module.train_step = step
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "data")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def write_script(folder, *parts):
    path = folder / "script.py"
    path.write_text(textwrap.dedent(PRELUDE) + "".join(map(textwrap.dedent, parts)))
    return path


def start(command, folder, recipe):
    (folder / "recipe.toml").write_text(recipe.to_toml())
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )


def train_by_two(data, folder, recipe=TINY, *, name="run", extra="", size=2, options=""):
    work = (
        f"result = train(data, run_dir, recipe, resume=True{options}); assert result.is_finished or 'stop' in run_dir"
    )
    script = write_script(folder, extra, FORK.replace("WORK", work))
    done = start([script, data, folder / name, folder / "recipe.toml", size], folder, recipe)
    assert done.returncode == 0, done.stderr
    return folder / name


def weights(run_dir):
    return load_model(run_dir / "last.safetensors").state_dict()


def file_digests(run_dir):
    class Result:
        best, last = run_dir / "best.safetensors", run_dir / "last.safetensors"

    return digests(Result)


def test_processes_share_each_batch_without_gap_or_overlap():
    draw = EpochDraw(50, seed=3, epoch=1)
    for size in (1, 2, 3, 7):
        for step in range(5):
            shares = [draw.batch(step, 10, (rank, size))[0] for rank in range(size)]
            assert sorted(np.concatenate(shares)) == sorted(draw.batch(step, 10)[0])
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_adds_nothing_up():
    assert ALONE.sum_numbers(1.5, 2) == [1.5, 2]
    tensor = torch.ones(3)
    ALONE.sum_tensors([tensor], divide_by=2)
    assert tensor.tolist() == [1, 1, 1]


def test_two_processes_compute_what_one_does(data, tmp_path):
    together = weights(train_by_two(data, tmp_path, PLAIN))
    alone = weights(train(data, tmp_path / "alone", PLAIN).run_dir)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_run_of_several_processes_that_was_cut_off_ends_in_the_same_bytes(data, tmp_path, size):
    whole = train_by_two(data, tmp_path, name="whole", size=size)
    stop = STOP_AT_STEP_6.replace("ACTION", "os.kill(os.getpid(), signal.SIGTERM)")
    cut = train_by_two(data, tmp_path, name="stopped", extra=stop, size=size)
    assert torch.load(cut / "checkpoint.pt", weights_only=True)["step"] == 2
    assert file_digests(train_by_two(data, tmp_path, name="stopped", size=size)) == file_digests(whole)


def test_one_killed_process_of_two_restarts_both_and_ends_in_the_same_bytes(data, tmp_path):
    whole = train_by_two(data, tmp_path, name="whole")
    kill = STOP_AT_STEP_6.replace("ACTION", "os.kill(os.getpid(), signal.SIGKILL)")
    script = write_script(tmp_path, kill, "train(data, run_dir, recipe, resume=True, progress=True)\n")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 1)
    launcher += ("--monitor-interval", 0.1)
    done = start([*launcher, script, data, tmp_path / "run", tmp_path / "recipe.toml"], tmp_path, TINY)
    assert done.returncode == 0, done.stderr
    assert "continuing" in done.stderr
    assert file_digests(tmp_path / "run") == file_digests(whole)


def test_restarted_processes_do_not_wait_for_killed_ones(tmp_path):
    script = tmp_path / "meet.py"
    script.write_text(
        "import os, time\n"
        "from squeezenet.training.distributed import join_workers\n"
        "again = os.environ['TORCHELASTIC_RESTART_COUNT'] == '1'\n"
        "if again and os.environ['RANK'] == '0': time.sleep(1)\n"  # the other finds only what the killed ones left
        "with join_workers() as workers:\n"
        "    workers.wait()\n"
        "    if not again: os.kill(os.getpid(), 9)\n"
        "    os.write(1, f'met {workers.sum_numbers(1)}\\n'.encode())\n"  # whole lines
    )
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 1)
    done = start([*launcher, "--monitor-interval", 0.1, script], tmp_path, TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met [2.0]") == 2


def test_frozen_features_stay_as_they_are_in_every_process(data, tmp_path):
    frozen = PLAIN.replace(freeze_features_epochs=1)
    together = weights(train_by_two(data, tmp_path, frozen))
    alone = weights(train(data, tmp_path / "alone", frozen).run_dir)
    for name, tensor in alone.items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-5)


def test_image_that_only_one_process_misses_is_skipped_by_it(data, tmp_path):
    own = write_images(tmp_path / "own")
    (own / "dark/05.png").write_bytes((own / "dark/05.png").read_bytes()[:-40])
    run_dir = train_by_two(own, tmp_path, options=", cache_bytes=0, progress=True")
    assert (run_dir / "last.safetensors").exists()
