"""Compress the published networks in several ways and judge all of them on the same photos.

Writes results/compression.json. The photos are those of
../shared/data/imagenet-500.zip, sorted by name: those at even places calibrate the methods that look at photos, those
at odd places judge. KL is the mean KL(float || compressed) in nats; a file of this project is judged by its engine, the
other methods (which store weights alone) by a float network with their weights and float biases, so without the cost of
integer activations. `--polish` adds a polished file at the smallest budget. Takes a quarter of an hour, and the
polishing.

    python benchmarks/compression.py [--models 1.0 1.1] [--polish MINUTES] [--nncodec PYTHON]

PYTHON is an interpreter that has `nncodec` (2.1.3 pins an old NumPy, so it needs an environment of its own).
"""

from __future__ import annotations

import argparse
import copy
import lzma
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import SHARED, describe_run, write_results

from squeezenet.classifier import Classifier
from squeezenet.compression.rate_distortion import compress_rate_distortion
from squeezenet.data import decode_batches, open_data
from squeezenet.evaluation.metrics import kl_divergence, top_k_correct
from squeezenet.evaluation.predictor import FloatPredictor, match_classes
from squeezenet.fileformat import SqzFile, decode_sqz, encode_sqz
from squeezenet.models import SqueezeNet, load_model

WEIGHTS = {"1.0": "compressed_SqueezeNet.net", "1.1": "squeezenet1_1-imagenet-fp16.safetensors"}
BUDGETS = {"1.0": (270_000, 315_000, 350_000), "1.1": (330_000, 400_000, 460_000)}
QUANTIZERS = {"1.0": (-30, -28, -26, -24), "1.1": (-32, -30, -28, -26)}  # of NNCodec: `qp`
STEPS = (0.15, 0.25, 0.4, 0.6)  # of uniform rounding, in root mean squares of a row

NNCODEC = """
import contextlib, io, sys
import numpy as np, nncodec.nnc as nnc
layers = dict(np.load(sys.argv[1]))
with contextlib.redirect_stdout(io.StringIO()):
    data = nnc.compress(layers, sys.argv[2], qp=int(sys.argv[4]), use_dq=True, return_bitstream=True)
    back = nnc.decompress(data)
np.savez(sys.argv[3], size=len(data), **back)
"""

Weights = dict[str, np.ndarray]


