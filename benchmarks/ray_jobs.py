"""Jobs of `predict --ray` under kills and changes: every row must be that of the image named, each once.

Each job classifies a folder, a zip, a folder of Parquet files or all of these on a Ray cluster of this machine. Its
driver or a worker is killed at random moments, and between runs images are replaced (some with their old time),
exchanged, linked elsewhere, renamed, added and removed, and finished parts and results are damaged. A job that is
refused because its images changed is begun again without its parts. At the end each row is compared with the answer of
`Classifier` to the image of its name. Writes results/ray_jobs.json.

    python benchmarks/ray_jobs.py                        # 60 jobs
    python benchmarks/ray_jobs.py --jobs 60 --for 400    # some of them; call it again to go on
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from environment import ROOT, describe_run, write_results
from PIL import Image
from pyarrow.parquet import read_table, write_table

from squeezenet import Classifier

sys.path.insert(0, str(ROOT / "tests"))
from ray_workers import busy_workers  # noqa: E402

N_IMAGES, MODEL = 900, "cifar10"
_SIZES = (180, 260)
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "RAY_AUTH_MODE": "disabled"}


class Images:
    """Encoded images, no two alike, and what the network makes of each."""

    def __init__(self) -> None:
        self._rng, self._classifier = np.random.default_rng(0), Classifier(MODEL, threads=1)
        self._answers: dict[bytes, tuple[str, float]] = {}

    def new(self) -> bytes:
        """Make another image: blocks of colours, so that the network's answers differ."""
        stream = io.BytesIO()
        colors = self._rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(colors).resize(_SIZES, Image.Resampling.BICUBIC).save(stream, "JPEG")
        return stream.getvalue()

    def answer(self, data: bytes) -> tuple[str, float]:
        """The class and its probability."""
        if data not in self._answers:
            best = self._classifier.predict(data)[0][0]
            self._answers[data] = best.label, best.probability
        return self._answers[data]


