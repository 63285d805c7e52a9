"""Count what networks take on emulated microcontrollers, and whether a photo differs from the NumPy engine in a bit.

Every network is exported as C, compiled for every core of `squeezenet verify --chips`, and run bare metal in QEMU,
which counts instructions. Memory is what the linker placed and what the program touched: `ram_bytes` is all data of the
program, the logits and the feature vector included, and comes on top of the stack.

    python benchmarks/chips.py ../shared/data/imagenet-500.zip MODEL.sqz...

Rows of results/chips.json that are not measured again stay as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, describe_run, write_results

from squeezenet.accounting import network_cost
from squeezenet.data import decode_batches, open_data
from squeezenet.engine import ReferenceEngine
from squeezenet.exports.c_source import WEIGHTS, CSource, build_c_source
from squeezenet.exports.chips import CHIPS, Chip, compile_for_chip, missing_for, run_on_chip
from squeezenet.exports.export import read_compressed

KEYS = ("net", "classes", "file_bytes", "weights", "chip", "optimize")


def tool_version(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]


def code_bytes(chip: Chip, folder: Path) -> int:
    """Bytes of the engine's functions."""
    nm = [chip.compiler.replace("gcc", "nm"), "-S", "--defined-only", "model.o"]
    lines = subprocess.run(nm, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()
    sizes = [line.split() for line in lines]
    return sum(int(words[1], 16) for words in sizes if len(words) == 4 and words[2] in "tT")


def measure(chip: Chip, source: CSource, pixels: np.ndarray, expected: np.ndarray, optimize: str) -> dict[str, Any]:
    """What the program of one network takes on one core."""
    with tempfile.TemporaryDirectory() as folder:
        compile_for_chip(chip, source, Path(folder), optimize=optimize)
        done = run_on_chip(chip, pixels, Path(folder))
        code = code_bytes(chip, Path(folder))
    return {
        "chip": chip.name,
        "optimize": optimize,
        "n_images": len(pixels),
        "n_different": int((done.logits.view(np.uint64) != expected.view(np.uint64)).any(axis=1).sum()),
        "open_instructions": done.open_instructions,
        "run_instructions": done.run_instructions,
        "arena_bytes": source.memory.arena_bytes,
        "arena_touched_bytes": done.arena_touched_bytes,
        "stack_bytes": done.stack_bytes,
        "ram_bytes": done.ram_bytes,
        "flash_bytes": done.flash_bytes,
        "code_bytes": code,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("models", nargs="+", help=".sqz files, or names of networks of the package")
    parser.add_argument("--limit", type=int, default=20, help="photos")
    parser.add_argument("--chips", nargs="+", default=list(CHIPS), choices=list(CHIPS), help="cores")
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS, help="forms")
    parser.add_argument("--levels", nargs="+", default=["-O2"], help="of the compiler")
    options = parser.parse_args()
    chips = [CHIPS[name] for name in options.chips if not missing_for(CHIPS[name])]
    tools = {tool: tool_version(tool) for chip in chips for tool in (chip.compiler, chip.emulator)}
    file = ROOT / "results" / "chips.json"
    old = json.loads(file.read_text()) if file.exists() else {"runs": [], "tools": {}, "results": []}
    rows = {tuple(row[key] for key in KEYS): row for row in old["results"]}
    runs = [*old["runs"], describe_run()]
    for model in options.models:
        data, contents = read_compressed(model)
        images = open_data([options.photos], unlabelled=True).sample(options.limit)
        batches = decode_batches(images, contents.preprocessing_or_default, batch_size=50)
        pixels = np.concatenate([batch.pixels for batch in batches])
        expected = ReferenceEngine(contents.network).logits(pixels)
        spec = contents.network.spec
        net = {"net": f"{spec.name}@{spec.input_size}", "classes": spec.num_classes, "file_bytes": len(data)}
        for weights in options.weights:
            source = build_c_source(data, "model", contents, weights=weights)
            for chip in chips:
                for level in options.levels:
                    row = {**net, "weights": weights, **measure(chip, source, pixels, expected, level)}
                    row["instructions_per_mac"] = round(row["run_instructions"] / network_cost(spec).macs, 3)
                    rows[tuple(row[key] for key in KEYS)] = row
                    print(json.dumps(row), flush=True)
                    results = {"runs": runs, "tools": {**old["tools"], **tools}, "results": list(rows.values())}
                    write_results("chips", results)
    if any(row["n_different"] for row in rows.values()):
        raise SystemExit("expected no photo to differ on any core")


if __name__ == "__main__":
    main()
