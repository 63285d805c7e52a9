"""Images a second of this package's training against a plain PyTorch loop, in one run, alternating.

The plain loop is what one writes first: float32, contiguous tensors, Pillow for every image of every epoch in a
Dataset behind a DataLoader (with as many workers as make it fastest here), the same network, batch, crop, mirror and
optimiser. Ours is `train_step` on the batches that `train_model` makes. Each measurement is a process of its own. Ours
decodes once per run; that time is shared out over the recipe's epochs and counted. Needs ../shared. Writes
results/training_speed.json.

    python benchmarks/training_speed.py
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run

V11 = SHARED / "weights/squeezenet1_1-imagenet-fp16.safetensors"
# Recipe, data, images taken, steps measured.
TASKS = {
    "cifar10": ("cifar10", "data/cifar10-train-0.zip", 2048, 12),
    "finetune": ("finetune", "data/imagenette-train.zip", 480, 8),
}
WARMUP_STEPS = 3
ROUNDS = 3


def prepare(task: str) -> tuple[Any, Any, Any]:
    """Images, recipe and network, the same for both sides."""
    from squeezenet.data import open_data
    from squeezenet.progress import SilentReporter
    from squeezenet.training import load_recipe
    from squeezenet.training.setup import prepare_data, start_model

    recipe_name, data, count, _ = TASKS[task]
    images = open_data(SHARED / data)
    chosen = images.subset(np.linspace(0, len(images) - 1, count).astype(int).tolist())
    recipe = load_recipe(recipe_name).replace(freeze_features_epochs=0)
    prepared = prepare_data(chosen, chosen.subset(range(0, count, count // 20)), SilentReporter())
    model, prepared = start_model(recipe, V11 if task == "finetune" else None, prepared, SilentReporter())
    return prepared, recipe, model


def run_ours(task: str) -> dict[str, float]:
    import torch

    from squeezenet.process import keep_freed_memory
    from squeezenet.progress import SilentReporter
    from squeezenet.training.feed.augment import EpochDraw
    from squeezenet.training.setup import open_batches
    from squeezenet.training.state import TrainingState
    from squeezenet.training.step import choose_precision, train_step

    keep_freed_memory()
    prepared, recipe, model = prepare(task)
    n_steps = TASKS[task][3] + WARMUP_STEPS
    device = torch.device("cpu")
    state = TrainingState.start(recipe, model, precision=choose_precision(device), data_id="", device=device)
    start = time.perf_counter()
    batches = open_batches(recipe, model.preprocessing, prepared, SilentReporter())
    decode_s = (time.perf_counter() - start) / batches.n_images
    draw = EpochDraw(batches.n_images, seed=0, epoch=0)
    per_epoch = batches.n_images // recipe.batch_size
    steps = min(n_steps, per_epoch)
    for batch in batches.epoch(draw, batch_size=recipe.batch_size, first_step=0, n_steps=steps):
        if state.step == WARMUP_STEPS:
            start = time.perf_counter()
        train_step(state, batch, steps_per_epoch=per_epoch)
        state.step += 1
    step_s = (time.perf_counter() - start) / (steps - WARMUP_STEPS) / recipe.batch_size
    return {"s_per_image": step_s + decode_s / recipe.epochs, "decode_s_per_image": decode_s}


def run_plain(task: str, n_workers: int) -> dict[str, float]:
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    prepared, recipe, model = prepare(task)
    images, size = prepared.train, model.preprocessing.crop_size
    labels = images.labels
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std))

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = Image.open(io.BytesIO(images.read(index))).convert("RGB")
            if recipe.crop == "random":
                padded = Image.new("RGB", (size + 2 * recipe.crop_pad,) * 2)
                padded.paste(image, (recipe.crop_pad, recipe.crop_pad))
                x, y = torch.randint(0, 2 * recipe.crop_pad + 1, (2,)).tolist()
                image = padded.crop((x, y, x + size, y + size))
            else:
                area = image.width * image.height * float(torch.empty(()).uniform_(*recipe.crop_scale))
                ratio = float(torch.empty(()).uniform_(0.75, 4 / 3))
                width = min(image.width, round((area * ratio) ** 0.5))
                height = min(image.height, round((area / ratio) ** 0.5))
                x = int(torch.randint(0, image.width - width + 1, ()))
                y = int(torch.randint(0, image.height - height + 1, ()))
                image = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
            if torch.rand(()) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
            return (pixels - mean) / std, labels[index]

    model = model.train().to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    loader = DataLoader(Images(), recipe.batch_size, shuffle=True, num_workers=n_workers, drop_last=True)
    steps = min(TASKS[task][3] + WARMUP_STEPS, len(loader))
    for done, (pixels, targets) in enumerate(loader):
        if done == WARMUP_STEPS:
            start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(model(pixels.contiguous()), targets, label_smoothing=recipe.label_smoothing).backward()
        optimizer.step()
        if done + 1 == steps:
            break
    return {"s_per_image": (time.perf_counter() - start) / (steps - WARMUP_STEPS) / recipe.batch_size}


def measure(task: str, side: str, n_workers: int = 0) -> float:
    """Run one side in a process of its own; seconds per image."""
    command = [sys.executable, __file__, "--side", side, "--task", task, "--workers", str(n_workers)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    if side == "ours":
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1])["s_per_image"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=["ours", "plain"])
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/training_speed.json")
    arguments = parser.parse_args()
    if arguments.side:
        run = run_ours(arguments.task) if arguments.side == "ours" else run_plain(arguments.task, arguments.workers)
        print(json.dumps(run))
        return
    results: dict[str, Any] = {"run": describe_run()}
    for task in TASKS:
        n_workers = min((0, 2), key=lambda n: measure(task, "plain", n))
        rounds = [(measure(task, "ours"), measure(task, "plain", n_workers)) for _ in range(ROUNDS)]
        ours, plain = (float(np.median(side)) for side in zip(*rounds, strict=True))
        results[task] = {
            "ours_img_per_s": 1 / ours, "plain_img_per_s": 1 / plain, "ratio": plain / ours,
            "smallest_ratio": min(b / a for a, b in rounds), "plain_workers": n_workers, "rounds": ROUNDS,
        }  # fmt: skip
        print(task, json.dumps(results[task]), flush=True)
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
