"""Random tasks of teaching, each by four engines: SHA-256 of the file that every one of them writes.

    python benchmarks/teach_equality.py --v11 v11.sqz --first 0 --tasks 30

Python with the solver in NumPy, Python with that in C, WebAssembly in Node, and the exported page in Chromium. A
task has 1 to 60 photos per class and 2 to 20 classes; every second one keeps the network's 1,000 classes; every
third is taught in two steps, in Python through the `.taught` file, in Chromium through a saved page. Tasks that
results/teach.json has from an earlier run stay there, so that 30 may be done in parts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run
from numpy.typing import NDArray

import squeezenet.teaching.teach
from squeezenet import Classifier, open_data, teach
from squeezenet.container import DEFAULT_LIMITS, split_chunks
from squeezenet.exports import build_page
from squeezenet.exports.browser import open_browser, open_page
from squeezenet.teaching import native
from squeezenet.teaching.solver import fit_numpy

PHOTOS = ("imagenette-val", "trash-360")
WASM = ROOT / "src/squeezenet/exports/web/engine.wasm"
ENGINES = ("numpy", "c", "node", "chromium")
TIMEOUT_S = 300


@dataclass(frozen=True)
class Task:
    """Photos of one or two steps: position in the pool, by class."""

    seed: int
    keep: bool
    steps: tuple[dict[str, list[int]], ...]

    @property
    def photos(self) -> list[tuple[int, int]]:
        """Class and photo of each, as both steps together order them."""
        names = list(dict.fromkeys(name for step in self.steps for name in step))
        return [(c, photo) for c, name in enumerate(names) for step in self.steps for photo in step.get(name, [])]


def make_task(seed: int, pool: int) -> Task:
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 21))
    counts = rng.integers(1, 61 if seed % 3 == 0 else 12, n_classes)
    chosen = np.split(rng.permutation(pool)[: counts.sum()], np.cumsum(counts)[:-1])
    whole = {f"class {c:02}": photos.tolist() for c, photos in enumerate(chosen)}
    if seed % 3 != 1:
        return Task(seed, seed % 2 == 1, (whole,))
    first = dict(list(whole.items())[: max(2, n_classes // 2)])
    before = {name: photos[: (len(photos) + 1) // 2] for name, photos in first.items()}
    after = {name: photos[len(before.get(name, ())) :] for name, photos in whole.items()}
    return Task(seed, seed % 2 == 1, (before, {name: photos for name, photos in after.items() if photos}))


def in_python(task: Task, base: Path, photos: list[bytes], folder: Path, *, solver: Any) -> bytes:
    squeezenet.teaching.teach.fit = solver
    output = folder / "new.sqz"
    for number, step in enumerate(task.steps):
        root = folder / f"step{number}"
        for name, members in step.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            for place, photo in enumerate(members):
                (root / name / f"{place:03}.jpg").write_bytes(photos[photo])
        teach(root, on=output if number else base, output=output, keep=task.keep and not number)
    return output.read_bytes()


def with_numpy(codes: NDArray[np.uint8], code: Any, *rest: Any) -> Any:
    return fit_numpy(code.decode(codes), *rest)


def in_node(task: Task, base: Path, read: Any, photos: list[bytes], meta: bytes, folder: Path) -> bytes:
    """All photos at once, without steps."""
    classes = np.array([c for c, _ in task.photos], "<i4")
    rule = b"" if task.keep else b"auto"
    header = struct.pack("<5I", len(classes), int(classes.max()) + 1, 1000 * task.keep, len(meta), len(rule))
    stack = np.stack([read(photos[photo]) for _, photo in task.photos])
    (folder / "task").write_bytes(header + classes.tobytes() + stack.tobytes() + meta + rule)
    command = ["node", ROOT / "tests/native/teach.mjs", WASM, base, folder / "task"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S).stdout


def in_chromium(task: Task, browser: Any, page_file: Path, photos: list[bytes], folder: Path) -> bytes:
    """What people do: cards, names, files, a saved page between the steps."""
    given: list[str] = []
    for number, step in enumerate(task.steps):
        page = open_page(browser, page_file)
        page.set_default_timeout(1000 * TIMEOUT_S)
        page.click("#mode-teach")
        if task.keep and not number:
            page.check("#keep")
        for name, members in step.items():
            if name not in given:
                given.append(name)
                if len(given) > 2:
                    page.click("#add-class")
            card = page.locator("#classes .card").nth(given.index(name))
            card.locator("input[type=text]").fill(name)
            card.locator("input[type=text]").press("Tab")
            before = int(card.locator(".count").inner_text().split()[0])
            files = [{"name": f"{p}.jpg", "mimeType": "image/jpeg", "buffer": photos[p]} for p in members]
            card.locator("input[type=file]").set_input_files(files)
            page.wait_for_function(
                "([i, n]) => document.querySelectorAll('#classes .count')[i].textContent.startsWith(`${n} photo`)"
                " && document.getElementById('state').textContent.startsWith('Ready')",
                arg=[given.index(name), before + len(members)],
            )
        is_last = number == len(task.steps) - 1
        with page.expect_download() as download:
            page.click("#save-sqz" if is_last else "#save-page")
        page_file = folder / "page.html"
        download.value.save_as(page_file)
        page.context.close()
    return page_file.read_bytes()


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    images = open_data([SHARED / f"data/{name}.zip" for name in PHOTOS], unlabelled=True)
    photos = [images.read(index) for index in range(len(images))]
    read = Classifier(options.v11).preprocessing
    with open_browser() as browser, tempfile.TemporaryDirectory() as place:
        page_file = Path(place) / "base.html"
        page_file.write_bytes(build_page(options.v11.read_bytes())[0])
        for seed in range(options.first, options.first + options.tasks):
            start, task, found = time.perf_counter(), make_task(seed, len(photos)), {}
            folders = [Path(place) / f"{seed}-{engine}" for engine in ENGINES]
            for folder in folders:
                folder.mkdir()
            found["numpy"] = in_python(task, options.v11, photos, folders[0], solver=with_numpy)
            found["c"] = in_python(task, options.v11, photos, folders[1], solver=native.fit)
            meta = zlib.decompress(split_chunks(found["numpy"], DEFAULT_LIMITS)[b"META"])
            found["node"] = in_node(task, options.v11, read, photos, meta, folders[2])
            found["chromium"] = in_chromium(task, browser, page_file, photos, folders[3])
            digests = {engine: hashlib.sha256(data).hexdigest() for engine, data in found.items()}
            is_equal = len(set(digests.values())) == 1
            row = {
                "task": seed, "classes": len({c for c, _ in task.photos}), "photos": len(task.photos),
                "keep": task.keep, "steps": len(task.steps), "sha256": digests["numpy"], "equal": is_equal,
                **({} if is_equal else {"digests": digests}),
            }  # fmt: skip
            print(row, f"{time.perf_counter() - start:.0f} s", flush=True)
            yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--v11", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/teach.json")
    options = parser.parse_args()
    for row in run(options):  # written one by one
        results = json.loads(options.output.read_text()) if options.output.exists() else {}
        earlier = {row["task"]: row for row in results.get("equality", {}).get("rows", [])}
        merged = [row for _, row in sorted((earlier | {row["task"]: row}).items())]
        results["equality"] = {
            "run": describe_run(), "engines": list(ENGINES), "tasks": len(merged),
            "equal": sum(row["equal"] for row in merged), "two_steps": sum(row["steps"] == 2 for row in merged),
            "kept": sum(row["keep"] for row in merged), "rows": merged,
        }  # fmt: skip
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
