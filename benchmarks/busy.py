"""One photo on a busy machine: the 95th percentile on several threads against one, while every core computes already.

As many processes as cores multiply without pause, at the priority of everybody. Rounds of one thread and of several
alternate, so that other load falls on both alike; the figures are of all rounds together. `as_found` is without them.

    python benchmarks/busy.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np
from environment import ROOT, describe_run

from squeezenet import Classifier, named_spec
from squeezenet.accounting import network_cost
from squeezenet.engine import NativeEngine
from squeezenet.network import ConvParams, IntegerNetwork, TensorQuant, quantized_tensors
from squeezenet.process import usable_cores
from squeezenet.spec import ArchSpec

BUSY = "while True: sum(range(10**6))"
NAMED = ("cifar10", "imagenette", "squeezenet1_1")


def random_network(spec: ArchSpec) -> IntegerNetwork:
    """A network of that cost; what it computes does not matter."""
    rng = np.random.default_rng(0)
    convs = {}
    for op in spec.convs:
        weight = rng.integers(-20, 21, (op.out_channels, op.in_channels, op.kernel, op.kernel)).astype(np.int8)
        multiplier = np.full(op.out_channels, 2.0**-12, np.float32)
        convs[op.name] = ConvParams(weight, np.zeros(op.out_channels, np.int32), multiplier)
    return IntegerNetwork(spec, dict.fromkeys(quantized_tensors(spec), TensorQuant(1.0, 0)), convs)


def times(engine: NativeEngine, pixels: np.ndarray, seconds: float) -> list[float]:
    """Milliseconds of single photos."""
    taken, end = [], time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        engine.logits(pixels)
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def measure(network: IntegerNetwork, threads: int, rounds: int, seconds: float) -> dict[str, object]:
    size = network.spec.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    engines = {count: NativeEngine(network, threads=count) for count in (1, threads)}
    taken: dict[int, list[float]] = {count: [] for count in engines}
    for _ in range(rounds):
        for count, engine in engines.items():
            engine.logits(pixels)
            taken[count] += times(engine, pixels, seconds)
    figures = {
        str(count): {
            "n_runs": len(values),
            "median_ms": round(float(np.median(values)), 3),
            "p95_ms": round(float(np.percentile(values, 95)), 3),
            "mean_ms": round(float(np.mean(values)), 3),
        }
        for count, values in taken.items()
    }
    ratio = np.percentile(taken[threads], 95) / np.percentile(taken[1], 95)
    return {"macs": network_cost(network.spec).macs, "threads": figures, "p95_ratio": round(float(ratio), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round")
    arguments = parser.parse_args()
    results: dict[str, object] = {"run": describe_run(), "busy_processes": usable_cores()}
    networks = {
        name: random_network(named_spec(name)) if name.startswith("squeezenet") else Classifier(name).contents.network
        for name in NAMED
    }
    for state in ("as_found", "busy"):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(usable_cores()) if state == "busy"]
        try:
            results[state] = {
                name: measure(network, arguments.threads, arguments.rounds, arguments.seconds)
                for name, network in networks.items()
            }
        finally:
            for other in others:
                other.kill()
                other.wait()
    (ROOT / "results/busy.json").write_text(json.dumps(results, indent=1) + "\n")
    for state in ("as_found", "busy"):
        print(state, json.dumps(results[state]))


if __name__ == "__main__":
    main()
