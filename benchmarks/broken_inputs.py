"""Give `train`, `evaluate` and `predict` every kind of broken or odd input, and look for tracebacks.

Each command runs as a process of its own, as a user's would. Writes results/broken_inputs.json.

    python benchmarks/broken_inputs.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, describe_run
from kills import RECIPE, write_images
from PIL import Image

TIMEOUT_S = 120


def photo(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save_truncated(path: Path) -> None:
    photo(size=(200, 200)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-3000])


def save_animated(path: Path) -> None:
    photo().save(path, "GIF", save_all=True, append_images=[photo().rotate(90)])


# Name of the file, how it is made, and whether it is an image that must count.
INPUTS: dict[str, tuple[str | bytes, Callable[[Path], Any], bool]] = {
    "corrupt (text)": ("text.jpg", lambda path: path.write_text("no image"), False),
    "corrupt (truncated)": ("cut.jpg", save_truncated, False),
    "empty": ("empty.png", lambda path: path.touch(), False),
    "CMYK": ("cmyk.jpg", lambda path: photo("CMYK").save(path, "JPEG"), True),
    "16 bits": ("deep.png", lambda path: Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(path), True),
    "grey": ("grey.jpg", lambda path: photo("L").save(path, "JPEG"), True),
    "animated": ("moving.gif", save_animated, True),
    "1x1": ("dot.png", lambda path: photo(size=(1, 1)).save(path), True),
    "30,000 pixels wide": ("wide.png", lambda path: photo(size=(30_000, 20)).save(path), True),
    "wrong extension": ("png.jpg", lambda path: photo().save(path, "PNG"), True),
    "FIFO": ("fifo.png", os.mkfifo, False),
    "symlink loop": ("loop.png", lambda path: path.symlink_to(path.name), False),
    "folder loop": ("inner", lambda path: path.symlink_to(path.parent), False),
    "name that is not UTF-8": (b"caf\xe9.png", lambda path: photo().save(os.fsencode(path).decode("latin-1")), True),
    "no permission": ("secret.png", lambda path: (photo().save(path), path.chmod(0)), True),
}


def make(kind: str, folder: Path) -> Path:
    name, write, _ = INPUTS[kind]
    path = folder / os.fsdecode(name)
    if isinstance(name, bytes):
        photo().save(folder / "good-name.png")
        (folder / "good-name.png").rename(path)
    else:
        write(path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "squeezenet", *map(str, arguments)], capture_output=True, timeout=TIMEOUT_S,
        text=True, errors="backslashreplace", env=environment, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def judge(done: subprocess.CompletedProcess[str], name: str, *, is_good: bool) -> dict[str, Any]:
    """A good image must pass in silence; another must be named, or be the one line of an error."""
    said = done.stdout + done.stderr
    return {
        "exit_code": done.returncode,
        "traceback": "Traceback" in said,
        "named": name in said,
        "ok": "Traceback" not in said and (done.returncode == 0 if is_good else name in said),
    }


def shown(path: Path) -> str:
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")


def deleted_in_mid_epoch(folder: Path) -> dict[str, Any]:
    """Delete a file once the first checkpoint is there, while the images are streamed."""
    write_images(folder / "data")
    (folder / "slow.toml").write_text(RECIPE.replace("epochs = 3", "epochs = 60"))
    code = (
        "import sys, torch; torch.set_num_threads(1); from squeezenet.training import train_model;"
        "train_model(sys.argv[1], run_dir=sys.argv[2], recipe=sys.argv[3], cache_bytes=0, checkpoint_every_s=0)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder / "data", folder / "run", folder / "slow.toml"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    while process.poll() is None and not (folder / "run/checkpoint.pt").exists():
        time.sleep(0.05)
    victim = folder / "data/dark/05.png"
    victim.unlink()
    _, said = process.communicate(timeout=300)
    return judge(subprocess.CompletedProcess([], process.returncode, "", said), victim.name, is_good=False) | {
        "finished": process.returncode == 0
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/broken_inputs.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "clean")
        (folder / "tiny.toml").write_text(RECIPE.replace("epochs = 3", "epochs = 1"))
        run_dir = folder / "model"
        made = run("train", folder / "clean", "--recipe", folder / "tiny.toml", "-o", run_dir)
        assert made.returncode == 0, made.stderr
        for kind, (_, _, is_good) in INPUTS.items():
            data = folder / f"set{len(results)}"
            write_images(data)
            path = make(kind, data / "dark")
            rows = {}
            trained = run("train", data, "--recipe", folder / "tiny.toml", "-o", folder / f"run{len(results)}")
            rows["train"] = judge(trained, shown(path), is_good=is_good)
            rows["train"]["ok"] &= trained.returncode == 0
            rows["evaluate"] = judge(run("evaluate", run_dir, data), shown(path), is_good=True)
            rows["predict"] = judge(run("predict", run_dir, path), shown(path), is_good=is_good)
            if kind == "folder loop":  # as an argument it is a folder of images like any other
                rows["predict"]["ok"] = not rows["predict"]["traceback"]
            results[kind] = rows
            print(kind, {verb: row["ok"] for verb, row in rows.items()}, flush=True)
        results["deleted in mid-epoch"] = {"train": deleted_in_mid_epoch(folder / "deleted")}
        print("deleted in mid-epoch", results["deleted in mid-epoch"])
    rows = [row for kind in results.values() for row in kind.values()]
    summary = {
        "commands": len(rows),
        "tracebacks": sum(row["traceback"] for row in rows),
        "ok": sum(bool(row["ok"]) for row in rows),
    }
    arguments.output.write_text(json.dumps({"run": describe_run(), **summary, "kinds": results}, indent=1) + "\n")
    print(json.dumps(summary))
    if summary["ok"] != summary["commands"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
