"""Count the photos on which any engine differs from the NumPy engine in a single bit of a logit.

The engine as installed runs every kernel set of this processor with 1 to 4 threads on all photos. What this processor
cannot run is built and run on the first few: ARM under qemu, WebAssembly in Node, AVX-VNNI in its 256-bit AVX-512
encoding, and the portable build. Activation maps are compared on those as well.

    python benchmarks/equality.py ../shared/data/imagenet-500.zip MODEL.sqz...
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, describe_run

from squeezenet import Classifier
from squeezenet.data import decode_batches, open_data
from squeezenet.engine import NativeEngine, ReferenceEngine, native_kernels
from squeezenet.exports.browser import find_node
from squeezenet.exports.web_page import PARTS
from squeezenet.network import IntegerNetwork

sys.path.insert(0, str(ROOT / "tests"))
from networks import random_network, random_pixels, random_spec  # noqa: E402

DRIVER = ROOT / "tests" / "native" / "run_model.c"
SOURCES = [str(path) for path in (DRIVER, *sorted((ROOT / "csrc").glob("*.c")))]
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-pthread"]
# Name -> how to build it, how to start it, its kernel sets.
BUILDS: dict[str, tuple[list[str], list[str], tuple[str, ...]]] = {
    "arm64 (qemu)": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"], ("neon_dotprod", "neon", "scalar")),
    "x86-64": (["gcc", "-DSQZ_AVXVNNI_AS_AVX512VL"], [], ("avxvnni",)),
    "portable": (["gcc", "-DSQZ_PORTABLE_ONLY", "-DSQZ_NO_THREADS"], [], ("scalar",)),
}
THREADS = (1, 2, 3, 4)


def count_different(first: np.ndarray, second: np.ndarray) -> int:
    """Rows that differ in a bit."""
    return int((first.view(np.uint64) != second.view(np.uint64)).reshape(len(first), -1).any(axis=1).sum())


def compare_installed(network: IntegerNetwork, pixels: np.ndarray, expected: np.ndarray) -> dict[str, int]:
    different = {}
    for kernels in native_kernels():
        for threads in THREADS:
            logits = NativeEngine(network, threads=threads, kernels=kernels).logits(pixels)
            different[f"{kernels}, {threads} threads"] = count_different(logits, expected)
    return different


def compare_ports(model: Path, reference: ReferenceEngine, pixels: np.ndarray, folder: Path) -> dict[str, int | None]:
    """Photos that differ in logits or activation maps; None where a compiler or emulator is missing."""
    images = folder / "pixels.raw"
    images.write_bytes(pixels.tobytes())
    logits, maps = reference.logits(pixels), reference.activation_map(pixels)
    different: dict[str, int | None] = {}

    def compare(name: str, *command: object) -> None:
        data = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True).stdout
        values = np.frombuffer(data)
        different[name] = max(
            count_different(values[: logits.size].reshape(logits.shape), logits),
            count_different(values[logits.size :].reshape(maps.shape), maps),
        )

    for build, ((compiler, *flags), start, sets) in BUILDS.items():
        if not all(map(shutil.which, (compiler, *start))):
            different[build] = None
            continue
        program = folder / build.split()[0]
        subprocess.run([compiler, *FLAGS, *flags, *SOURCES, "-o", program], check=True)
        for kernels in sets:
            threads = 1 if build == "portable" else 2
            compare(f"{build}, {kernels}", *start, program, model, images, kernels, threads)
    for kernels in ("plain", "pairs"):
        node = find_node(relaxed=kernels != "plain")
        if isinstance(node, str):
            different[f"WebAssembly (Node), {kernels}"] = None
        else:
            compare(f"WebAssembly (Node), {kernels}", *node, DRIVER.with_suffix(".mjs"), PARTS, kernels, model, images)
    return different


def compare_random(count: int) -> dict[str, int]:
    """Random networks, of any sizes, strides, paddings, pools, bypasses and zero-points, that differ."""
    different = dict.fromkeys(native_kernels(), 0)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        spec = random_spec(rng)
        network = random_network(spec, seed=seed, max_weight=int(rng.choice([1, 15, 31, 63, 64, 100, 127])))
        pixels = random_pixels(spec, 1 + seed % 3, seed=seed)
        reference = ReferenceEngine(network)
        logits, maps = reference.logits(pixels), reference.activation_map(pixels)
        for kernels in different:
            engine = NativeEngine(network, threads=1 + seed % 4, kernels=kernels)
            is_equal = not count_different(engine.logits(pixels), logits)
            different[kernels] += not (is_equal and not count_different(engine.activation_map(pixels), maps))
    return different


def compare_model(path: Path, data: str, n_ports: int) -> dict[str, Any]:
    classifier = Classifier(path)
    network, reference = classifier.contents.network, ReferenceEngine(classifier.contents.network)
    batches = decode_batches(open_data([data], unlabelled=True), classifier.preprocessing, batch_size=50)
    pixels = np.concatenate([batch.pixels for batch in batches])
    expected = np.concatenate([reference.logits(pixels[i : i + 8]) for i in range(0, len(pixels), 8)])
    with tempfile.TemporaryDirectory() as folder:
        ports = compare_ports(path, reference, pixels[:n_ports], Path(folder))
    return {
        "net": f"{network.spec.name}@{network.spec.input_size}",
        "file_bytes": path.stat().st_size,
        "n_images": len(pixels),
        "n_different": compare_installed(network, pixels, expected),
        "n_images_ports": min(n_ports, len(pixels)),
        "n_different_ports": ports,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="photos")
    parser.add_argument("models", nargs="+", type=Path, help=".sqz files")
    parser.add_argument("--ports", type=int, default=4, help="photos for what must be emulated")
    parser.add_argument("--networks", type=int, default=1000, help="random networks")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "equality.json")
    options = parser.parse_args()
    results = [compare_model(path, options.data, options.ports) for path in options.models]
    random = {"n_networks": options.networks, "n_different": compare_random(options.networks)}
    report = {"run": describe_run(), "results": results, "random_networks": random}
    print(json.dumps(report, indent=1))
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    counts = [
        count for result in results for key in ("n_different", "n_different_ports") for count in result[key].values()
    ]
    if any(counts) or any(random["n_different"].values()):
        raise SystemExit("expected no photo and no network to differ")


if __name__ == "__main__":
    main()
