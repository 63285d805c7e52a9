"""Measure the main path on real photos: imported weights, int8, fine-tuning, Deep Compression, the NumPy engine.

Needs the data and weights in ../shared; takes about three quarters of an hour on two cores. Writes
results/foundation.json, from which the README's table is made.

    python benchmarks/foundation.py [--run RUN/] [--deep FILE.sqz] [--labelled FILE.sqz]
    python benchmarks/foundation.py --only-demo

The second form measures the demo again, three runs after installation, on a machine that does nothing else; it keeps
all other figures. The options of the first take what earlier commands made, in place of training and of compressing
with labels. The network is that of the last epoch: the best one was chosen on the photos that judge.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run

V11 = SHARED / "weights/squeezenet1_1-imagenet-fp16.safetensors"
V10 = SHARED / "weights/compressed_SqueezeNet.net"
IMAGENET = SHARED / "data/imagenet-500.zip"
RATE_DISTORTION_BYTES = 110_000
TRAIN, VAL = SHARED / "data/imagenette-train.zip", SHARED / "data/imagenette-val.zip"
LABELLED = ("--data", TRAIN, "--epochs", 15, "--max-bytes", RATE_DISTORTION_BYTES)
DEEP_COMPRESSION = ("--preset", "deep-compression", "--data", TRAIN)


def squeezenet(*arguments: object) -> str:
    """Run the command line in a process of its own; progress goes to the terminal."""
    command = [sys.executable, "-m", "squeezenet", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def evaluate(model: object, data: object) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(squeezenet("evaluate", model, data, "--json"))
    keys = ("top1", "top5", "top1_correct", "top5_correct", "n_images", "top1_interval")
    return {key: facts[key] for key in keys}


def measure_numpy_engine(path: Path) -> dict[str, float]:
    """Milliseconds per image in batches of 8, and seconds to decode the file in plain Python."""
    from squeezenet.codec.weights import decode_convs, encode_convs
    from squeezenet.engine import ReferenceEngine
    from squeezenet.fileformat import read_sqz

    network = read_sqz(path).network
    spec = network.spec
    streams = encode_convs(spec.convs, network.convs)
    start = time.process_time()  # one thread, so on an idle machine the same as seconds
    decode_convs(spec.convs, streams)
    decode_s = time.process_time() - start
    engine = ReferenceEngine(network)
    pixels = np.random.default_rng(0).integers(0, 256, (8, spec.input_size, spec.input_size, 3)).astype(np.uint8)
    engine.logits(pixels)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        engine.logits(pixels)
        times.append((time.perf_counter() - start) / 8 * 1000)
    return {"ms_per_image": float(np.median(times)), "decode_python_s": decode_s}


def is_torch_equal(path: Path, n_images: int = 50) -> bool:
    """Whether torch's integer forward gives the engine's bits on photos."""
    from squeezenet import Classifier
    from squeezenet.data import decode_batches, open_data
    from squeezenet.models.integer import integer_logits

    classifier = Classifier(path, engine="reference")
    images = open_data(str(IMAGENET)).subset(range(n_images))
    batches = decode_batches(images, classifier.preprocessing, batch_size=10)
    network = classifier.contents.network
    return all(
        np.array_equal(integer_logits(network, batch.pixels), classifier.logits(batch.pixels)) for batch in batches
    )


def measure_demo_and_help(folder: Path) -> dict[str, Any]:
    """Seconds of the installed commands, each the median of several runs, and what they ran on."""
    seconds = {}
    for key, runs, arguments in (("demo_s", 3, ("demo", "-o", folder / "demo")), ("help_s", 5, ("--help",))):
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            squeezenet(*arguments)
            times.append(time.perf_counter() - start)
        seconds[key] = float(np.median(times))
    return {**seconds, "demo_run": describe_run()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, metavar="RUN/", help="use this fine-tuned run")
    parser.add_argument("--deep", type=Path, metavar="FILE.sqz", help="use this file, which the preset made of RUN/")
    parser.add_argument("--labelled", type=Path, metavar="FILE.sqz", help="use this file, made of RUN/ with labels")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/foundation.json")
    parser.add_argument("--only-demo", action="store_true", help="renew the times of demo and --help in the output")
    arguments = parser.parse_args()
    if arguments.only_demo:
        known: dict[str, Any] = json.loads(arguments.output.read_text())
        with tempfile.TemporaryDirectory() as name:
            save(known | measure_demo_and_help(Path(name)), arguments.output)
        return
    results: dict[str, Any] = {"run": describe_run()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results["float_1_1"] = evaluate(V11, IMAGENET)
        results["float_1_0"] = evaluate(V10, IMAGENET)
        file = folder / "v11.sqz"
        squeezenet("compress", V11, "--preset", "int8", "--calibration", IMAGENET, "-o", file)
        results["int8_1_1"] = evaluate(file, IMAGENET) | {
            "file_bytes": file.stat().st_size,
            "is_torch_equal": is_torch_equal(file),
            **measure_numpy_engine(file),
        }
        run = arguments.run
        if run is None:
            run = folder / "run"
            start = time.perf_counter()
            squeezenet("train", TRAIN, "--val", VAL, "--init", V11, "-o", run)
            results["finetune_s"] = time.perf_counter() - start
        else:
            results["finetune_s"] = json.loads((run / "run.json").read_text())["seconds"]
        tuned = run / "last.safetensors"
        results["finetune"] = evaluate(tuned, VAL)
        save(results, arguments.output)
        results["rate_distortion"] = compress(
            tuned, folder / "rd.sqz", "--calibration", TRAIN, "--max-bytes", RATE_DISTORTION_BYTES
        )
        save(results, arguments.output)
        results |= measure_demo_and_help(folder)
        save(results, arguments.output)
        for key, made, options in (
            ("deep_compression", arguments.deep, DEEP_COMPRESSION),
            ("rate_distortion_labelled", arguments.labelled, LABELLED),
        ):
            results[key] = judge(made) if made else compress(tuned, folder / f"{key}.sqz", *options)
            save(results, arguments.output)
    print(json.dumps(results, indent=1))


def compress(tuned: Path, file: Path, *options: object) -> dict[str, Any]:
    """Compress the fine-tuned network, and judge the file on the validation photos."""
    squeezenet("compress", tuned, "-o", file, *options)
    return judge(file)


def judge(file: Path) -> dict[str, Any]:
    """Accuracy of a compressed file on the validation photos, and the figures of its report."""
    report = json.loads(Path(f"{file}.report.json").read_text())
    facts = evaluate(file, VAL) | {"file_bytes": file.stat().st_size}
    facts |= {key: report[key] for key in ("seconds", "fp32_bytes", "density", "fidelity")}
    if "deep_compression" in report:
        facts["storage"] = {key: value for key, value in report["deep_compression"].items() if key != "layers"}
    return facts


def save(results: dict[str, Any], path: Path) -> None:
    """Write what has been measured so far."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
