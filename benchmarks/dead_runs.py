"""Train many seeds for a short while and count those whose loss stays at what guessing costs.

Subsets of three data sets, each with the recipe that `squeezenet train` chooses for it, shortened to at least 70 steps
after the warm-up. Needs ../shared; takes about a quarter of an hour on two cores. Writes results/dead_runs.json.

    python benchmarks/dead_runs.py [--seeds 20]
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run

from squeezenet.data import ImageSet, open_data
from squeezenet.process import keep_freed_memory
from squeezenet.training import load_recipe, train_model
from squeezenet.training.alarms import guessing_loss

# Recipe, images to train on, images to validate on, epochs.
TASKS = {
    "digits": ("digits", 480, 100, 8),
    "cifar10": ("cifar10", 1280, 200, 12),
    "imagenette": ("small-photos", 640, 100, 8),
}


def open_task(task: str) -> ImageSet:
    if task == "digits":
        return open_data("digits", split="train")
    names = {"cifar10": "data/cifar10-train-0.zip", "imagenette": "data/imagenette-train.zip"}
    return open_data(SHARED / names[task])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/dead_runs.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    results["run"] = describe_run()
    for task in arguments.tasks:
        results[task] = measure(task, arguments.seeds)
        arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    n_dead = sum(results[task]["dead"] for task in arguments.tasks)
    print(f"{n_dead} dead runs of {arguments.seeds * len(arguments.tasks)}")
    if n_dead:
        sys.exit(1)


def measure(task: str, seeds: int) -> dict[str, Any]:
    recipe_name, n_train, n_val, epochs = TASKS[task]
    images = open_task(task)
    shuffled = np.random.default_rng(0).permutation(len(images))
    train, val = images.subset(sorted(shuffled[:n_train])), images.subset(sorted(shuffled[n_train : n_train + n_val]))
    losses, top1, alarms = [], [], 0
    start = time.monotonic()
    recipe = load_recipe(recipe_name)
    lowest, highest = guessing_loss(train, recipe.label_smoothing)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            result = train_model(
                train, val, run_dir=name, recipe=recipe.replace(seed=seed), epochs=epochs, progress=False
            )
            with (Path(name) / "log.csv").open() as stream:
                losses.append(float(list(csv.DictReader(stream))[-1]["train_loss"]))
        alarms += len(result.alarms)
        top1.append(result.top1)
        print(f"{task}, seed {seed}: loss {losses[-1]:.3f} of {highest:.3f} by guessing", flush=True)
    dead = sum(loss > 0.98 * lowest for loss in losses)
    return {
        "recipe": recipe_name, "n_train": n_train, "epochs": epochs, "seeds": seeds, "dead": dead, "alarms": alarms,
        "guessing_loss": highest, "largest_loss": max(losses), "median_loss": float(np.median(losses)),
        "smallest_top1": min(top1), "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


if __name__ == "__main__":
    main()
