"""How fast a GPU trains: images per second of whole steps, plain and compiled, from batches that are there already.

python benchmarks/gpu_training.py [--compile] [--output results/gpu_training.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from environment import describe_run

from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet
from squeezenet.training.feed.batches import Batch
from squeezenet.training.recipe import Recipe, load_recipe
from squeezenet.training.state import TrainingState
from squeezenet.training.step import choose_precision, train_step

STEPS, ROUNDS, WARM_UP = 30, 3, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="measure compiled networks too: minutes for each")
    parser.add_argument("--output", type=Path, default=Path("results/gpu_training.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("expected a CUDA device, got none")
    device = torch.device("cuda")
    imagenet = load_recipe("imagenet").replace(trivial_augment=False, distillation=0.0)
    cases = {
        "imagenet": (imagenet, 1000, imagenet.batch_size),
        "imagenet at 224 pixels": (imagenet.replace(input_size=224, resize_size=256), 1000, imagenet.batch_size),
        "cifar10": (load_recipe("cifar10"), 10, load_recipe("cifar10").batch_size),
        "cifar10-large": (load_recipe("cifar10-large"), 10, load_recipe("cifar10-large").batch_size),
    }
    rows: list[dict[str, Any]] = []
    for is_compiled in (False, True) if arguments.compile else (False,):
        for name, (recipe, num_classes, batch_size) in cases.items():
            row = {"name": name, "batch_size": batch_size, "is_compiled": is_compiled}
            rows.append(row | measure(recipe, num_classes, batch_size, device, is_compiled=is_compiled))
            print(json.dumps(rows[-1]), flush=True)
    facts = {"run": describe_run(), "gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    arguments.output.write_text(json.dumps(facts, indent=1) + "\n")


def measure(
    recipe: Recipe, num_classes: int, batch_size: int, device: torch.device, *, is_compiled: bool
) -> dict[str, float]:
    torch.manual_seed(0)
    model = SqueezeNet(recipe.spec(num_classes), dropout=recipe.dropout)
    model.labels = Labels(tuple(map(str, range(num_classes))))
    model.preprocessing = recipe.preprocessing()
    state = TrainingState.start(recipe, model, precision=choose_precision(device), data_id="", device=device)
    if is_compiled:
        state.compile_features()
    size = model.preprocessing.crop_size
    batch = Batch(
        torch.randint(256, (batch_size, size, size, 3), dtype=torch.uint8, device=device),
        torch.randint(num_classes, (batch_size,), device=device),
        [],
    )
    start = time.perf_counter()
    train_step(state, batch, steps_per_epoch=1000)
    first_s = time.perf_counter() - start
    seconds = []
    for state.step in range(1, WARM_UP + ROUNDS * STEPS):
        if state.step >= WARM_UP and (state.step - WARM_UP) % STEPS == 0:
            torch.cuda.synchronize()
            seconds.append(time.perf_counter())
        train_step(state, batch, steps_per_epoch=1000)
    torch.cuda.synchronize()
    seconds.append(time.perf_counter())
    step_s = statistics.median((after - before) / STEPS for before, after in zip(seconds, seconds[1:], strict=False))
    return {"ms_per_step": 1e3 * step_s, "img_per_s": batch_size / step_s, "first_step_s": first_s,
            "gpu_gib": torch.cuda.max_memory_allocated() / 2**30}  # fmt: skip


if __name__ == "__main__":
    main()
