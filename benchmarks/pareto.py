"""Search CIFAR-10 for a network that dominates squeezenet1_1's small-image form: fewer bytes, no less accuracy.

`explore` trains short trials on part of the training set, within the published form's MACs and fewer bytes, and sees
2,500 other training images. The most accurate and the smallest that seem better, the published form, and that form
without its squeeze layers' ReLU, are then trained alike with three fresh seeds each, and only these int8 files are
judged on `cifar10-val`, by the engine. Writes results/pareto.json. Needs ../shared and
Ray; takes three quarters of an hour on two cores. An interrupted run continues in the same STUDIES.

    python benchmarks/pareto.py STUDIES/ [--trials 32]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import SHARED, describe_run, write_results
from trends import some_of

from squeezenet.data import ImageSet, open_data
from squeezenet.exploration import Finding, Space, explore
from squeezenet.exploration.measure import measure_file
from squeezenet.exploration.space import Value
from squeezenet.training import load_recipe

N_TRAIN, N_SEARCH, EPOCHS, SEEDS = 10_000, 2_500, 8, 3
RECIPE = load_recipe("cifar10").replace(architecture="squeezenet1_1", pools=None, warmup_epochs=1)
PUBLISHED: dict[str, Value] = {
    "base_e": 128, "incr_e": 128, "freq": 2, "pct_3x3": 0.5, "squeeze_ratio": 0.125, "bypass": "none", "pools": "1,3,5",
}  # fmt: skip
MAX_MACS, MAX_BYTES = 23_511_040, 500_000  # the published form's, and less than its 727 kB
MARGIN = 1.0  # points on the search's images that a smaller network must be ahead by, since the best of many is lucky


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path)
    parser.add_argument("--trials", type=int, default=32)
    arguments = parser.parse_args()
    data = SHARED / "data"
    images = open_data([data / "cifar10-train-0.zip", data / "cifar10-train-1.zip"], split="train")
    images = some_of(images, N_TRAIN + N_SEARCH)
    is_search = np.arange(len(images)) % (len(images) // N_SEARCH) == 0
    train, searched = ([int(index) for index in np.flatnonzero(part)] for part in (~is_search, is_search))
    parts = images.subset(train), images.subset(searched)
    val = open_data(data / "cifar10-val.zip", split="val")

    search = explore(
        *parts, study_dir=arguments.studies / "search", space="pareto", recipe=RECIPE, epochs=EPOCHS,
        trials=arguments.trials, max_bytes=MAX_BYTES, max_macs=MAX_MACS, retrain=False, ray="local",
    )  # fmt: skip
    rows = {
        title: trained_again(
            parts, {**PUBLISHED, "squeeze_relu": squeeze_relu}, val, arguments.studies / f"published-{squeeze_relu}"
        )
        for title, squeeze_relu in (("squeezenet1_1, small-image form", True), ("the same without squeeze ReLU", False))
    }
    published = next(iter(rows.values()))
    for title, finding in choices(search.findings, published).items():
        rows[title] = {
            **trained_again(parts, finding.point, val, arguments.studies / f"trial-{finding.number}"),
            "search_top1": finding.measured.top1,
        }
    for row in rows.values():
        is_as_good = row["top1_mean"] >= published["top1_mean"]
        row["dominates"] = is_as_good and row["file_bytes"] < published["file_bytes"]
    results = {
        "run": describe_run(), "n_train": N_TRAIN, "n_search": N_SEARCH, "n_images": len(val), "epochs": EPOCHS,
        "max_macs": MAX_MACS, "max_bytes": MAX_BYTES, "trials": len(search.findings),
        # Of each trial, on a core of its own: they add up over several calls as well.
        "search_core_seconds": round(sum(finding.measured.seconds for finding in search.findings)),
        "networks": rows,
    }  # fmt: skip
    write_results("pareto", results)


def choices(findings: Sequence[Finding], published: dict[str, Any]) -> dict[str, Finding]:
    """What of a search to train again: the most accurate and the smallest that seem better and cost no more."""
    better = [
        finding
        for finding in findings
        if finding.measured.file_bytes <= MAX_BYTES and finding.measured.top1 >= published["search_top1_mean"] + MARGIN
    ]
    if not better:
        raise SystemExit("nothing that the search found is ahead of the published form: search on, with more --trials")
    best = max(better, key=lambda finding: finding.measured.top1)
    smallest = min(better, key=lambda finding: finding.measured.file_bytes)
    if best is smallest:
        return {"found, most accurate and smallest": best}
    return {"found, most accurate": best, "found, smallest": smallest}


def trained_again(
    parts: tuple[ImageSet, ImageSet], point: dict[str, Value], val: ImageSet, folder: Path
) -> dict[str, Any]:
    """Train one network with fresh seeds, and judge its files on images that chose nothing."""
    space = Space(sampler="grid", fixed={"stem_channels": 64, "stem_kernel": 3},
                  dimensions={name: (value,) for name, value in point.items()})  # fmt: skip
    result = explore(
        *parts, study_dir=folder, space=space, recipe=RECIPE.replace(seed=100), epochs=EPOCHS, seeds=SEEDS,
        retrain=False, ray="local",
    )  # fmt: skip
    measured = [finding.measured for finding in result.findings]
    files = [folder / "trials" / finding.folder / "net.sqz" for finding in result.findings]
    top1 = [measure_file(file.read_bytes(), val).top1 for file in files]
    return {
        "point": dict(point), "params": measured[0].params, "macs": measured[0].macs,
        "ram_bytes": measured[0].ram_bytes,
        "file_bytes": round(statistics.fmean(m.file_bytes for m in measured)),
        "search_top1_mean": statistics.fmean(m.top1 for m in measured),
        "top1": top1, "top1_mean": statistics.fmean(top1), "top1_std": statistics.stdev(top1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
