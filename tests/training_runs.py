"""Tiny data sets and recipes that train in a second or two."""

import hashlib

import numpy as np
import torch
from PIL import Image

from image_files import encode
from squeezenet.training import Recipe, train_model

TINY = Recipe(
    epochs=2, batch_size=8, lr=0.05, nesterov=True, weight_decay=5e-4, label_smoothing=0.1, ema_decay=0.9,
    warmup_epochs=0.5, input_size=8, crop="random", crop_pad=1, pools=(1, 3), batch_norm=True,
    dropout=0.3, precision="float32",
)  # fmt: skip


def write_images(root, per_class=12, classes=("dark", "light", "ramp"), size=10, seed=0):
    """Noisy images whose classes differ in brightness."""
    generator = np.random.default_rng(seed)
    for position, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = generator.integers(0, 80, (size, size, 3)) + 80 * position
            (root / name / f"{number:02d}.png").write_bytes(encode(Image.fromarray(pixels.astype(np.uint8))))
    return root


def train(data, run_dir, recipe=TINY, **options):
    torch.set_num_threads(1)  # two threads on a busy machine wait for each other
    return train_model(data, run_dir=run_dir, recipe=recipe, **{"progress": False, **options})


def digests(result):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (result.best, result.last)]