class AccuracyComparer:
    """The photos that judge, and the float network's logits for them."""

    def __init__(self, model: SqueezeNet) -> None:
        images = match_classes(FloatPredictor(model), open_data([SHARED / "data" / "imagenet-500.zip"], split="train"))
        assert model.preprocessing is not None
        pixels, labels = [], []
        for batch in decode_batches(images, model.preprocessing):
            pixels.append(batch.pixels)
            labels.append(np.asarray(images.labels)[batch.indices])
        self.calibration = np.concatenate(pixels)[0::2]
        self._pixels, self._labels = np.concatenate(pixels)[1::2], np.concatenate(labels)[1::2]
        self._expected = FloatPredictor(model).logits(self._pixels)

    def __call__(self, logits_of: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        """Fidelity and accuracy on the judged photos."""
        logits = logits_of(self._pixels)
        return {
            "kl": round(kl_divergence(self._expected, logits), 4),
            "agreement": round(100 * float((logits.argmax(1) == self._expected.argmax(1)).mean()), 1),
            "top1": 100 * float(top_k_correct(logits, self._labels).mean()),
            "float_top1": 100 * float(top_k_correct(self._expected, self._labels).mean()),
            "n_images": len(logits),
        }


def with_weights(model: SqueezeNet, weights: Weights) -> FloatPredictor:
    changed = copy.deepcopy(model)
    for name, conv in changed.convs.items():
        conv.weight.data = torch.from_numpy(weights[name].astype(np.float32))
    return FloatPredictor(changed)


def uniform(weights: Weights, step: float) -> tuple[Weights, bytes]:
    """Round each row to a step that is a share of its root mean square; the integers as bytes, zigzag."""
    rounded, stream = {}, []
    for name, weight in weights.items():
        rms = np.sqrt((weight**2).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
        integers = np.clip(np.rint(weight / (step * rms)), -127, 127)
        rounded[name] = integers * step * rms
        stream.append(np.where(integers < 0, -2 * integers - 1, 2 * integers).astype(np.uint8).tobytes())
    return rounded, b"".join(stream)


def general_coders() -> dict[str, Callable[[bytes], int]]:
    coders: dict[str, Callable[[bytes], int]] = {
        "deflate": lambda data: len(zlib.compress(data, 9)),
        "xz": lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    try:
        import zstandard

        coders["zstd"] = lambda data: len(zstandard.ZstdCompressor(level=22).compress(data))
    except ImportError:
        pass
    try:
        import brotli

        coders["brotli"] = lambda data: len(brotli.compress(data, quality=11))
    except ImportError:
        pass
    return coders


def nncodec(python: str, weights: Weights, quantizer: int) -> tuple[Weights, int]:
    names = {f"layer{index:02d}.weight": name for index, name in enumerate(weights)}
    with tempfile.TemporaryDirectory() as folder:
        source, coded, back = (str(Path(folder) / name) for name in ("in.npz", "coded.nnc", "back.npz"))
        np.savez(source, **{key: weights[name].astype(np.float32) for key, name in names.items()})
        command = [python, "-W", "ignore", "-c", NNCODEC, source, coded, back, str(quantizer)]
        subprocess.run(command, capture_output=True, text=True, check=True)
        arrays = np.load(back)
        return {name: arrays[key] for key, name in names.items()}, int(arrays["size"])


def run(version: str, polish: float, nncodec_python: str | None) -> list[dict[str, Any]]:
    model = load_model(SHARED / "weights" / WEIGHTS[version]).eval()
    judge = AccuracyComparer(model)
    weights = {name: conv.weight.detach().numpy() for name, conv in model.convs.items()}
    n_biases = sum(len(weight) for weight in weights.values())
    rows: list[dict[str, Any]] = []

    def add(method: str, setting: str, file_bytes: int, judged: dict[str, Any], **more: Any) -> None:
        rows.append(
            {"model": version, "method": method, "setting": setting, "file_bytes": file_bytes, **judged, **more}
        )
        print(f"{version} {method:16} {setting:14} {file_bytes:9,} bytes  KL {judged['kl']:.4f}", flush=True)

    plan = [(budget, 0.0) for budget in BUDGETS[version]] + [(BUDGETS[version][0], polish)] * (polish > 0)
    for budget, minutes in plan:
        start = time.monotonic()
        found = compress_rate_distortion(model, judge.calibration, max_bytes=budget, polish_minutes=minutes)
        seconds = round(time.monotonic() - start)
        data = encode_sqz(SqzFile(network=found.network, labels=model.labels, preprocessing=model.preprocessing))
        add(
            "rate-distortion" + (", polished" if minutes else ""),
            f"{budget:,} bytes" + (f", {minutes:g} min" if minutes else ""),
            len(data),
            judge(Classifier(decode_sqz(data)).logits),
            held_out_kl=found.held_out_kl,
            seconds=seconds,
        )
    for step in STEPS:
        rounded, stream = uniform(weights, step)
        judged = judge(with_weights(model, rounded).logits)
        for coder, size in general_coders().items():
            # One float16 step per row and one per bias, as small as such a file could be.
            add(f"uniform + {coder}", f"{step:g} rms", size(stream) + 4 * n_biases, judged)
    if nncodec_python:
        for quantizer in QUANTIZERS[version]:
            decoded, size = nncodec(nncodec_python, weights, quantizer)
            add("NNCodec", f"qp {quantizer}, dq", size, judge(with_weights(model, decoded).logits))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(WEIGHTS), default=sorted(WEIGHTS))
    parser.add_argument("--polish", type=float, default=0.0, metavar="MINUTES")
    parser.add_argument("--nncodec", metavar="PYTHON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for version in options.models:
        rows += run(version, options.polish, options.nncodec)
        write_results("compression", {**describe_run(), "results": rows})


if __name__ == "__main__":
    main()
