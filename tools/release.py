"""Build sdist and wheel, install each in an environment of its own, use it, and name what to tag.

    python tools/release.py [-o FOLDER]

Nothing is uploaded. The wheel is for this platform; `.github/workflows/wheels.yml` builds the others.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEEL_BYTES = 1_000_000
# Run in an environment that has nothing but the package and what it asks for.
USE = """
import importlib.util, io
from PIL import Image
import squeezenet
from squeezenet.engine import native_kernels

assert importlib.util.find_spec("torch") is None, "the base install brings torch"
assert native_kernels(), "the C engine was not built"
photo = io.BytesIO()
Image.new("RGB", (300, 200), (90, 140, 60)).save(photo, "PNG")
(answer,) = squeezenet.predict("imagenette", photo.getvalue())
assert len(answer.predictions) == 5, answer
for weights in ("flash", "ram"):
    squeezenet.export("cifar10", "net.c", weights=weights)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="where the files go; a temporary folder if not given")
    folder = parser.parse_args().output or Path(tempfile.mkdtemp(prefix="squeezenet-"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    heading = re.search(r"^## \[(\S+)\] - (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading, "CHANGELOG.md has no version"
    if heading[1] != version:
        sys.exit(f"expected {version} of pyproject.toml at the top of CHANGELOG.md, got {heading[1]}")

    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob(f"*{version}*.whl"), folder.glob(f"*{version}.tar.gz")
    if wheel.stat().st_size > WHEEL_BYTES:
        sys.exit(f"{wheel.name}: expected at most {WHEEL_BYTES:,} bytes, got {wheel.stat().st_size:,}")
    for package in (wheel, sdist):
        check(package)
        print(f"{package}: {package.stat().st_size:,} bytes; installs and predicts without torch")
    if heading[2] == "unreleased":
        print(f"before tagging: put the date in place of 'unreleased' in CHANGELOG.md, then `git tag v{version}`")
    else:
        print(f"next: git tag v{version} && git push origin v{version}")


def check(package: Path) -> None:
    """Install a package where nothing else is, and use it away from the checkout."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        scripts = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin")
        run(scripts / "python", "-m", "pip", "install", "--quiet", package)
        run(scripts / "python", "-c", USE, cwd=folder)
        run(scripts / "squeezenet", "--version", cwd=folder)


def run(*command: object, cwd: str | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command[:4]))} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
