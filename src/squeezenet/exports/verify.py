"""The proof that a file computes the same everywhere: one set of images through every engine there is here.

From the bytes of a `.sqz` file and of image files, logits are computed by torch (its own integer forward), NumPy, each
kernel set of the native engine, the exported page in Node and in Chromium, and the exported C. The page decodes PNG and
resizes by itself; C gets pixels.

Use this when you doubt an engine, a build or a machine.
"""

from __future__ import annotations

import io
import itertools
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data import ImageSet
from ..engine import NativeEngine, ReferenceEngine, native_kernels
from ..errors import DataError, ImageError
from ..fileformat import SqzFile, decode_sqz
from ..preprocess import load_image
from .browser import classify_in_page, missing_browser, open_browser, open_page
from .c_source import build_c_source
from .web_page import PARTS, build_page

__all__ = ["Agreement", "EngineResult", "compare_all", "run_all"]

_BATCH = 16
_C_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
C_DRIVER = """\
#include <stdio.h>
#include "model.h"
static unsigned char arena[MODEL_ARENA_BYTES], pixels[MODEL_INPUT_SIZE * MODEL_INPUT_SIZE * 3];
static double logits[MODEL_CLASSES];
int main(void) {
    if (model_open(arena, sizeof arena)) return 1;
    while (fread(pixels, sizeof pixels, 1, stdin) == 1) {
        if (model_run(arena, pixels, logits, NULL)) return 2;
        if (fwrite(logits, sizeof logits, 1, stdout) != 1) return 3;
    }
    return 0;
}
"""


@dataclass(frozen=True)
class EngineResult:
    """Logits of all images from one engine, or why there are none."""

    name: str
    logits: NDArray[np.float64] | None
    """(N, classes)"""
    skipped: str = ""


@dataclass(frozen=True)
class Agreement:
    """Two engines compared."""

    first: str
    second: str
    top1_equal: int
    """Images to which both give the same class."""
    n_images: int
    largest_difference: float
    """Of any logit; 0 means the same bits."""


@dataclass(frozen=True)
class _Case:
    """What every engine gets."""

    data: bytes
    contents: SqzFile
    photos: list[Image.Image]
    pixels: NDArray[np.uint8]
    folder: Path


def run_all(data: bytes, images: ImageSet) -> list[EngineResult]:
    """Classify images with every engine.

    Args:
        data: A whole `.sqz` file.
        images: All of them are decoded and held; take a subset of a large set. Unreadable ones are left out.

    Returns:
        A result for each engine, also for those that cannot run here.

    Raises:
        FormatError: If the file is damaged.
        DataError: If no image can be read.
    """
    contents = decode_sqz(data)
    photos = []
    for index in range(len(images)):
        try:
            photos.append(load_image(images.read(index)))
        except ImageError:
            continue
    if not photos:
        raise DataError(f"{images.name}: expected at least one readable image, got none")
    pixels = np.stack([contents.preprocessing_or_default(photo) for photo in photos])
    engines: dict[str, Callable[[_Case], NDArray[np.float64] | str]] = {"torch": _run_torch, "numpy": _run_numpy}
    engines |= {f"native {kernels}": _native(kernels) for kernels in native_kernels()}
    engines |= {"web in Node": _run_node, "web in Chromium": _run_chromium, "C": _run_c}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        case = _Case(data, contents, photos, pixels, Path(folder))
        for name, run in engines.items():
            answer = run(case)
            skipped = answer if isinstance(answer, str) else ""
            results.append(EngineResult(name, None if isinstance(answer, str) else answer, skipped))
    if not native_kernels():
        results.append(EngineResult("native", None, "needs the native engine: install a C compiler and reinstall"))
    return results


def compare_all(results: list[EngineResult]) -> list[Agreement]:
    """Compare every pair of engines that ran."""
    agreements = []
    for one, other in itertools.combinations(results, 2):
        if one.logits is not None and other.logits is not None:
            equal = int((one.logits.argmax(1) == other.logits.argmax(1)).sum())
            largest = float(np.abs(one.logits - other.logits).max())
            agreements.append(Agreement(one.name, other.name, equal, len(one.logits), largest))
    return agreements


def _run_torch(case: _Case) -> NDArray[np.float64] | str:
    if find_spec("torch") is None:
        return "needs torch"
    from ..models.integer import integer_logits

    return _in_batches(case, lambda pixels: integer_logits(case.contents.network, pixels))


def _run_numpy(case: _Case) -> NDArray[np.float64]:
    return _in_batches(case, ReferenceEngine(case.contents.network).logits)


def _native(kernels: str) -> Callable[[_Case], NDArray[np.float64]]:
    return lambda case: _in_batches(case, NativeEngine(case.contents.network, kernels=kernels).logits)


def _in_batches(case: _Case, logits: Callable[[NDArray[np.uint8]], NDArray[np.float64]]) -> NDArray[np.float64]:
    starts = range(0, len(case.pixels), _BATCH)
    return np.concatenate([logits(case.pixels[start : start + _BATCH]) for start in starts])


def _run_node(case: _Case) -> NDArray[np.float64] | str:
    if shutil.which("node") is None:
        return "needs node"
    file = case.folder / "model.sqz"
    file.write_bytes(case.data)
    how = case.contents.preprocessing_or_default
    settings = (how.resize_size, int(how.resize_mode == "squash"), int(how.resample == "bicubic"))
    rows = b"".join(struct.pack("<II", *photo.size) + photo.convert("RGBA").tobytes() for photo in case.photos)
    return _run_program(case, ["node", str(PARTS / "run_node.mjs"), str(PARTS / "engine.wasm"), str(file),
                               *map(str, settings)], rows)  # fmt: skip


def _run_chromium(case: _Case) -> NDArray[np.float64] | str:
    if missing := missing_browser():
        return missing
    file = case.folder / "page.html"
    file.write_bytes(build_page(case.data, case.contents)[0])
    with open_browser() as browser:
        page = open_page(browser, file)
        return np.stack([classify_in_page(page, _png(photo)).logits for photo in case.photos])


def _run_c(case: _Case) -> NDArray[np.float64] | str:
    if not native_kernels():
        return "needs the native engine"
    if shutil.which("gcc") is None:
        return "needs gcc"
    source = build_c_source(case.data, "model", case.contents)
    for name, text in (("model.c", source.source), ("model.h", source.header), ("main.c", C_DRIVER)):
        (case.folder / name).write_text(text)
    subprocess.run(["gcc", *_C_FLAGS, "main.c", "model.c", "-o", "model"], cwd=case.folder, check=True)
    return _run_program(case, [str(case.folder / "model")], case.pixels.tobytes())


def _run_program(case: _Case, command: list[str], data: bytes) -> NDArray[np.float64]:
    output = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(output).reshape(len(case.photos), case.contents.network.spec.num_classes)


def _png(photo: Image.Image) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
