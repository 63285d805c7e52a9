"""Compile the C engine for systems that are not here, with every warning an error; nothing is run.

python tools/cross_build.py [TARGET...]      needs `pip install ziglang`; targets are Zig's, as aarch64-macos
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGETS = ("aarch64-macos", "x86_64-macos")
FLAGS = ("-O1", "-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared")


def main() -> None:
    sources = [str(path) for path in sorted((ROOT / "csrc").glob("*.c"))]
    for target in sys.argv[1:] or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "squeezenet"
            command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, "-o", str(library), *sources]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{target}: {done.stderr}")
            print(f"{target}: {library.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
