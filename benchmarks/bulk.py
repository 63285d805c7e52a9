"""Bulk prediction on a local Ray cluster, one worker killed midway, against one process of `squeezenet predict`.

Makes photos of 500x375 out of DATA, as `photos.py` does, and repeats them until there are `--count`. One process runs
on one core and again on all; the cluster has one worker for each core, and one of them is killed when half of the
images are done. Every image must be in the result once, with the class that the single process gave it.

    python benchmarks/bulk.py MODEL.sqz ../shared/data/imagenet-500.zip
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from environment import ROOT, describe_run

from squeezenet.cluster import predict_to_parquet
from squeezenet.progress import SilentReporter, Task

BAR = 1.6


def repeat_photos(data: str, folder: Path, count: int) -> None:
    """Write photos of 500x375, ImageNet's usual size, and links to them until there are `count`."""
    from photos import write_photos

    n_originals = write_photos(data, folder)
    originals = sorted(folder.iterdir())
    for path in originals[count:]:
        path.unlink()
    for number in range(n_originals, count):
        copy, index = divmod(number, n_originals)
        (folder / f"{index:04}-{copy:04}.jpg").hardlink_to(originals[index])


def run_single(model: str, folder: Path, cores: set[int], output: Path) -> float:
    """Wall seconds of `squeezenet predict`, from its start to its end."""
    command = [sys.executable, "-m", "squeezenet", "predict", model, str(folder), "--json"]
    started = time.perf_counter()
    with output.open("w") as stream:
        subprocess.run(
            command,
            check=True,
            stdout=stream,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),  # noqa: PLW1509
        )
    return time.perf_counter() - started


def find_workers() -> list[int]:
    """Processes below this one that classify a block at this moment."""
    parents, titles = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            titles[int(path.name)] = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue

    def is_ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return [pid for pid, title in titles.items() if "ray::" in title and "classify_block" in title and is_ours(pid)]


class _Calling(SilentReporter):
    """Calls a function with the numbers of images done and of all."""

    def __init__(self, function: Callable[[int, int], None]) -> None:
        self._function = function

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        yield Task(lambda done, text: self._function(done, total), total, unit, done)


def run_cluster(model: str, folder: Path, output: Path) -> dict[str, Any]:
    killed: list[dict[str, int]] = []

    def kill_one(done: int, total: int) -> None:
        if not killed and done >= total // 2 and (workers := find_workers()):
            os.kill(workers[0], signal.SIGKILL)
            killed.append({"after_images": done, "workers_before": len(workers)})

    before, started = os.times(), time.perf_counter()
    result = predict_to_parquet(model, [folder], output, progress=_Calling(kill_one))
    wall_s, after = time.perf_counter() - started, os.times()
    if not killed:
        sys.exit("no worker was at work when half of the images were done: take more images")
    return {
        "wall_s": round(wall_s, 2),
        "killed": killed[0],
        "processors": result.n_processors,
        "parts_s": {
            "list": round(result.list_s, 2),
            "start": round(result.start_s, 2),
            "first_block": round(result.first_s, 2),
            "classify": round(result.classify_s, 2),
            "merge": round(result.merge_s, 2),
        },
        # Of the process that hands out and writes; ended children are in the last two, which Ray's own outlive.
        "driver_cpu_s": round(after.user + after.system - before.user - before.system, 2),
    }


def compare(output: Path, single: Path) -> dict[str, int]:
    """How often each image of the single process is in the cluster's rows, and whether the rows say the same."""
    from pyarrow.parquet import read_table

    rows = read_table(output).to_pylist()
    expected = {}
    for line in single.read_text().splitlines():
        record = json.loads(line)
        best = record["predictions"][0] if "predictions" in record else {"label": None, "probability": None}
        expected[record["image"]] = (best["label"], best["probability"])
    paths = [row["path"] for row in rows]
    return {
        "rows": len(rows),
        "missing": len(set(expected) - set(paths)),
        "twice": len(paths) - len(set(paths)),
        "different": sum(expected.get(row["path"]) != (row["class"], row["probability"]) for row in rows),
        "errors": sum(row["error"] is not None for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a .sqz file")
    parser.add_argument("data", help="photos to repeat")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bulk.json")
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "photos"
        folder.mkdir()
        repeat_photos(options.data, folder, options.count)
        cluster = run_cluster(options.model, folder, work / "rows.parquet")
        one_s = run_single(options.model, folder, {min(cores)}, work / "one.jsonl")
        all_s = run_single(options.model, folder, cores, work / "all.jsonl")
        rows = compare(work / "rows.parquet", work / "one.jsonl")
    # What is not the work on images, in seconds of the wall clock: all cores at once need a share of what one needs.
    ideal_s = one_s / len(cores)
    parts = cluster["parts_s"]
    overhead = {
        "all": cluster["wall_s"] - ideal_s,
        "starting and leaving Ray": cluster["wall_s"] - parts["list"] - parts["classify"] - parts["merge"],
        "listing and merging": parts["list"] + parts["merge"],
    }
    overhead["workers' start, the lost block, handing out and writing"] = (
        overhead["all"] - overhead["starting and leaving Ray"] - overhead["listing and merging"]
    )
    report = {
        "run": describe_run(),
        "n_images": options.count,
        "rows": rows,
        "cluster": {**cluster, "images_per_s": round(options.count / cluster["wall_s"], 1)},
        "one_process_one_core": {"wall_s": round(one_s, 2), "images_per_s": round(options.count / one_s, 1)},
        "one_process_all_cores": {"wall_s": round(all_s, 2), "images_per_s": round(options.count / all_s, 1)},
        "overhead_s": {what: round(seconds, 2) for what, seconds in overhead.items()},
        "ratio_to_one_core": round(one_s / cluster["wall_s"], 3),
        "ratio_to_all_cores": round(all_s / cluster["wall_s"], 3),
        "bar": BAR,
    }
    text = json.dumps(report, indent=1) + "\n"
    print(text, end="")
    options.output.write_text(text)
    if rows["missing"] or rows["twice"] or rows["different"] or rows["rows"] != options.count:
        sys.exit("NOT every image is there exactly once with its class")


if __name__ == "__main__":
    main()
