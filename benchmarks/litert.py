"""Measure how near exported TFLite models come to the engines in LiteRT, and write results/litert.json.

    python benchmarks/litert.py

Needs ../shared. The networks are 1.1 in int8 on 500 photos of ImageNet, and the bundled ones on photos of their kind.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from environment import SHARED, describe_run, write_results

from squeezenet import Classifier, Int8, compress, export, open_data, read_sqz
from squeezenet.data import decode_batches

DATA = SHARED / "data"
WEIGHTS = SHARED / "weights/squeezenet1_1-imagenet-fp16.safetensors"
N_PHOTOS = 500
KERNELS = {"XNNPACK": OpResolverType.AUTO, "TFLite's own": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}


def litert_logits(model: bytes, pixels: np.ndarray, kernels: OpResolverType) -> tuple[np.ndarray, float]:
    """Logits of all photos, and the milliseconds of the fastest."""
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (image,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    found, times_s = [], []
    for one in pixels:
        interpreter.set_tensor(image["index"], one[None])
        start_s = time.perf_counter()
        interpreter.invoke()
        times_s.append(time.perf_counter() - start_s)
        found.append(interpreter.get_tensor(logits["index"])[0].copy())
    return np.array(found), 1000 * min(times_s)


def measure(folder: Path, name: str, model: object, photos: Path, head_photos: Path) -> list[dict[str, object]]:
    classifier = Classifier(model)
    images = open_data(photos, split="val", unlabelled=True).sample(N_PHOTOS)
    pixels = np.concatenate([batch.pixels for batch in decode_batches(images, classifier.preprocessing)])
    expected = np.concatenate([classifier.logits(part) for part in np.array_split(pixels, 20)])
    rows = []
    for head, options in (("float", {}), ("int8", {"photos": head_photos})):
        export(model, folder / "net.tflite", **options)
        data = (folder / "net.tflite").read_bytes()
        for kernels, resolver in KERNELS.items():
            actual, ms = litert_logits(data, pixels, resolver)
            row = {
                "network": name, "head": head, "kernels": kernels, "n_photos": len(pixels),
                "file_bytes": len(data), "ms": round(ms, 2),
                "same_class": int((actual.argmax(1) == expected.argmax(1)).sum()),
                "largest_difference": float(np.abs(actual - expected).max()),
                "largest_logit": float(np.abs(expected).max()),
            }  # fmt: skip
            print(row)
            rows.append(row)
    return rows


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compress(str(WEIGHTS), method=Int8()).write(folder / "1_1.sqz")
        rows = measure(folder, "1.1", read_sqz(folder / "1_1.sqz"), DATA / "imagenet-500.zip", DATA / "photos-2400.zip")
        for bundled, data in (("imagenette", "imagenette"), ("cifar10", "cifar10")):
            photos = DATA / f"{data}-val.zip"
            rows += measure(folder, bundled, bundled, photos, photos)
    write_results("litert", {"run": describe_run(), "results": rows})


if __name__ == "__main__":
    main()
