"""Kill training at random moments, resume it, and compare the final weights with those of a run left alone.

Every trial is a run of its own in a process of its own: killed with SIGKILL at a random moment between its first line
of training code and its end, up to three times, then left to finish; once begun, `resume` alone continues it.
`--ranks 2` trains through torchrun with two gloo processes and kills one of them; torchrun's elastic restart resumes
both. `--command` kills `squeezenet train` itself once, at any moment from its start, and continues it as docs/train.md
says, by `squeezenet train DATA -o RUN --resume`; `--for` stops after so many seconds and the next call goes on.
Writes results/kills.json.

    python benchmarks/kills.py                            # 200 kills of one process
    python benchmarks/kills.py --ranks 2 --kills 20       # one of two processes
    python benchmarks/kills.py --command --kills 10       # of the command, each followed by --resume
    python benchmarks/kills.py --command --warm --kills 100   # the same without the seconds that torch takes to load
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, describe_run
from PIL import Image

RECIPE = """
epochs = 3
batch_size = 8
lr = 0.05
nesterov = true
weight_decay = 5e-4
label_smoothing = 0.1
ema_decay = 0.9
warmup_epochs = 0.5
input_size = 8
crop = "random"
crop_pad = 1
pools = [1, 3]
batch_norm = true
dropout = 0.3
"""


def write_images(root: Path) -> None:
    """A few noisy images of three brightnesses, the rest of the set's size to keep epochs short."""
    generator = np.random.default_rng(0)
    for position, name in enumerate(("dark", "light", "ramp")):
        (root / name).mkdir(parents=True)
        for number in range(24):
            pixels = generator.integers(0, 80, (10, 10, 3)) + 80 * position
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number:02d}.png")


def digests(run: Path) -> list[str]:
    return [hashlib.sha256((run / f"{name}.safetensors").read_bytes()).hexdigest() for name in ("best", "last")]


def train_here(folder: Path, run: Path) -> None:
    """Train in this process; a run that was begun and killed is continued by `resume` alone."""
    import torch

    from squeezenet.training import train_model

    torch.set_num_threads(1)
    is_begun = any((run / name).exists() for name in ("request.json", "checkpoint.pt"))
    recipe = None if is_begun else folder / "tiny.toml"
    train_model(folder / "data", run_dir=run, recipe=recipe, resume=True, progress=False, checkpoint_every_s=0)


def measure_alone(folder: Path, kills: int, generator: random.Random) -> dict[str, Any]:
    """Kill single processes."""
    import torch

    import squeezenet.training  # noqa: F401 (children begin with it loaded)

    torch.set_num_threads(1)  # threads do not survive a fork
    context = multiprocessing.get_context("fork")
    start = time.monotonic()
    child = context.Process(target=train_here, args=(folder, folder / "whole"))
    child.start()
    child.join()
    length_s = time.monotonic() - start
    expected = digests(folder / "whole")
    killed = trials = same = failed = 0
    steps: list[int] = []
    while killed < kills:
        run = folder / f"run{trials}"
        trials += 1
        wanted = generator.randint(1, 3)
        while True:
            child = context.Process(target=train_here, args=(folder, run))
            child.start()
            if wanted and killed < kills:
                child.join(generator.uniform(0.0, length_s))
                if child.is_alive():
                    child.kill()
                    child.join()
                    killed, wanted = killed + 1, wanted - 1
                    continue
            child.join()
            break
        failed += child.exitcode != 0
        same += child.exitcode == 0 and digests(run) == expected
        steps.append(killed)
        shutil.rmtree(run, ignore_errors=True)
        print(f"{killed} kills, {same} of {trials} runs end in the same bytes", flush=True)
    return {"kills": killed, "runs": trials, "same_bytes": same, "failed_to_resume": failed, "whole_run_s": length_s}


def start_ranks(folder: Path, run: Path, ranks: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
            "--max-restarts", "3", "--monitor-interval", "0.2", "-m", "squeezenet", "train", str(folder / "data"),
            "--recipe", str(folder / "tiny.toml"), "--resume", "--checkpoint-every", "0", "-o", str(run),
        ],
        env=environment, stdout=subprocess.DEVNULL, stderr=(folder / f"{run.name}.log").open("wb"),
    )  # fmt: skip


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes of the ranks: children of the launcher that train."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == process.pid and b"squeezenet" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (OSError, IndexError, ValueError):  # no process, or one that has just ended
            continue
    return found