class Job:
    """Images of one kind of source, and the run that classifies them."""

    def __init__(self, folder: Path, kind: str, images: Images, rng: random.Random) -> None:
        self.folder, self.kind, self.images, self.rng = folder, kind, images, rng
        self.source = folder / ("images.zip" if kind == "zip" else "images")
        self.output = (self.source if kind == "folder" and rng.random() < 0.5 else folder) / "out.parquet"
        self.parts = Path(f"{self.output}.parts")
        self._fill()

    def _fill(self) -> None:
        data = [self.images.new() for _ in range(N_IMAGES)]
        if self.kind == "zip":
            self._write_zip({f"{n % 7}/{n:04}.jpg": each for n, each in enumerate(data)})
            return
        self.source.mkdir()
        n_rows = {"folder": 0, "parquet": N_IMAGES, "mixed": N_IMAGES // 2}[self.kind]
        for part in range(0, n_rows, 300):
            table = pa.table({"image": data[part : min(part + 300, n_rows)]})
            write_table(table, self.source / f"rows{part}.parquet", row_group_size=100)
        for number, each in enumerate(data[n_rows:]):
            path = self.source / f"sub{number % 3}" / f"{number:04}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(each)

    def _write_zip(self, members: dict[str, bytes]) -> None:
        with zipfile.ZipFile(self.source, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    def expected(self) -> dict[str, tuple[str, float]]:
        """Path, as results name it, and answer for all images as they are now."""
        if self.kind == "zip":
            with zipfile.ZipFile(self.source) as archive:
                found = {f"{self.source.name}/{name}": archive.read(name) for name in archive.namelist()}
        else:
            found = {}
            for path in (path for path in self.source.rglob("*") if path.is_file()):
                name = path.relative_to(self.source.parent).as_posix()
                if path.suffix == ".jpg":
                    found[name] = path.read_bytes()
                elif path.name.startswith("rows"):
                    rows = read_table(path)["image"].to_pylist()
                    found |= {f"{name}#{number}": data for number, data in enumerate(rows)}
        return {name: self.images.answer(data) for name, data in found.items()}

    def change_images(self) -> str:
        """Change some images; returns how."""
        files = sorted(self.source.rglob("*.jpg")) if self.kind in ("folder", "mixed") else []
        changes: dict[str, Callable[[], None]] = {"replace rows": self._replace_rows}
        if files:
            one, other = self.rng.sample(files, 2)
            status = one.stat()
            changes = {
                "replace": lambda: _write(one, self.images.new()),
                "replace, old time": lambda: _write(one, self.images.new(), (status.st_atime_ns, status.st_mtime_ns)),
                "exchange": lambda: _exchange(one, other),
                "link": lambda: (one.unlink(), one.symlink_to(other))[0],
                "rename": lambda: one.rename(one.with_name(f"new{one.name}")) and None,
                "remove": one.unlink,
                "add": lambda: _write(one.with_name(f"more{one.name}"), self.images.new()),
            }
        elif self.kind == "zip":
            changes = {"exchange members": self._exchange_members}
        name = self.rng.choice(sorted(changes))
        changes[name]()
        return name

    def _replace_rows(self) -> None:
        path = self.rng.choice(sorted(self.source.glob("rows*.parquet")))
        rows = read_table(path)["image"].to_pylist()
        rows[self.rng.randrange(len(rows))] = self.images.new()
        write_table(pa.table({"image": rows}), path, row_group_size=100)

    def _exchange_members(self) -> None:
        with zipfile.ZipFile(self.source) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        one, other = self.rng.sample(sorted(members), 2)
        members[one], members[other] = members[other], members[one]
        self._write_zip(members)

    def damage(self) -> str | None:
        """Damage a finished part or the result, if there is any; returns how."""
        parts = sorted(self.parts.glob("*.parquet")) if self.parts.exists() else []
        files = parts or ([self.output] if self.output.exists() else [])
        if not files:
            return None
        path = self.rng.choice(files)
        data, kind = bytearray(path.read_bytes()), self.rng.choice(("flip", "cut", "empty", "exchange"))
        if kind == "exchange" and len(parts) > 1:
            _exchange(*self.rng.sample(parts, 2))
        elif kind in ("flip", "exchange") and data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            path.write_bytes(data)
        else:
            path.write_bytes(data[: self.rng.randrange(len(data)) if kind == "cut" and data else 0])
        return f"{kind} {'parts' if parts else 'result'}"

    def start(self, address: str) -> subprocess.Popen[str]:
        """Start the command."""
        command = ["predict", MODEL, self.source.name, "--ray", address, "-o", os.fspath(self.output)]
        return subprocess.Popen(
            [sys.executable, "-m", "squeezenet", *command], cwd=self.folder, env=_ENVIRONMENT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _write(path: Path, data: bytes, times: tuple[int, int] | None = None) -> None:
    path.write_bytes(data)
    if times:
        os.utime(path, ns=times)


def _exchange(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def run_job(job: Job, rng: random.Random, address: str, cluster: int, length_s: float) -> Counter[str]:
    """Kill and change at random, then let it end; count what happened and which rows are wrong."""
    seen: Counter[str] = Counter({"jobs": 1})
    kills = rng.randint(0, 3)
    while True:
        process, deadline = job.start(address), time.monotonic() + rng.uniform(0.2, 1.1) * length_s
        victim = rng.choice(("driver", "worker")) if kills else None
        while victim and process.poll() is None:
            if victim == "driver" and time.monotonic() > deadline:
                process.kill()
                break
            if (
                victim == "worker"
                and time.monotonic() > deadline
                and (workers := busy_workers("classify_block", cluster))
            ):
                os.kill(rng.choice(workers), signal.SIGKILL)
                seen["workers killed"] += 1
                break
            time.sleep(0.01)
        output = process.communicate()[0]
        seen["drivers killed"] += process.returncode == -signal.SIGKILL
        seen["continued"] += "by an earlier run" in output
        if "other images, or changed ones" in output:
            seen["refused, since images had changed"] += 1
            shutil.rmtree(job.parts)
            continue
        if process.returncode not in (0, -signal.SIGKILL):
            raise AssertionError(output)
        if process.returncode == 0 and not kills:
            break
        kills = max(0, kills - 1)
        if rng.random() < 0.6:
            seen[job.change_images()] += 1
        if rng.random() < 0.6 and (damage := job.damage()):
            seen[damage] += 1
    rows, expected = read_table(job.output).to_pylist(), job.expected()
    found = {row["path"]: (row["class"], row["probability"]) for row in rows}
    seen["rows"] += len(rows)
    seen["rows twice or missing"] += len(rows) - len(found) + len(found.keys() ^ expected.keys())
    seen["rows of another image"] += sum(found[name] != expected[name] for name in found.keys() & expected.keys())
    seen["parts left behind"] += job.parts.exists()
    return seen


@contextmanager
def cluster_of(folder: Path) -> Iterator[tuple[str, int]]:
    """A cluster of two processors; its address and its first process."""
    port = str(20_000 + os.getpid() % 10_000)
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", "--disable-usage-stats"]
    environment = {**_ENVIRONMENT, "RAY_worker_niceness": "0"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(8)
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--for", type=float, default=float("inf"), dest="seconds", help="stop after so many seconds")
    arguments = parser.parse_args()
    path, begin = ROOT / "results/ray_jobs.json", time.monotonic()
    before: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    seen = Counter(before.get("seen", {}) if before.get("seed") == arguments.seed else {})
    if seen["jobs"] >= arguments.jobs:
        seen = Counter()
    images = Images()
    with tempfile.TemporaryDirectory() as name, cluster_of(Path(name) / "ray") as (address, cluster):
        length_s = 5.0  # about what a run takes that nothing disturbs
        while seen["jobs"] < arguments.jobs and time.monotonic() - begin < arguments.seconds:
            number = seen["jobs"]
            rng = random.Random(1_000 * arguments.seed + number)
            folder = Path(name) / f"job{number}"
            folder.mkdir()
            kind = ("folder", "mixed", "zip", "folder", "parquet")[number % 5]
            started = time.monotonic()
            seen.update(run_job(Job(folder, kind, images, rng), rng, address, cluster, length_s))
            shutil.rmtree(folder)
            results = {"seed": arguments.seed, "images_per_job": N_IMAGES, "seen": dict(sorted(seen.items()))}
            write_results("ray_jobs", results | {"run": describe_run()})
            print(f"{number} {kind}: {time.monotonic() - started:.0f} s; {dict(seen)}", flush=True)
    if seen["rows twice or missing"] or seen["rows of another image"]:
        sys.exit("rows are wrong")


if __name__ == "__main__":
    main()
