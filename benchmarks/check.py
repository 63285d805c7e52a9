"""`squeezenet check` on photos with planted faults: how many wrong labels and near-duplicates it finds, and how many it
makes up.

python benchmarks/check.py
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import SHARED, describe_run, write_results
from PIL import Image, ImageEnhance

from squeezenet import SqzFile, check
from squeezenet.models import load_model
from squeezenet.progress import reporter_for
from squeezenet.quantization.int8 import quantize_int8
from squeezenet.quantization.photos import calibration_without_photos

N_PLANTED = 40
CHANGES = ("crop", "brightness", "jpeg")


def plant(folder: Path, rng: np.random.Generator) -> tuple[dict[str, str], dict[str, str]]:
    """Unpack `imagenette-train` with wrong labels and near-duplicates.

    Returns:
        Wrongly labelled photos with their right class, and duplicates with their original; names as `class/file`.
    """
    with zipfile.ZipFile(SHARED / "data/imagenette-train.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith((".jpg", ".JPEG")))
        photos = {name.partition("/")[2]: archive.read(name) for name in names}
    classes = sorted({name.split("/")[0] for name in photos})
    chosen = [sorted(photos)[i] for i in rng.permutation(len(photos))[: 2 * N_PLANTED]]
    wrong, copies = {}, {}
    for name in chosen[:N_PLANTED]:
        own, file = name.split("/")
        other = str(rng.choice([c for c in classes if c != own]))
        photos[f"{other}/moved-{file}"] = photos.pop(name)
        wrong[f"{other}/moved-{file}"] = own
    for number, name in enumerate(chosen[N_PLANTED:]):
        change = CHANGES[number % len(CHANGES)]
        own, file = name.split("/")
        photos[f"{own}/{change}-{file}"] = changed(photos[name], change, rng)
        copies[f"{own}/{change}-{file}"] = name
    for name, data in photos.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return wrong, copies


def changed(data: bytes, change: str, rng: np.random.Generator) -> bytes:
    """Crop a photo to 75 to 90 % of either side, make it 30 to 45 % brighter or darker, or compress it to 20 to 40."""
    image, quality = Image.open(io.BytesIO(data)).convert("RGB"), 90
    if change == "crop":
        width, height = (round(side * rng.uniform(0.75, 0.9)) for side in image.size)
        left, top = (
            int(rng.integers(0, side - kept + 1)) for side, kept in zip(image.size, (width, height), strict=True)
        )
        image = image.crop((left, top, left + width, top + height))
    elif change == "brightness":
        image = ImageEnhance.Brightness(image).enhance(1 + rng.uniform(0.3, 0.45) * rng.choice([-1, 1]))
    else:
        quality = int(rng.integers(20, 41))
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def published() -> SqzFile:
    """Torchvision's 1.1 in int8, as `imagenet` is."""
    model = load_model(SHARED / "weights/squeezenet1_1-imagenet-fp16.safetensors").eval()
    calibration = calibration_without_photos(model)
    network = quantize_int8(model, calibration, reporter_for())
    return SqzFile.of(model, network, preset="int8", calibration=calibration.source)


def judge(folder: Path, on: SqzFile | str, wrong: dict[str, str], copies: dict[str, str]) -> dict[str, Any]:
    start = time.perf_counter()
    found = check(folder, on=on)
    seconds = time.perf_counter() - start
    names = [name.removeprefix(f"{folder}/") for name in found.names]
    first = [names[suspect.photo] for suspect in found.suspects[: 2 * N_PLANTED]]
    pairs = {frozenset((copy, original)) for copy, original in copies.items()}
    groups = [frozenset(names[i] for i in group.photos) for group in found.duplicates]
    caught = [pair for pair in pairs if any(pair <= group for group in groups)]
    others = [sorted(group) for group in groups if group not in pairs]
    return {
        "labels_in_first_80": sum(name in wrong for name in first), "suspects": len(found.suspects),
        "accuracy": found.accuracy, "duplicates": len(caught), "other_groups": others,
        "missed": sorted(sorted(pair) for pair in pairs if pair not in caught), "seconds": round(seconds, 1),
        "blank": len(found.blank), "blurred": len(found.blurred),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"run": describe_run(), "n_planted": N_PLANTED}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wrong, copies = plant(folder, np.random.default_rng(arguments.seed))
        for title, on in (("1.1 in int8", published()), ("imagenette", "imagenette")):
            results[title] = judge(folder, on, wrong, copies)
            print(title, results[title], flush=True)
    write_results("check", results)


if __name__ == "__main__":
    main()
