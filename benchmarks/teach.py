r"""Heads from few photos: accuracy on the waste photos, time and memory, also of thousands.

teach_equality.py compares the bytes that engines write.

    python benchmarks/teach.py --v11 v11.sqz --v10 v10.sqz -o results/teach.json

`v11.sqz` is torchvision's 1.1 in int8, `v10.sqz` a file of some 300 kB:
    squeezenet compress ../shared/weights/squeezenet1_1-imagenet-fp16.safetensors -o v11.sqz --method int8
    squeezenet compress ../shared/weights/compressed_SqueezeNet.net -o v10.sqz \
        --calibration ../shared/data/imagenet-500.zip
Nothing is chosen by the photos that judge: a head's settings are chosen by leaving its own photos out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_run

from squeezenet import Classifier, open_data
from squeezenet.evaluation.features import collect_features
from squeezenet.teaching.native import fit
from squeezenet.teaching.solver import FeatureCode, fit_numpy, quantize_head

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TRASH = SHARED / "data/trash-360.zip"
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


def large(path: Path) -> dict[str, Any]:
    """Many photos, many classes, the same photos twice, one photo: seconds, peak memory, output of the command."""
    images = open_data(SHARED / "data/imagenette-train.zip")
    with tempfile.TemporaryDirectory() as place:
        everything, many, twice, one = (Path(place) / name for name in ("5000", "500", "twice", "one"))
        for index, item in enumerate(images.items):
            copies = [(everything, images.classes[item.label or 0])]
            if index % 3 == 0:
                copies.append((many, f"class {index // 3 % 500:03}"))
            if item.label == 0 and index < 40:
                copies += [(twice, "one"), (twice, "other")]
            if index == 0:
                copies.append((one, "alone"))
            for folder, name in copies:
                (folder / name).mkdir(parents=True, exist_ok=True)
                (folder / name / f"{index:05}.jpg").write_bytes(images.read(index))
        found = {}
        for folder in (everything, many, twice, one):
            found[folder.name] = _by_command(path, folder)
            print(folder.name, found[folder.name], flush=True)
        return found


def _by_command(path: Path, folder: Path) -> dict[str, Any]:
    program = (
        "import sys, resource; from squeezenet.cli import cli\n"
        "try: cli(sys.argv[1:])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    arguments = ["teach", str(folder), "--on", str(path), "-o", f"{folder}.sqz", "--json"]
    start = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    seconds, lines = time.perf_counter() - start, run.stdout.splitlines()
    found = {"seconds": seconds, "megabytes": int(lines[-1]) / 1000, "exit_code": run.returncode}
    if run.returncode:
        return found | {"says": run.stderr.strip().splitlines()[-1].replace(str(folder.parent), "...")}
    report = json.loads(lines[-2])
    return found | {
        "photos": report["n_photos"], "classes": len(report["classes"]), "fit_seconds": report["fit_seconds"],
        "left_out_top1": report["left_out"]["top1"], "shared": len(report["shared"]),
        "taught_bytes": folder.with_suffix(".taught").stat().st_size,
    }  # fmt: skip


def main() -> None:
    """Run the measurements that were asked for and write them to one file, beside those that it has."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--v11", type=Path, required=True)
    parser.add_argument("--v10", type=Path)
    parser.add_argument("--parts", nargs="+", default=["accuracy", "time", "large"])
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
    if "large" in options.parts:
        rows["large"] = large(options.v11)
    options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
