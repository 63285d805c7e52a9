"""Studies on a local cluster of two workers: a worker is killed, then a whole study, which continues."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ray_workers import busy_workers
from squeezenet.exploration import Space, explore
from squeezenet.progress import SilentReporter
from training_runs import TINY, write_images

# Ray's own, in importing and in what it leaves to the interpreter's end.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).parents[1]
SMALL = {"base_e": 8, "incr_e": 0, "n_fires": 2, "stem_channels": 8}
RATIOS = [0.125, 0.25, 0.5]
GRID = Space.from_dict({"sampler": "grid", "fixed": SMALL, "space": {"squeeze_ratio": RATIOS}})


class KillsOneWorker(SilentReporter):
    """Waits for two trials at a time, and kills the worker of one as soon as a trial has ended."""

    def __init__(self):
        self.killed = []

    def say(self, text):
        workers = busy_workers("_carry_out_away")
        if not self.killed and "%" in text and workers:
            os.kill(workers[0], signal.SIGKILL)
            self.killed = workers


def test_trials_survive_the_loss_of_a_worker(tmp_path):
    images = write_images(tmp_path / "images")
    recipe = TINY.replace(epochs=8, warmup_epochs=0, pools=(1,))
    say = KillsOneWorker()
    result = explore(str(images), study_dir=tmp_path / "study", space=GRID, recipe=recipe, progress=say, ray="local")
    assert say.killed
    assert sorted(finding.point["squeeze_ratio"] for finding in result.findings) == RATIOS
    assert [finding.number for finding in result.findings] == [0, 1, 2]
    assert result.retrained is not None
    assert (tmp_path / "study" / "report.html").exists()


def test_killed_study_continues_without_loss_or_repetition(tmp_path):
    folder, recipe, space = tmp_path / "study", tmp_path / "short.toml", tmp_path / "space.toml"
    recipe.write_text('epochs = 4\nlr = 0.02\ninput_size = 8\npools = [1]\nbatch_size = 16\nprecision = "float32"\n')
    fixed = "\n".join(f"{key} = {value}" for key, value in SMALL.items())
    space.write_text(f'sampler = "grid"\n[fixed]\n{fixed}\n[space]\nsqueeze_ratio = {RATIOS}\n')
    command = [sys.executable, "-m", "squeezenet", "explore", "digits", "--space", str(space), "--recipe", str(recipe),
               "--no-retrain", "--ray", "local", "-o", str(folder)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(folder.glob("trials/*/measured.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    workers = busy_workers("_carry_out_away", process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):  # they go with the process that they worked for
        assert time.monotonic() < deadline
        time.sleep(0.1)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/measured.json")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/measured.json")}
    assert len(after) == 3
    assert {path: after[path] for path in finished} == finished
