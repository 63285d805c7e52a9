"""`squeezenet.verify`: a test that all engines compute the same logits and feature vectors.

The engines start from the bytes of a `.sqz` file and of image files. They are the integer network in torch, NumPy,
each kernel set of the native engine, the exported page in Node and in Chromium (which decode and resize the images),
and exported C, on request also on emulated microcontrollers.
"""

from __future__ import annotations

import functools
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

from ..data import ImageSet, open_data
from ..data.decode import Unreadable
from ..engine import NativeEngine, ReferenceEngine, native_kernels
from ..errors import DataError, ImageError
from ..evaluation.evaluate import Data
from ..evaluation.predictor import Model
from ..fileformat import SqzFile
from ..memory import WEIGHTS, Weights
from ..native_library import why_not_loaded
from ..preprocess import load_image
from ..text import html_table
from .browser import classify_in_page, find_node, missing_browser, open_browser, open_page
from .c_source import build_c_source
from .chips import CHIPS, Chip, compile_for_chip, missing_for, run_on_chip
from .export import read_compressed
from .web_page import PARTS, build_page

__all__ = ["C_DRIVER", "HEADER", "Agreement", "EngineResult", "Verification", "verify"]

_BATCH = 16
_N_DRAWN = 8
_C_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
HEADER = ("engine", "and", "same class", "largest logit difference", "of a feature")
"""Header of the table of `Verification.rows`."""
C_DRIVER = """\
#include <stdio.h>
#include "model.h"
static unsigned char arena[MODEL_ARENA_BYTES], pixels[MODEL_INPUT_SIZE * MODEL_INPUT_SIZE * 3];
static double logits[MODEL_CLASSES];
static int32_t features[MODEL_FEATURES];
int main(void) {
    if (model_open(arena, sizeof arena)) return 1;
    while (fread(pixels, sizeof pixels, 1, stdin) == 1) {
        if (model_features(arena, pixels, logits, features)) return 2;
        if (fwrite(logits, sizeof logits, 1, stdout) != 1) return 3;
        if (fwrite(features, sizeof features, 1, stdout) != 1) return 4;
    }
    return 0;
}
"""
# Logits (N, classes) and feature vectors (N, channels) of all images.
_Outputs = tuple[NDArray[np.float64], NDArray[np.integer]]


@dataclass(frozen=True)
class EngineResult:
    """Logits and feature vectors of all images from one engine, or the reason why it cannot run here."""

    name: str
    logits: NDArray[np.float64] | None
    """(N, classes)"""
    features: NDArray[np.integer] | None = None
    """(N, channels of the last Fire module)"""
    skipped: str = ""


@dataclass(frozen=True)
class Agreement:
    """Comparison of two engines."""

    first: str
    second: str
    top1_equal: int
    """Number of images for which both predict the same class."""
    n_images: int
    largest_difference: float
    """Largest difference of any logit; 0 means identical bits."""
    largest_feature_difference: int = 0
    """Largest difference of any number in the feature vectors."""


