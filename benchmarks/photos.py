"""Photos a second from JPEG files to labels: `squeezenet` against a PyTorch DataLoader with eager inference.

Makes a folder of 500x375 JPEGs out of DATA, then takes turns. Both sides decode with Pillow and use all cores; PyTorch
runs the float network channels-last in batches, its workers preprocess. Processor time is given beside wall time, since
on a busy machine only the former can be compared.

    python benchmarks/photos.py MODEL.sqz ../shared/data/imagenet-500.zip
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import ROOT, describe_run
from PIL import Image

from squeezenet import Classifier, Preprocessing
from squeezenet.data import open_data
from squeezenet.evaluation.predictor import predict_batches
from squeezenet.models import SqueezeNet, normalize_pixels

BATCH = 32
SIZE = (500, 375)


def write_photos(data: str, folder: Path) -> int:
    images = open_data([data], unlabelled=True)
    for index in range(len(images)):
        photo = Image.open(io.BytesIO(images.read(index))).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        photo.save(folder / f"{index:04}.jpg", quality=90)
    return len(images)


def run_squeezenet(classifier: Classifier, folder: Path) -> int:
    images = open_data([folder], unlabelled=True)
    return sum(
        len(outputs.logits.argmax(axis=1)) for _, outputs in predict_batches(classifier, images, batch_size=BATCH)
    )


class Photos:
    """A torch data set, as a user would write it."""

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.array(self.preprocessing(self.paths[index]))  # writable, as torch wants it


def run_torch(model: SqueezeNet, preprocessing: Preprocessing, folder: Path) -> int:
    import torch

    loader = torch.utils.data.DataLoader(
        Photos(folder, preprocessing), batch_size=BATCH, num_workers=os.cpu_count() or 1
    )
    count = 0
    with torch.inference_mode():
        for pixels in loader:
            x = normalize_pixels(pixels.numpy(), preprocessing).to(memory_format=torch.channels_last)
            count += len(model(x).argmax(dim=1))
    return count


def timed(run: Callable[[], int]) -> tuple[float, float]:
    """Wall and processor seconds, those of ended child processes included."""
    before, start = os.times(), time.perf_counter()
    run()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a .sqz file")
    parser.add_argument("data", help="photos to make the folder of")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "photos.json")
    options = parser.parse_args()
    classifier = Classifier(options.model)
    spec, preprocessing = classifier.spec, classifier.preprocessing
    import torch

    model = SqueezeNet(spec).eval().to(memory_format=torch.channels_last)
    times: dict[str, list[tuple[float, float]]] = {"squeezenet": [], "torch": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = write_photos(options.data, folder)
        for _ in range(options.rounds):
            times["squeezenet"].append(timed(lambda: run_squeezenet(classifier, folder)))
            times["torch"].append(timed(lambda: run_torch(model, preprocessing, folder)))
    result = {
        name: {
            "photos_per_s": round(count / statistics.median(wall for wall, _ in values), 1),
            "cpu_ms_per_photo": round(1e3 * statistics.median(cpu for _, cpu in values) / count, 3),
        }
        for name, values in times.items()
    }
    report = {
        "run": describe_run(),
        "net": f"{spec.name}@{spec.input_size}",
        "n_images": count,
        "photo_size": list(SIZE),
        "results": result,
        "speedup": round(result["squeezenet"]["photos_per_s"] / result["torch"]["photos_per_s"], 3),
    }
    print(json.dumps(report, indent=1))
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
