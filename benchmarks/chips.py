"""Count what networks take on emulated microcontrollers, and whether a photo differs from the NumPy engine in a bit.

Every network is exported as C, compiled for every core of `squeezenet verify --chips`, and run bare metal in QEMU,
which counts instructions. Memory is what the linker placed and what the program touched.

    python benchmarks/chips.py ../shared/data/imagenet-500.zip MODEL.sqz...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import describe_run, write_results

from squeezenet import SqzFile
from squeezenet.accounting import network_cost
from squeezenet.data import decode_batches, open_data
from squeezenet.engine import ReferenceEngine
from squeezenet.exports import build_c_source
from squeezenet.exports.chips import CHIPS, Chip, compile_for_chip, missing_for, run_on_chip
from squeezenet.exports.export import read_compressed


def tool_version(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]


def measure(chip: Chip, data: bytes, contents: SqzFile, pixels: np.ndarray, optimize: str) -> dict[str, Any]:
    """What the program of one network takes on one core."""
    source = build_c_source(data, "model", contents)
    expected = ReferenceEngine(contents.network).logits(pixels)
    with tempfile.TemporaryDirectory() as folder:
        compile_for_chip(chip, source, Path(folder), optimize=optimize)
        done = run_on_chip(chip, pixels, Path(folder))
    macs = network_cost(contents.network.spec).macs
    return {
        "chip": chip.name,
        "optimize": optimize,
        "n_images": len(pixels),
        "n_different": int((done.logits.view(np.uint64) != expected.view(np.uint64)).any(axis=1).sum()),
        "open_instructions": done.open_instructions,
        "run_instructions": done.run_instructions,
        "instructions_per_mac": round(done.run_instructions / macs, 3),
        "stack_bytes": done.stack_bytes,
        "arena_bytes": source.arena_bytes,
        "arena_touched_bytes": done.arena_touched_bytes,
        "ram_bytes": done.ram_bytes,
        "flash_bytes": done.flash_bytes,
    }


def measure_model(model: str, photos: str, limit: int, chips: list[Chip], levels: list[str]) -> list[dict[str, Any]]:
    data, contents = read_compressed(model)
    images = open_data([photos], unlabelled=True).sample(limit)
    batches = decode_batches(images, contents.preprocessing_or_default, batch_size=50)
    pixels = np.concatenate([batch.pixels for batch in batches])
    spec = contents.network.spec
    rows = []
    for chip in chips:
        for level in levels:
            rows.append({
                "net": f"{spec.name}@{spec.input_size}", "classes": spec.num_classes, "file_bytes": len(data),
                **measure(chip, data, contents, pixels, level),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photos")
    parser.add_argument("models", nargs="+", help=".sqz files, or names of networks of the package")
    parser.add_argument("--limit", type=int, default=20, help="photos")
    parser.add_argument("--levels", nargs="*", default=["-O2", "-Os"], help="of the compiler")
    options = parser.parse_args()
    chips = [chip for chip in CHIPS.values() if not missing_for(chip)]
    rows = []
    for model in options.models:
        rows += measure_model(model, options.photos, options.limit, chips, options.levels)
    tools = {tool for chip in chips for tool in (chip.compiler, chip.emulator)}
    versions = {tool: tool_version(tool) for tool in sorted(tools)}
    write_results("chips", {"run": describe_run(), "tools": versions, "results": rows})
    if any(row["n_different"] for row in rows):
        raise SystemExit("expected no photo to differ on any core")


if __name__ == "__main__":
    main()
