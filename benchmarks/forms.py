"""Compile random networks as C in each form of weights, ten to a program, and compare their logits with NumPy's.

Writes results/forms.json. Images come from memory and row by row; the self-test in each file runs as well. A form that
is not asked for keeps its result where that is of as many networks.

    python benchmarks/forms.py --networks 200
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from environment import ROOT, describe_run, write_results

from squeezenet import SqzFile
from squeezenet.engine import ReferenceEngine
from squeezenet.exports import build_c_source
from squeezenet.fileformat import encode_sqz
from squeezenet.memory import WEIGHTS, Weights

sys.path.insert(0, str(ROOT / "tests"))
from networks import random_network, random_pixels, random_spec

PER_PROGRAM = 10
FLAGS = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror")
CLASSIFY = """
static int row_@(void *image, int row, uint8_t *rgb) {
    memcpy(rgb, (unsigned char *)image + row * @_INPUT_SIZE * 3, @_INPUT_SIZE * 3);
    return 0;
}
static int classify_@(void) {
    static unsigned char arena[@_ARENA_BYTES], pixels[@_INPUT_SIZE * @_INPUT_SIZE * 3];
    static double logits[@_CLASSES], again[@_CLASSES];
    if (@_open(arena, sizeof arena) || @_selftest(arena, logits)) return 1;
    if (fread(pixels, sizeof pixels, 1, stdin) != 1 || @_run(arena, pixels, logits, NULL)) return 2;
    if (@_run_rows(arena, row_@, pixels, again, NULL, NULL) || memcmp(again, logits, sizeof again)) return 3;
    return fwrite(logits, sizeof logits, 1, stdout) != 1;
}
"""


def count_different(seeds: range, weights: Weights) -> int:
    """Networks of one program whose logits are not those of the NumPy engine."""
    expected, inputs = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["#include <stdio.h>", "#include <string.h>"]
        for seed in seeds:
            prefix, spec = f"N{seed}", random_spec(np.random.default_rng(seed))
            network, pixels = random_network(spec, seed=seed), random_pixels(spec, 1, seed=seed)
            source = build_c_source(encode_sqz(SqzFile(network=network)), prefix, weights=weights)
            (folder / f"{prefix}.c").write_text(source.source)
            (folder / f"{prefix}.h").write_text(source.header)
            lines += [f'#include "{prefix}.c"', CLASSIFY.replace("@", prefix)]
            inputs.append(pixels.tobytes())
            expected.append(ReferenceEngine(network).logits(pixels))
        calls = " || ".join(f"classify_N{seed}()" for seed in seeds)
        (folder / "main.c").write_text("\n".join([*lines, f"int main(void) {{ return {calls}; }}\n"]))
        subprocess.run(["gcc", *FLAGS, "main.c", "-o", "program"], cwd=folder, check=True)
        output = subprocess.run([folder / "program"], input=b"".join(inputs), capture_output=True, check=True).stdout
    logits = np.split(np.frombuffer(output), np.cumsum([values.size for values in expected])[:-1])
    return sum(not np.array_equal(a, b.ravel()) for a, b in zip(logits, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS, help="forms")
    options = parser.parse_args()
    starts = range(1000, 1000 + options.networks, PER_PROGRAM)
    file = ROOT / "results" / "forms.json"
    old = json.loads(file.read_text()) if file.exists() else {}
    different = old["n_different"] if old.get("n_networks") == options.networks else {}
    for weights in options.weights:
        different[weights] = sum(count_different(range(start, start + PER_PROGRAM), weights) for start in starts)
    print(different)
    write_results("forms", {"run": describe_run(), "n_networks": options.networks, "n_different": different})
    if any(different.values()):
        raise SystemExit("expected no network to differ in any form")


if __name__ == "__main__":
    main()
