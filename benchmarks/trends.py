"""The paper's curves on CIFAR-10: accuracy against a metaparameter, three seeds a point.

Every network is trained alike, briefly, on a part of the training set, rounded to int8, and measured on a part of
`cifar10-val` by the engine. Writes results/trends.json, docs/images/trend-PRESET.svg and the tables of docs/paper.md.
Needs ../shared; a preset takes half an hour on one core. A run that was cut off continues in the same STUDIES.

    python benchmarks/trends.py STUDIES/ [--presets paper-sr ...] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run
from marked_places import fill, markdown_table

from squeezenet.data import ImageSet, open_data
from squeezenet.exploration import Finding, explore, load_space
from squeezenet.exploration.plots import plot_curve
from squeezenet.process import keep_freed_memory
from squeezenet.training import load_recipe

RESULTS, PAGE, IMAGES = ROOT / "results/trends.json", ROOT / "docs/paper.md", ROOT / "docs/images"
N_TRAIN, N_VAL, EPOCHS = 3000, 2500, 6
# Early pools: the widest networks have six times the work of the narrowest.
RECIPE = load_recipe("cifar10").replace(pools=(1, 3, 5), bypass="none", warmup_epochs=1)
LABELS = {"squeeze_ratio": "squeeze ratio", "pct_3x3": "share of 3x3 filters"}


def some_of(images: ImageSet, count: int) -> ImageSet:
    return images.subset(np.linspace(0, len(images) - 1, count).astype(int).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path)
    parser.add_argument("--presets", nargs="+", default=["paper-sr"], choices=["paper-sr", "paper-pct3x3"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    data = SHARED / "data"
    train = some_of(open_data([data / "cifar10-train-0.zip", data / "cifar10-train-1.zip"], split="train"), N_TRAIN)
    val = some_of(open_data(data / "cifar10-val.zip", split="val"), N_VAL)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for preset in arguments.presets:
        result = explore(
            train, val, study_dir=arguments.studies / preset, space=preset, recipe=RECIPE, epochs=EPOCHS,
            seeds=arguments.seeds, retrain=False,
        )  # fmt: skip
        (name,) = load_space(preset).dimensions
        groups: dict[Any, list[Finding]] = {}
        for finding in sorted(result.findings, key=lambda f: f.point[name]):
            groups.setdefault(finding.point[name], []).append(finding)
        (IMAGES / f"trend-{preset}.svg").write_text(plot_curve(name, groups, LABELS[name]))
        results[preset] = {
            "run": describe_run(), "n_train": N_TRAIN, "n_images": N_VAL, "epochs": EPOCHS, "name": name,
            "points": [summary(value, findings) for value, findings in groups.items()],
        }  # fmt: skip
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(fill(PAGE.read_text(), {f"trend-{preset}": table(row) for preset, row in results.items()}))


def summary(value: float, findings: list[Finding]) -> dict[str, Any]:
    top1 = [finding.measured.top1 for finding in findings]
    measured = findings[0].measured
    return {
        "value": value, "params": measured.params, "macs": measured.macs, "file_bytes": measured.file_bytes,
        "top1": top1, "top1_mean": statistics.fmean(top1), "top1_std": statistics.stdev(top1) if top1[1:] else 0.0,
        "float_top1": [finding.measured.float_top1 for finding in findings],
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    return network_table(LABELS[result["name"]], {f"{row['value']:g}": row for row in result["points"]})


def network_table(what: str, rows: dict[str, dict[str, Any]]) -> str:
    """Networks by what tells them apart, each with its counts and the accuracy of several seeds."""
    header = [what, "parameters", "MACs", "int8 file, bytes", "top-1 of the file", "of each seed"]
    lines = [
        [
            title, f"{row['params']:,}", f"{row['macs']:,}", f"{row['file_bytes']:,}",
            f"{row['top1_mean']:.1f} ± {row['top1_std']:.1f} %", ", ".join(f"{top1:.1f}" for top1 in row["top1"]),
        ]
        for title, row in rows.items()
    ]  # fmt: skip
    return markdown_table([header, *lines])


if __name__ == "__main__":
    main()
