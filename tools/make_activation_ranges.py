"""Measure the activation ranges of published weights on photos, for networks that are compressed without any.

    python tools/make_activation_ranges.py

Reads the weights and imagenet-500.zip in ../shared, and writes src/squeezenet/quantization/published_ranges.toml. The
range of a tensor is a percentile over the photos of a photo's largest value (and of its smallest): wider ranges cost
precision, narrower ones clip (dev/LOG.md). Printed is what int8 does with ranges of one half of the photos, judged on
the other half; the file has those of all photos. A minute on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from squeezenet.data import decode_batches, open_data
from squeezenet.engine.native import NativeEngine
from squeezenet.evaluation.metrics import kl_divergence
from squeezenet.evaluation.predictor import FloatPredictor
from squeezenet.models import SqueezeNet, load_model
from squeezenet.quantization.int8 import quantize_with_ranges
from squeezenet.quantization.published_ranges import RANGES_FILE, weights_fingerprint
from squeezenet.quantization.quantize import activation_ranges, required_preprocessing

SHARED = Path(__file__).parents[2] / "shared"
PHOTOS = "imagenet-500.zip"
NETWORKS = {
    "squeezenet1_1": ("squeezenet1_1-imagenet-fp16.safetensors", "torchvision's SqueezeNet 1.1, ImageNet"),
    "compressed_SqueezeNet": ("compressed_SqueezeNet.net", "the authors' compressed SqueezeNet 1.0, ImageNet"),
}
PERCENTILE = 90

Ranges = dict[str, tuple[float, float]]


def photo_ranges(model: SqueezeNet, pixels: NDArray[np.uint8]) -> list[Ranges]:
    return [activation_ranges(model, [pixels[index : index + 1]]) for index in range(len(pixels))]


def summarise(photos: list[Ranges]) -> Ranges:
    """Percentiles over photos, with four significant digits."""

    def percentile(name: str, end: int, percent: float) -> float:
        return float(f"{np.percentile([photo[name][end] for photo in photos], percent):.4g}")

    names = [name for name in photos[0] if name != "input"]
    return {name: (percentile(name, 0, 100 - PERCENTILE), percentile(name, 1, PERCENTILE)) for name in names}


def section(name: str, title: str, model: SqueezeNet, photos: list[Ranges]) -> str:
    lines = [
        f"[{name}]",
        f'weights = "{title}"',
        f'fingerprint = "{weights_fingerprint(model)}"',
        f'photos = "{len(photos)} of ImageNet\'s training set, one for every second class"',
        f'preprocessing = "{required_preprocessing(model)}"',
        f'statistic = "percentile {PERCENTILE} over photos of the largest value, {100 - PERCENTILE} of the smallest"',
        "",
        f"[{name}.ranges]",
        *(f'"{tensor}" = [{low}, {high}]' for tensor, (low, high) in summarise(photos).items()),
    ]
    return "\n".join(lines) + "\n"


def judge(model: SqueezeNet, pixels: NDArray[np.uint8], labels: NDArray[np.int64], photos: list[Ranges]) -> None:
    """Show KL(float || int8) and correct answers on the half that gave no ranges, for either half."""
    expected = FloatPredictor(model).logits(pixels)
    for measured, judged in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        actual = NativeEngine(quantize_with_ranges(model, summarise(photos[measured]))).logits(pixels[judged])
        kl = kl_divergence(expected[judged], actual)
        correct = [int((logits.argmax(1) == labels[judged]).sum()) for logits in (expected[judged], actual)]
        print(f"{len(actual)} photos: KL {kl:.4f}, top-1 {correct[1]} (float {correct[0]})", flush=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    sections = []
    for name, (file, title) in NETWORKS.items():
        model = load_model(SHARED / "weights" / file).eval()
        images = open_data([SHARED / "data" / PHOTOS], split="val")
        images = images.relabel(model.labels.match(images.classes), model.labels.names)
        pixels = np.concatenate([batch.pixels for batch in decode_batches(images, required_preprocessing(model))])
        photos = photo_ranges(model, pixels)
        print(name)
        judge(model, pixels, np.array(images.labels), photos)
        sections.append(section(name, title, model, photos))
    RANGES_FILE.write_text("# Made by tools/make_activation_ranges.py.\n\n" + "\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
