"""The paper's curves on CIFAR-10: accuracy against a metaparameter, three seeds per point.

Every network is trained alike, briefly, on a part of the training set, rounded to int8, and measured on a part of
`cifar10-val` by the engine. Writes results/trends.json.
Needs ../shared; a preset takes half an hour on one core. An interrupted run continues in the same STUDIES.

    python benchmarks/trends.py STUDIES/ [--presets paper-sr ...] [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run, write_results

from squeezenet.data import ImageSet, open_data
from squeezenet.exploration import Finding, explore, load_space
from squeezenet.process import keep_freed_memory
from squeezenet.training import load_recipe

RESULTS = ROOT / "results/trends.json"
N_TRAIN, N_VAL, EPOCHS = 3000, 2500, 6
# Early pools: the widest networks have six times the work of the narrowest.
RECIPE = load_recipe("cifar10").replace(pools=(1, 3, 5), bypass="none", warmup_epochs=1)


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
        results[preset] = {
            "run": describe_run(), "n_train": N_TRAIN, "n_images": N_VAL, "epochs": EPOCHS, "name": name,
            "points": [summary(value, findings) for value, findings in groups.items()],
        }  # fmt: skip
        write_results("trends", results)


def summary(value: float, findings: list[Finding]) -> dict[str, Any]:
    top1 = [finding.measured.top1 for finding in findings]
    measured = findings[0].measured
    return {
        "value": value, "params": measured.params, "macs": measured.macs, "file_bytes": measured.file_bytes,
        "top1": top1, "top1_mean": statistics.fmean(top1), "top1_std": statistics.stdev(top1) if top1[1:] else 0.0,
        "float_top1": [finding.measured.float_top1 for finding in findings],
    }  # fmt: skip


if __name__ == "__main__":
    main()
