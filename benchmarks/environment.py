"""What a benchmark ran on, so that its numbers can be read later, and where its results go."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
PACKAGES = (
    "numpy",
    "Pillow",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "playwright",
    "scikit-learn",
    "ray",
    "pyarrow",
)


def describe_run() -> dict[str, Any]:
    """Command, commit, date, versions and hardware."""
    return {
        # Folders of this machine mean nothing elsewhere: of a path, the name is kept.
        "command": " ".join(["python", _script(), *(Path(word).name or word for word in sys.argv[1:])]),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "hardware": f"{_cpu()}, {len(os.sched_getaffinity(0))} cores",
    }


def write_results(name: str, results: dict[str, Any]) -> None:
    """Write results/NAME.json; `make docs` fills the pages from it."""
    (ROOT / f"results/{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_part(name: str, part: str, measured: dict[str, Any]) -> None:
    """Put one part, with how it was run, into results/NAME.json, where the other parts stay as they are; print it."""
    path = ROOT / f"results/{name}.json"
    others = json.loads(path.read_text()) if path.exists() else {}
    write_results(name, others | {part: {"run": describe_run(), **measured}})
    print(json.dumps(measured, indent=1))


def _script() -> str:
    path = Path(sys.argv[0]).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    flags = fields.get("flags\t\t", "").split()
    wanted = [flag for flag in ("avx2", "avx512_vnni", "avx512_bf16", "amx_int8") if flag in flags]
    return f"{fields.get('model name	', 'unknown').strip()} ({', '.join(wanted)})"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