def measure_ranks(folder: Path, kills: int, ranks: int, generator: random.Random) -> dict[str, Any]:
    """Kill one of several processes."""
    start = time.monotonic()
    whole = start_ranks(folder, folder / "whole", ranks)
    assert whole.wait() == 0
    length_s = time.monotonic() - start
    expected = digests(folder / "whole")
    killed = runs = same = failed = in_training = 0
    while killed < kills:
        run = folder / f"run{runs}"
        runs += 1
        process = start_ranks(folder, run, ranks)
        deadline = time.monotonic() + generator.uniform(0.5, 1.0) * length_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        # Once the ranks have left the network's construction behind, or when the time is up.
        while process.poll() is None and not (found := workers_of(process)):
            time.sleep(0.02)
        if process.poll() is None:
            victim = generator.choice(found)
            in_training += (run / "checkpoint.pt").exists()
            os.kill(victim, signal.SIGKILL)
            killed += 1
        if process.wait() != 0:
            failed += 1
            print((folder / f"{run.name}.log").read_text(errors="replace")[-3000:], flush=True)
        else:
            same += digests(run) == expected
        print(f"{killed} kills ({in_training} in training), {same} of {runs} runs end in the same bytes", flush=True)
        shutil.rmtree(run, ignore_errors=True)
    return {
        "ranks": ranks, "kills": killed, "kills_after_first_checkpoint": in_training, "runs": runs, "same_bytes": same,
        "failed_to_resume": failed, "whole_run_s": length_s,
    }  # fmt: skip


class Command:
    """`squeezenet train DATA -o RUN ...` in a process of its own, or in a child of this one, which has torch loaded."""

    def __init__(self, folder: Path, run: Path, *options: str, is_warm: bool) -> None:
        self._log = folder / "stderr"
        arguments = ["train", str(folder / "data"), "-o", str(run), *options]
        if is_warm:
            self._process: Any = multiprocessing.get_context("fork").Process(target=self._run, args=(arguments,))
            self._process.start()
            return
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "squeezenet", *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)

    def _run(self, arguments: list[str]) -> None:
        from squeezenet.cli import cli

        with self._log.open("w") as log:
            os.dup2(log.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            cli(arguments)

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, None if it still runs after so long."""
        if isinstance(self._process, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            return self._process.returncode
        self._process.join(seconds)
        code: int | None = self._process.exitcode
        return code

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self.wait()

    def error(self) -> str:
        """What it wrote to standard error."""
        return self._log.read_text(errors="replace")


def measure_command(
    folder: Path, kills: int, generator: random.Random, before: dict[str, Any], limit_s: float, *, is_warm: bool
) -> dict[str, Any]:
    """Kill the command once per run, and continue it by `--resume` alone."""
    if is_warm:
        import torch

        import squeezenet.cli.train
        import squeezenet.reports.network_page
        import squeezenet.training  # noqa: F401 (children begin with it loaded)

        torch.set_num_threads(1)  # threads do not survive a fork
    recipe = ("--recipe", str(folder / "tiny.toml"))
    begin = start = time.monotonic()
    assert Command(folder, folder / "whole", *recipe, is_warm=is_warm).wait() == 0
    length_s, expected = time.monotonic() - start, digests(folder / "whole")
    counts = ("kills", "same_bytes", "failed_to_resume", "left_nothing", "without_checkpoint", "with_row")
    facts = {name: before.get(name, 0) for name in counts}
    while facts["kills"] < kills and time.monotonic() - begin < limit_s:
        run = folder / "run"
        command = Command(folder, run, *recipe, is_warm=is_warm)
        if command.wait(generator.uniform(0.0, length_s)) == 0:  # it was faster than the one that was timed
            shutil.rmtree(run)
            continue
        command.kill()
        facts["kills"] += 1
        facts["with_row"] += (run / "log.csv").exists()
        facts["without_checkpoint"] += not (run / "checkpoint.pt").exists()
        # Killed before it had begun, it is started again as the first time.
        is_begun = any((run / name).exists() for name in ("request.json", "checkpoint.pt"))
        facts["left_nothing"] += not is_begun
        resumed = Command(folder, run, *(("--resume",) if is_begun else recipe), is_warm=is_warm)
        has_ended = resumed.wait() == 0
        same = has_ended and digests(run) == expected
        facts["same_bytes"] += same
        facts["failed_to_resume"] += not has_ended
        if not same:
            print(resumed.error()[-2000:], flush=True)
        shutil.rmtree(run, ignore_errors=True)
        print(f"{facts['same_bytes']} of {facts['kills']} killed runs end in the same bytes", flush=True)
    return facts | {"runs": facts["kills"], "whole_run_s": length_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--command", action="store_true", help="the command itself, then --resume")
    parser.add_argument("--warm", action="store_true", help="with --command: in children that have torch loaded")
    parser.add_argument("--for", type=float, default=float("inf"), dest="seconds", help="stop after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/kills.json")
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    key = f"ranks_{arguments.ranks}"
    if arguments.command:
        key = "command_in_child" if arguments.warm else "command"
    before = (
        results.get(key, {}) if arguments.command and results.get(key, {}).get("kills", 0) < arguments.kills else {}
    )
    generator = random.Random(arguments.seed + before.get("kills", 0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "data")
        (folder / "tiny.toml").write_text(RECIPE)
        if arguments.command:
            facts = measure_command(
                folder, arguments.kills, generator, before, arguments.seconds, is_warm=arguments.warm
            )
        elif arguments.ranks == 1:
            facts = measure_alone(folder, arguments.kills, generator)
        else:
            facts = measure_ranks(folder, arguments.kills, arguments.ranks, generator)
    results[key] = facts | {"seed": arguments.seed, "run": describe_run()}
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(facts))
    if facts["same_bytes"] != facts["runs"]:
        sys.exit("a run ended in other bytes, or not at all")


if __name__ == "__main__":
    main()