@dataclass(frozen=True)
class Verification:
    """The results of every engine, and a comparison of each pair."""

    images: str
    """Source of the images, or a note that they were drawn."""
    unreadable: tuple[Unreadable, ...]
    """Chosen images that could not be read; no engine classified them."""
    remarks: tuple[str, ...]
    """Files and folders that were ignored."""
    engines: tuple[EngineResult, ...]
    pairs: tuple[Agreement, ...]

    @property
    def is_identical(self) -> bool:
        """Whether all engines that ran computed identical bits."""
        return not any(pair.largest_difference or pair.largest_feature_difference for pair in self.pairs)

    @property
    def skipped(self) -> dict[str, str]:
        """For each engine that did not run, what it needs."""
        return {engine.name: engine.skipped for engine in self.engines if engine.skipped}

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: two engines, images of the same class, largest difference of logits, of features."""
        return [
            (
                pair.first,
                pair.second,
                f"{pair.top1_equal} of {pair.n_images}",
                f"{pair.largest_difference:.3g}" if pair.largest_difference else "0 (same bits)",
                str(pair.largest_feature_difference),
            )
            for pair in self.pairs
        ]

    def _repr_html_(self) -> str:
        return html_table(HEADER, self.rows())


def verify(model: Model, images: Data | None = None, *, limit: int = 32, chips: bool = False) -> Verification:
    """Run a compressed network in torch, NumPy, C, WebAssembly and the browser, and compare.

    Args:
        model: A `.sqz` file, the name of a network of the package, or the contents of a file.
        images: Images of any kind, labelled or not; by default eight drawn ones.
        limit: Largest number of images to use, evenly spaced.
        chips: Also run exported C on every core of `CHIPS`, emulated by QEMU.

    Returns:
        One result per engine, including those that cannot run here, and one comparison per pair of engines that ran.

    Raises:
        ModelNotFoundError: If there is no such file or name, or it is a float network.
        FormatError: If the file is damaged.
        DataError: If no image can be read.

    Example:
        >>> verify("cifar10", limit=1).is_identical
        True
    """
    if limit < 1:
        raise ValueError(f"expected `limit` of at least 1, got {limit}")
    data, contents = read_compressed(model)
    name, remarks, unreadable = "drawn pictures", list[str](), list[Unreadable]()
    if images is None:
        photos = _drawn(min(limit, _N_DRAWN))
    else:
        found = images if isinstance(images, ImageSet) else open_data(images, unlabelled=True)
        name, remarks = found.name, found.remarks()
        photos, unreadable = _decode(found.sample(limit))
    engines = _run_all(data, contents, photos, chips)
    return Verification(
        images=name, unreadable=tuple(unreadable), remarks=tuple(remarks), engines=tuple(engines),
        pairs=tuple(_compare_all(engines)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Case:
    """Input of every engine."""

    data: bytes
    contents: SqzFile
    photos: list[Image.Image]
    pixels: NDArray[np.uint8]
    folder: Path


def _decode(images: ImageSet) -> tuple[list[Image.Image], list[Unreadable]]:
    photos, unreadable = [], []
    for index, item in enumerate(images.items):
        try:
            photos.append(load_image(images.read(index)))
        except ImageError as error:
            unreadable.append(Unreadable(item.name, error.reason))
    if not photos:
        reason = f": {unreadable[0].name}: {unreadable[0].reason}" if unreadable else ""
        raise DataError(f"{images.name}: expected at least one readable image, got none{reason}")
    return photos, unreadable


def _drawn(count: int) -> list[Image.Image]:
    """Waves of every colour and some noise, in pictures of many sizes."""
    rng = np.random.default_rng(0)
    pictures = []
    for height, width in rng.integers(32, 400, (count, 2)).tolist():
        y, x = (places[..., None] for places in np.mgrid[:height, :width])
        waves = np.sin(y * rng.uniform(0, 0.2, 3) + x * rng.uniform(0, 0.2, 3) + rng.uniform(0, 6, 3))
        noise = rng.normal(0, rng.uniform(0, 60), (height, width, 3))
        pictures.append(Image.fromarray((128 + 100 * waves + noise).clip(0, 255).astype(np.uint8)))
    return pictures


def _run_all(data: bytes, contents: SqzFile, photos: list[Image.Image], chips: bool) -> list[EngineResult]:
    """Classify images with every engine."""
    pixels = np.stack([contents.preprocessing_or_default(photo) for photo in photos])
    engines: dict[str, Callable[[_Case], _Outputs | str]] = {"torch": _run_torch, "numpy": _run_numpy}
    engines |= {f"native {kernels}": _native(kernels) for kernels in native_kernels()}
    for kernels in ("plain", "relaxed"):
        engines[f"web in Node, {kernels}"] = functools.partial(_run_node, kernels=kernels)
    for kernels in ("plain", "relaxed"):
        engines[f"web in Chromium, {kernels}"] = functools.partial(_run_chromium, kernels=kernels)
    engines |= {f"C {weights}": _in_c(weights) for weights in WEIGHTS}
    for name, chip in CHIPS.items() if chips else ():
        engines |= {f"C on {name}": _on_chip(chip, "flash"), f"C coded on {name}": _on_chip(chip, "coded")}
    results = []
    with tempfile.TemporaryDirectory() as folder:
        case = _Case(data, contents, photos, pixels, Path(folder))
        for name, run in engines.items():
            answer = run(case)
            if isinstance(answer, str):
                results.append(EngineResult(name, None, skipped=answer))
            else:
                results.append(EngineResult(name, *answer))
    if not native_kernels():
        results.append(EngineResult("native", None, skipped=why_not_loaded()))
    return results


def _compare_all(results: list[EngineResult]) -> list[Agreement]:
    """Compare every pair of engines that ran."""
    agreements = []
    for one, other in itertools.combinations(results, 2):
        if one.logits is None or other.logits is None or one.features is None or other.features is None:
            continue
        equal = int((one.logits.argmax(1) == other.logits.argmax(1)).sum())
        largest = float(np.abs(one.logits - other.logits).max())
        of_features = int(np.abs(one.features - other.features).max())
        agreements.append(Agreement(one.name, other.name, equal, len(one.logits), largest, of_features))
    return agreements


def _run_torch(case: _Case) -> _Outputs | str:
    if find_spec("torch") is None:
        return "needs torch"
    from ..models.integer import integer_outputs

    return _in_batches(case, lambda pixels: integer_outputs(case.contents.network, pixels))


def _run_numpy(case: _Case) -> _Outputs:
    engine = ReferenceEngine(case.contents.network)
    return _in_batches(case, lambda pixels: (engine.logits(pixels), engine.features(pixels)))


def _native(kernels: str) -> Callable[[_Case], _Outputs]:
    def run(case: _Case) -> _Outputs:
        engine = NativeEngine(case.contents.network, kernels=kernels)
        return _in_batches(case, lambda pixels: (engine.logits(pixels), engine.features(pixels)))

    return run


def _in_batches(case: _Case, outputs: Callable[[NDArray[np.uint8]], _Outputs]) -> _Outputs:
    starts = range(0, len(case.pixels), _BATCH)
    logits, features = zip(*(outputs(case.pixels[start : start + _BATCH]) for start in starts), strict=True)
    return np.concatenate(logits), np.concatenate(features)


def _run_node(case: _Case, kernels: str) -> _Outputs | str:
    node = find_node(relaxed=kernels == "relaxed")
    if isinstance(node, str):
        return node
    file = case.folder / "model.sqz"
    file.write_bytes(case.data)
    how = case.contents.preprocessing_or_default
    settings = (how.resize_size, int(how.resize_mode == "squash"), int(how.resample == "bicubic"))
    rows = b"".join(struct.pack("<II", *photo.size) + photo.convert("RGBA").tobytes() for photo in case.photos)
    return _run_program(case, [*node, str(PARTS / "run_node.mjs"), kernels, str(file), *map(str, settings), "1"], rows)


def _run_chromium(case: _Case, kernels: str) -> _Outputs | str:
    if missing := missing_browser():
        return missing
    file = case.folder / "page.html"
    file.write_bytes(build_page(case.data, case.contents)[0])
    with open_browser() as browser:
        page = open_page(browser, file, kernels="plain" if kernels == "plain" else "")
        if kernels == "relaxed" and page.evaluate("squeezenet.kernels") == "plain":
            return "needs a Chromium with relaxed SIMD (114 or newer)"
        answers = [classify_in_page(page, _png(photo)) for photo in case.photos]
    return np.stack([answer.logits for answer in answers]), np.stack([answer.features for answer in answers])


def _in_c(weights: Weights) -> Callable[[_Case], _Outputs | str]:
    def run(case: _Case) -> _Outputs | str:
        if not native_kernels():
            return "needs the native engine"
        if shutil.which("gcc") is None:
            return "needs gcc"
        source = build_c_source(case.data, "model", case.contents, weights=weights)
        for name, text in (("model.c", source.source), ("model.h", source.header), ("main.c", C_DRIVER)):
            (case.folder / name).write_text(text)
        subprocess.run(["gcc", *_C_FLAGS, "main.c", "model.c", "-o", "model"], cwd=case.folder, check=True)
        return _run_program(case, [str(case.folder / "model")], case.pixels.tobytes())

    return run


def _on_chip(chip: Chip, weights: Weights) -> Callable[[_Case], _Outputs | str]:
    def run(case: _Case) -> _Outputs | str:
        if missing := missing_for(chip) or (None if native_kernels() else "needs the native engine"):
            return missing
        compile_for_chip(chip, build_c_source(case.data, "model", case.contents, weights=weights), case.folder)
        done = run_on_chip(chip, case.pixels, case.folder)
        return done.logits, done.features

    return run


def _run_program(case: _Case, command: list[str], data: bytes) -> _Outputs:
    output = subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout
    spec = case.contents.network.spec
    layout = np.dtype([("logits", np.float64, spec.num_classes), ("features", np.int32, spec.num_features)])
    rows = np.frombuffer(output, layout, len(case.photos))
    shape = (len(rows), -1)  # a field of one number is not an array
    return rows["logits"].reshape(shape), rows["features"].reshape(shape)


def _png(photo: Image.Image) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
