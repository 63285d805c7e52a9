r"""Heads from few photos: accuracy on the waste photos, time and memory, and the same bytes from every engine.

    python benchmarks/teach.py --v11 v11.sqz --v10 v10.sqz -o results/teach.json

`v11.sqz` is torchvision's 1.1 in int8, `v10.sqz` a file of some 300 kB:
    squeezenet compress ../shared/weights/squeezenet1_1-imagenet-fp16.safetensors -o v11.sqz --method int8
    squeezenet compress ../shared/weights/compressed_SqueezeNet.net -o v10.sqz \
        --calibration ../shared/data/imagenet-500.zip
Nothing is chosen by the photos that judge: a head's settings are chosen by leaving its own photos out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_run
from numpy.typing import NDArray

from squeezenet import Classifier, open_data, read_sqz
from squeezenet.evaluation.features import collect_features
from squeezenet.fileformat import decode_sqz
from squeezenet.teaching.head import joined, plain_json, replace_head
from squeezenet.teaching.native import fit
from squeezenet.teaching.solver import FeatureCode, fit_numpy, kept_levels, quantize_head

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TRASH = SHARED / "data/trash-360.zip"
OTHERS = {"imagenette-val": "data/imagenette-val.zip"}
PARTS = ROOT / "src/squeezenet/exports/web"
DRAWS = 10


def accuracy(path: Path) -> dict[str, Any]:
    """Mean accuracy over draws, judged on the photos that were not drawn, and what leaving one out said of it."""
    classifier, images = Classifier(path), open_data(TRASH)
    vectors, labels = collect_features(classifier, images).vectors, np.array(images.labels)
    head = classifier.spec.convs[-1]
    positions, code = head.out_size**2, FeatureCode.of(head.in_size**2, is_signed=False)
    codes, rows = code.encode(vectors), {}
    for count in (10, 25, 50):
        judged, left_out, seconds = [], [], []
        for draw in range(DRAWS):
            rng = np.random.default_rng(draw)
            drawn = [rng.permutation(np.flatnonzero(labels == c))[:count] for c in range(6)]
            train = np.concatenate(drawn)
            rest = np.setdiff1d(np.arange(len(labels)), train)
            start = time.perf_counter()
            found = fit(codes[train], code, labels[train], 6)
            seconds.append(time.perf_counter() - start)
            new = quantize_head(found, code, positions)
            sums = vectors[rest] @ new.weight[:, :, 0, 0].T.astype(np.int64) + positions * new.bias.astype(np.int64)
            logits = sums * new.multiplier.astype(np.float64) / positions
            judged.append(100 * float((logits.argmax(axis=1) == labels[rest]).mean()))
            left_out.append(100 * float((found.scores.argmax(axis=1) == labels[train]).mean()))
        rows[str(count)] = {
            "accuracy": float(np.mean(judged)), "deviation": float(np.std(judged, ddof=1)),
            "left_out": float(np.mean(left_out)), "fit_ms": 1000 * float(np.median(seconds)),
        }  # fmt: skip
        print(path.name, count, rows[str(count)], flush=True)
    return {"file_bytes": path.stat().st_size, "per_class": rows}


def photos_to_file(path: Path) -> dict[str, Any]:
    """300 photos, from JPEG to file, by the command; time, memory, and whether torch was imported."""
    with tempfile.TemporaryDirectory() as folder:
        images = open_data(TRASH)
        labels = np.array(images.labels)
        for c in range(6):
            (Path(folder) / "photos" / images.classes[c]).mkdir(parents=True)
            for index in np.flatnonzero(labels == c)[:50]:
                target = Path(folder) / "photos" / images.classes[c] / f"{index}.jpg"
                target.write_bytes(images.read(int(index)))
        program = (
            "import sys, resource, json; from squeezenet.cli import cli\n"
            f"cli(['teach', {folder + '/photos'!r}, '--on', {str(path)!r}, '-o', {folder + '/new.sqz'!r}, '--json'],"
            " standalone_mode=False)\n"
            "print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 'torch' in sys.modules]))"
        )
        start = time.perf_counter()
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
        report, (kilobytes, has_torch) = map(json.loads, run.stdout.splitlines()[-2:])
        start = time.perf_counter()
        code = FeatureCode.of(169, is_signed=False)
        codes = code.encode(collect_features(Classifier(path), open_data(Path(folder) / "photos")).vectors)
        classes = np.repeat(np.arange(6), 50)
        start = time.perf_counter()
        fit_numpy(code.decode(codes), classes, 6)
        in_numpy = time.perf_counter() - start
        return {
            "photos": report["n_photos"], "seconds": seconds, "fit_seconds": report["fit_seconds"],
            "fit_seconds_numpy": in_numpy, "megabytes": kilobytes / 1000, "imports_torch": has_torch,
            "taught_bytes": (Path(folder) / "new.taught").stat().st_size,
        }  # fmt: skip


def equality(path: Path, tasks: int) -> dict[str, Any]:
    """Random tasks: 1 to 60 photos per class, 2 to 20 classes, with classes kept or not; SHA-256 by each engine."""
    data, contents = path.read_bytes(), read_sqz(path)
    images = open_data([SHARED / OTHERS["imagenette-val"], TRASH], unlabelled=True)
    classifier = Classifier(path)
    head = contents.network.spec.convs[-1]
    positions, code = head.out_size**2, FeatureCode.of(head.in_size**2, is_signed=False)
    pixels: dict[int, NDArray[np.uint8]] = {}
    equal, engines = 0, ["numpy", "c", "node"]
    for task in range(tasks):
        rng = np.random.default_rng(task)
        n_classes = int(rng.integers(2, 21))
        counts = rng.integers(1, 61 if task % 3 == 0 else 12, n_classes)
        classes = np.repeat(np.arange(n_classes), counts)
        chosen = rng.choice(len(images), len(classes), replace=len(classes) > len(images)).tolist()
        for index in set(chosen) - pixels.keys():
            pixels[index] = classifier.preprocessing(images.read(index))
        stack = np.stack([pixels[index] for index in chosen])
        codes = code.encode(classifier.engine.features(stack))
        old = contents.network.convs[head.name]
        kept = task % 2 == 1
        levels = kept_levels(codes, code, old, positions) if kept else None
        meta = {"labels": {"names": [f"class {index}" for index in range(n_classes + 1000 * kept)]}}

        def made(found: Any, *, kept: bool = kept, old: Any = old, meta: Any = meta) -> str:
            new = quantize_head(found, code, positions)
            return hashlib.sha256(replace_head(data, contents, joined(old, new) if kept else new, meta)).hexdigest()

        found = [
            made(fit_numpy(code.decode(codes), classes, n_classes, levels)),
            made(fit(codes, code, classes, n_classes, levels)),
            in_node(path, stack, classes, n_classes, 1000 * kept, plain_json(meta)),
        ]
        equal += len(set(found)) == 1
        print("task", task, n_classes, len(classes), kept, found[0][:12], len(set(found)) == 1, flush=True)
    return {"tasks": tasks, "equal": equal, "engines": engines}


def in_node(path: Path, pixels: NDArray[np.uint8], classes: NDArray[np.int64], n: int, kept: int, text: bytes) -> str:
    """The same task in WebAssembly; SHA-256 of the file."""
    with tempfile.TemporaryDirectory() as folder:
        task = struct.pack("<5I", len(classes), n, kept, len(text), 0) + classes.astype("<i4").tobytes()
        (Path(folder) / "task").write_bytes(task + pixels.tobytes() + text)
        command = ["node", ROOT / "tests/native/teach.mjs", PARTS / "engine.wasm", path, Path(folder) / "task"]
        made = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    decode_sqz(made)
    return hashlib.sha256(made).hexdigest()


def main() -> None:
    """Run the measurements that were asked for and write them to one file, beside those that it has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--v11", type=Path, required=True)
    parser.add_argument("--v10", type=Path)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--parts", nargs="+", default=["accuracy", "time", "equality"])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/teach.json")
    options = parser.parse_args()
    rows = json.loads(options.output.read_text()) if options.output.exists() else {}
    rows |= {"run": describe_run(), "draws": DRAWS}
    if "accuracy" in options.parts:
        rows["accuracy"] = {"1.1 int8": accuracy(options.v11)}
        if options.v10:
            rows["accuracy"]["1.0"] = accuracy(options.v10)
    if "time" in options.parts:
        rows["time"] = photos_to_file(options.v11)
        print(rows["time"])
    if "equality" in options.parts and shutil.which("node"):
        rows["equality"] = equality(options.v11, options.tasks)
    options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
