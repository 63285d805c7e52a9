"""One photo from a cold start: `squeezenet predict FILE.sqz photo.jpg` as a whole process, against PyTorch.

Both start a fresh interpreter, load a network, decode and resize the photo with Pillow and print the five best classes.
PyTorch reads float weights from safetensors and imports nothing else; a first run of both has filled the disk caches
and compiled what was not compiled at installation.
Also times what remains when Python is there already: reading, checking, decoding and packing the file.

    python benchmarks/cold.py MODEL.sqz WEIGHTS.safetensors ../shared/data/imagenet-500.zip
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import ROOT, describe_run

from squeezenet.data import open_data
from squeezenet.engine import NativeEngine
from squeezenet.fileformat import read_sqz

# What a user of PyTorch writes, with no import that it does not need.
TORCH_PROGRAM = """
import sys
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu_()
        return torch.cat([self.expand1x1(x).relu_(), self.expand3x3(x).relu_()], 1)


def pool():
    return nn.MaxPool2d(3, 2, ceil_mode=True)


with torch.device("meta"):  # no time is spent on weights that are replaced
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(True), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192),
        Fire(384, 64, 256), Fire(512, 64, 256),
    )
    classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1))
    model = nn.ModuleDict({"features": features, "classifier": classifier}).eval()
model.load_state_dict({key: value.float() for key, value in load_file(sys.argv[1]).items()}, assign=True)
image = Image.open(sys.argv[2]).convert("RGB")
scale = 256 / min(image.size)
image = image.resize([int(side * scale) for side in image.size], Image.Resampling.BILINEAR)
left, top = [(side - 224) // 2 for side in image.size]
pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
x = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
with torch.inference_mode():
    x = torch.from_numpy(x.astype(np.float32).transpose(2, 0, 1)[None])
    best = model["classifier"](model["features"](x)).flatten().softmax(0).topk(5)
for value, index in zip(*best):
    print(f"{100 * value.item():5.1f} %  {index.item()}")
"""


def run_once(command: list[str]) -> tuple[float, int]:
    """Wall seconds and peak resident bytes of a process."""
    start = time.perf_counter()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"expected {command[:3]} to succeed, got exit code {process.returncode}")
    return wall, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def load_times(path: str, count: int) -> list[float]:
    """Milliseconds from a path to an engine that is ready: read, check, decode, pack; one thread."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        NativeEngine(read_sqz(path).network, threads=1)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a .sqz file")
    parser.add_argument("weights", help="float weights of SqueezeNet 1.1, .safetensors")
    parser.add_argument("data", help="photos, of which one is taken")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "cold.json")
    options = parser.parse_args()
    images = open_data([options.data], unlabelled=True)
    with tempfile.TemporaryDirectory() as folder:
        photo, program = Path(folder) / "photo.jpg", Path(folder) / "program.py"
        photo.write_bytes(images.read(0))
        program.write_text(TORCH_PROGRAM)
        commands = {
            "squeezenet": [str(Path(sys.executable).with_name("squeezenet")), "predict", options.model, str(photo)],
            "torch": [sys.executable, str(program), options.weights, str(photo)],
        }
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for command in commands.values():
            run_once(command)
        for _ in range(options.rounds):
            for name, command in commands.items():
                runs[name].append(run_once(command))
    load_times(options.model, 2)
    loads = load_times(options.model, 21)
    result = {
        name: {
            "wall_s": round(statistics.median(wall for wall, _ in values), 3),
            "slowest_s": round(max(wall for wall, _ in values), 3),
            "peak_rss_bytes": max(peak for _, peak in values),
        }
        for name, values in runs.items()
    }
    report = {
        "run": describe_run(),
        "file_bytes": Path(options.model).stat().st_size,
        "n_runs": options.rounds,
        "results": result,
        "speedup": round(result["torch"]["wall_s"] / result["squeezenet"]["wall_s"], 2),
        "load_ms": round(statistics.median(loads), 2),
    }
    print(json.dumps(report, indent=1))
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
