"""Measure the exported page and the other exports on real weights and photos, and write results/web.json.

Needs ../shared, Chromium, Node, gcc, and for ARM qemu-user and a cross compiler. Without --page-model the smallest
accepted 1.0 is compressed first (some five minutes), without --v11 the 1.1 in int8.

    python benchmarks/web.py agreement [--page-model FILE.sqz] [--v11 FILE.sqz]
    python benchmarks/web.py timing    [--page-model FILE.sqz] [--v11 FILE.sqz]     # with nothing else running
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, describe_run

V11 = SHARED / "weights/squeezenet1_1-imagenet-fp16.safetensors"
V10 = SHARED / "weights/compressed_SqueezeNet.net"
IMAGENET = SHARED / "data/imagenet-500.zip"
CIFAR = SHARED / "data/cifar10-val.zip"
PAGE_MODEL_BYTES = 315_000
N_PAGE_PHOTOS = 100
N_LOADS = 9
_C_FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")


def squeezenet(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "squeezenet", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def spread(count: int) -> Any:
    """As many photos, evenly over the classes."""
    from squeezenet.data import open_data

    images = open_data(str(IMAGENET))
    return images.subset(index * len(images) // count for index in range(count))


# --- agreement ---


def measure_page(model: Path, page: Path) -> dict[str, Any]:
    """Bytes, and logits of photos in Chromium against Python's, as PNG and as the JPEG they are."""
    from squeezenet import Classifier, export
    from squeezenet.exports.browser import classify_in_page, open_browser
    from squeezenet.preprocess import load_image

    sizes = export(model, page).details
    classifier, images = Classifier(model), spread(N_PAGE_PHOTOS)
    facts: dict[str, Any] = {
        "page_bytes": sizes.page_bytes,
        "runtime_bytes": sizes.runtime_bytes,
        "label_bytes": sizes.label_bytes,
        "model_file_bytes": model.stat().st_size,
        "classes": classifier.spec.num_classes,
        "n_photos": len(images),
    }
    counts = dict.fromkeys(("png_bit_identical", "jpeg_bit_identical", "jpeg_top1_equal"), 0)
    requests: list[str] = []
    with open_browser() as browser:
        tab = browser.new_context().new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.resolve().as_uri())
        tab.evaluate("squeezenet.ready")
        for index in range(len(images)):
            jpeg, stream = images.read(index), io.BytesIO()
            load_image(jpeg).save(stream, "PNG", compress_level=1)
            expected = classifier.logits(classifier.preprocessing(jpeg)[None])[0]
            counts["png_bit_identical"] += np.array_equal(classify_in_page(tab, stream.getvalue()).logits, expected)
            logits = classify_in_page(tab, jpeg).logits
            counts["jpeg_bit_identical"] += np.array_equal(logits, expected)
            counts["jpeg_top1_equal"] += int(logits.argmax() == expected.argmax())
    network = [url for url in requests if not url.startswith(("file:", "blob:", "data:"))]
    return facts | {name: int(count) for name, count in counts.items()} | {"network_requests": len(network)}


def measure_onnx(model: Path, folder: Path) -> dict[str, Any]:
    """Floats against torch and int8 against the engine, on all photos."""
    import onnxruntime
    import torch

    from squeezenet import Classifier, export
    from squeezenet.data import decode_batches
    from squeezenet.models import load_model, normalize_pixels

    warnings = list(export(model, folder / "float.onnx").warnings)
    export(model, folder / "int8.onnx", precision="int8")
    sessions = [onnxruntime.InferenceSession(folder / f"{name}.onnx") for name in ("float", "int8")]
    classifier, network = Classifier(model), load_model(model).eval()
    facts: dict[str, Any] = {
        "n_photos": 0, "float_largest_relative_difference": 0.0, "int8_largest_difference": 0.0, "int8_top1_equal": 0,
        "warnings": warnings,
        "float_bytes": (folder / "float.onnx").stat().st_size, "int8_bytes": (folder / "int8.onnx").stat().st_size,
    }  # fmt: skip
    for batch in decode_batches(spread(500), classifier.preprocessing, batch_size=20):
        images = normalize_pixels(batch.pixels, classifier.preprocessing).contiguous()
        with torch.inference_mode():
            floats = network(images).numpy()
        by_runtime, int8 = (session.run(None, {"input": images.numpy()})[0] for session in sessions)
        integers = classifier.logits(batch.pixels)
        relative = np.abs(by_runtime - floats).max(1) / np.abs(floats).max(1)
        facts["n_photos"] += len(images)
        for key, value in (
            ("float_largest_relative_difference", relative),
            ("int8_largest_difference", int8 - integers),
        ):
            facts[key] = max(facts[key], float(np.abs(value).max()))
        facts["int8_top1_equal"] += int((int8.argmax(1) == integers.argmax(1)).sum())
    return facts


def measure_c(model: Path, folder: Path, pixels: np.ndarray) -> dict[str, Any]:
    """The exported C here and on ARM under qemu, against the engine."""
    from squeezenet import export, read_sqz
    from squeezenet.engine import NativeEngine
    from squeezenet.exports.verify import C_DRIVER

    written = export(model, folder / "model.c").details
    (folder / "main.c").write_text(C_DRIVER)
    engine = NativeEngine(read_sqz(model).network)
    parts = engine.logits(pixels), engine.features(pixels).astype(np.int32)
    expected = b"".join(part.tobytes() for image in zip(*parts, strict=True) for part in image)
    facts: dict[str, Any] = {"arena_bytes": written.arena_bytes, "model_bytes": written.model_bytes, "n": len(pixels)}
    builds = {"native": (["gcc"], []), "arm_qemu": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"])}
    for name, (compiler, runner) in builds.items():
        program = folder / name
        subprocess.run([*compiler, *_C_FLAGS, "main.c", "model.c", "-o", program], cwd=folder, check=True)
        start = time.perf_counter()
        output = subprocess.run([*runner, program], input=pixels.tobytes(), stdout=subprocess.PIPE, check=True).stdout
        facts[name] = {"bit_identical": output == expected, "seconds": round(time.perf_counter() - start, 2)}
    return facts


def cifar_model(path: Path) -> np.ndarray:
    """A CIFAR-sized 1.1 in int8, untrained, calibrated on CIFAR photos; returns photos to run it on."""
    import torch

    from squeezenet import SqzFile, create_model, write_sqz
    from squeezenet.data import decode_batches, open_data
    from squeezenet.preprocess import Preprocessing
    from squeezenet.quantization.int8 import compress_int8

    torch.manual_seed(0)
    model = create_model("squeezenet1_1", num_classes=10, input_size=32).eval()
    model.preprocessing = Preprocessing(crop_size=32, resize_size=32)
    images = open_data(str(CIFAR)).subset(range(0, 5000, 100))
    (batch,) = decode_batches(images, model.preprocessing, batch_size=len(images))
    write_sqz(path, SqzFile(network=compress_int8(model, [batch.pixels]), preprocessing=model.preprocessing))
    return batch.pixels[:20]


def imagenet_pixels(model: Path, count: int) -> np.ndarray:
    from squeezenet import Classifier

    how, images = Classifier(model).preprocessing, spread(count)
    return np.stack([how(images.read(index)) for index in range(count)])


def agreement(models: dict[str, Path], folder: Path) -> dict[str, Any]:
    cifar = cifar_model(folder / "cifar.sqz")
    return {
        "page": measure_page(models["page"], folder / "page.html"),
        "page_1_1_int8": measure_page(models["v11"], folder / "page11.html"),
        "onnx_1_1": measure_onnx(models["v11"], folder),
        "onnx_1_0": measure_onnx(models["page"], folder),
        "c_1_1_at_224": measure_c(models["v11"], folder, imagenet_pixels(models["v11"], 3)),
        "c_cifar": measure_c(folder / "cifar.sqz", folder, cifar),
    }


# --- timing ---


def time_loading(model: Path, folder: Path) -> dict[str, Any]:
    """Milliseconds from the start of navigation to the first paint and to a model that is ready."""
    from squeezenet import export
    from squeezenet.exports.browser import open_browser

    page = folder / "page.html"
    export(model, page)
    paints, readies = [], []
    with open_browser() as browser:
        for _ in range(N_LOADS):
            tab = browser.new_context().new_page()
            tab.goto(page.resolve().as_uri())
            tab.evaluate("squeezenet.ready")
            tab.wait_for_timeout(300)
            paints.append(tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            readies.append(tab.evaluate("performance.getEntriesByName('ready')[0].startTime"))
            tab.context.close()
    return {
        "n_loads": N_LOADS,
        "first_paint_ms": float(np.median(paints)), "first_paint_worst_ms": float(max(paints)),
        "ready_ms": float(np.median(readies)), "ready_worst_ms": float(max(readies)),
    }  # fmt: skip


def time_images(model: Path, folder: Path) -> dict[str, Any]:
    """Milliseconds an image of 1.1 at 224: Chromium, the engine and PyTorch in turns."""
    import torch

    from squeezenet import Classifier, export
    from squeezenet.exports.browser import classify_in_page, open_browser, open_page
    from squeezenet.models import load_model, normalize_pixels

    page = folder / "page11.html"
    export(model, page)
    images = spread(10)
    photos = [images.read(index) for index in range(10)]
    classifier, network = Classifier(model, threads=1), load_model(V11).eval()
    pixels = np.stack([classifier.preprocessing(photo) for photo in photos])
    batch = normalize_pixels(pixels, classifier.preprocessing).contiguous()

    def torch_ms(threads: int) -> list[float]:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return timed(lambda index: network(batch[index : index + 1]), len(batch))

    cores = torch.get_num_threads()
    times: dict[str, list[float]] = {}
    with open_browser() as browser:
        tab = open_page(browser, page)
        for _ in range(3):
            for name, take in (
                (
                    "chromium",
                    lambda: [ms for photo in photos for ms in classify_in_page(tab, photo, runs=5).ms["runs"]],
                ),
                ("chromium_with_map", lambda: [classify_in_page(tab, photo, map=True).ms["run"] for photo in photos]),
                ("native_one_thread", lambda: timed(lambda index: classifier.logits(pixels[index : index + 1]), 10)),
                ("torch_eager_one_thread", lambda: torch_ms(1)),
                (f"torch_eager_{cores}_threads", lambda: torch_ms(cores)),
            ):
                values = take()
                times.setdefault(name, [])
                times[name] += values
    middle = len(photos)  # the first round warms up
    return {f"{name}_ms": round(float(np.median(values[middle:])), 2) for name, values in times.items()}


def timed(run: Callable[[int], object], count: int) -> list[float]:
    times = []
    for index in range(count):
        start = time.perf_counter()
        run(index)
        times.append(1000 * (time.perf_counter() - start))
    return times


def timing(models: dict[str, Path], folder: Path) -> dict[str, Any]:
    return {"loading": time_loading(models["page"], folder), "image_1_1_at_224": time_images(models["v11"], folder)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["agreement", "timing"])
    parser.add_argument("--page-model", type=Path, help="the smallest accepted ImageNet network")
    parser.add_argument("--v11", type=Path, help="1.1 in int8")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results/web.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"page": arguments.page_model, "v11": arguments.v11}
        if models["page"] is None:
            models["page"] = folder / "v10.sqz"
            squeezenet(
                "compress", V10, "--calibration", IMAGENET, "--max-bytes", PAGE_MODEL_BYTES, "-o", models["page"]
            )
        if models["v11"] is None:
            models["v11"] = folder / "v11.sqz"
            squeezenet("compress", V11, "--preset", "int8", "--calibration", IMAGENET, "-o", models["v11"])
        measured = {"agreement": agreement, "timing": timing}[arguments.part](models, folder)
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    results[arguments.part] = {"run": describe_run(), **measured}
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
