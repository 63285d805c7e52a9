"""Processor time and memory of the costliest inputs that the limits of docs/format.md allow.

Each row runs in a process of its own: what it needs is made first, then the peak of memory is set back, then only the
call itself is measured. Writes results/limits.json.

    python benchmarks/limits.py [--only TEXT]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from environment import ROOT, describe_run, write_results

sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from PIL import Image  # noqa: E402

from networks import random_network, random_pixels, tiny_spec  # noqa: E402
from squeezenet import Classifier  # noqa: E402
from squeezenet.data.shards import open_shards  # noqa: E402
from squeezenet.fileformat import SqzFile, decode_sqz, encode_sqz  # noqa: E402
from squeezenet.labels import Labels  # noqa: E402
from squeezenet.preprocess import Preprocessing  # noqa: E402
from squeezenet.spec import ArchSpec, FireSpec, StemSpec  # noqa: E402
from sqz_bytes import with_meta  # noqa: E402

MAX_SECONDS, MAX_MB = 2.0, 512
Call = Callable[[], object]


def file_of(spec: ArchSpec, density: float) -> bytes:
    """A file of random weights; at density 0 each is 0."""
    labels = Labels(tuple(f"c{number}" for number in range(spec.num_classes)))
    network = random_network(spec, density=density)
    preprocessing = Preprocessing(crop_size=spec.input_size, resize_size=1024)
    return encode_sqz(SqzFile(network=network, labels=labels, preprocessing=preprocessing))


def most_weights() -> ArchSpec:
    """Just below 2^24 weights and biases."""
    fire = FireSpec(squeeze_channels=1024, expand1x1_channels=256, expand3x3_channels=1780)
    return tiny_spec(stem=StemSpec(channels=64, kernel=3, stride=2), fires=(fire,), pools=(), num_classes=10)


def most_elements() -> ArchSpec:
    """Just below 2^27 elements of all tensors."""
    fire = FireSpec(squeeze_channels=1, expand1x1_channels=1, expand3x3_channels=1)
    stem = StemSpec(channels=118, kernel=1, stride=1)
    return tiny_spec(stem=stem, fires=(fire,), pools=(), num_classes=1, input_size=1024)


def most_products() -> ArchSpec:
    """Just below 2^37 multiply-accumulates."""
    fire = FireSpec(squeeze_channels=512, expand1x1_channels=1, expand3x3_channels=512)
    stem = StemSpec(channels=64, kernel=1, stride=1)
    return tiny_spec(stem=stem, fires=(fire,) * 3, pools=(), num_classes=1, input_size=128)


def reading(spec: ArchSpec, density: float) -> Call:
    data = file_of(spec, density)
    return lambda: decode_sqz(data)


def reading_meta(meta: str) -> Call:
    data = with_meta(file_of(tiny_spec(), 1.0), meta)

    def read() -> str:
        try:
            decode_sqz(data)
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:80]}"
        return "read"

    return read


def predicting(spec: ArchSpec, engine: str, *, images: int = 1, threads: int = 1, maps: bool = False) -> Call:
    classifier = Classifier(decode_sqz(file_of(spec, 0.0)), engine=engine, threads=threads)  # type: ignore[arg-type]
    pixels = random_pixels(spec, images)
    return lambda: classifier.activation_maps(pixels) if maps else classifier.logits(pixels)


def encoding(classes: int) -> Call:
    network = random_network(tiny_spec(num_classes=classes), density=0.0)
    labels = Labels(tuple(f"c{number}" for number in range(classes)))
    file = SqzFile(network=network, labels=labels, preprocessing=Preprocessing(crop_size=16, resize_size=16))
    return lambda: encode_sqz(file)


def preparing(mode: str, extension: str, height: int = 6103) -> Call:
    picture = io.BytesIO()
    options = {"compression": "tiff_adobe_deflate"} if extension == "TIFF" else {}
    Image.new(mode, (16383, height)).save(picture, extension, **options)
    preprocessing = Preprocessing(crop_size=224, resize_size=256)
    return lambda: preprocessing(io.BytesIO(picture.getvalue()))


def opening_index(folder: Path) -> Call:
    path = folder / "index.json"
    path.write_text(json.dumps({"format": 1, "classes": {"a": 1 << 28}, "shards": {"00000.tar": 1 << 28}}))
    return lambda: f"{len(open_shards(path)):,} images"


NESTED = '{"x":' + "[" * 30 + "[0]," * 1_040_000 + "0" + "]" * 30 + "}"
MARKS = json.dumps({"labels": {"names": ["a"], "ids": ["a" + "\u0315\u0300" * 250_000]}}, ensure_ascii=False)
ROWS: dict[str, Callable[[Path], Call]] = {
    "read 2^24 weights, all 0": lambda _: reading(most_weights(), 0.0),
    "read 2^24 weights, random": lambda _: reading(most_weights(), 1.0),
    "read META of 4 MiB, nested lists": lambda _: reading_meta(NESTED),
    "read 500,000 combining marks": lambda _: reading_meta(MARKS),
    "predict 2^37 products, C": lambda _: predicting(most_products(), "native"),
    "predict 2^37 products, NumPy": lambda _: predicting(most_products(), "reference"),
    "predict 2^27 elements, C": lambda _: predicting(most_elements(), "native"),
    "predict 2^27 elements, C, 32 images, 2 threads": lambda _: predicting(
        most_elements(), "native", images=32, threads=2
    ),
    "predict 2^27 elements, NumPy": lambda _: predicting(most_elements(), "reference"),
    "activation map, 2^27 elements, C": lambda _: predicting(most_elements(), "native", maps=True),
    "activation map, 2^27 elements, NumPy": lambda _: predicting(most_elements(), "reference", maps=True),
    "encode 8,191 classes": lambda _: encoding(8191),
    "image of 31 million pixels, WebP": lambda _: preparing("RGB", "WEBP", 1907),
    "image of 100 million pixels, RGBA PNG": lambda _: preparing("RGBA", "PNG"),
    "image of 71 million pixels, float TIFF": lambda _: preparing("F", "TIFF", 4359),
    "image of 50 million pixels, Lab TIFF": lambda _: preparing("LAB", "TIFF", 3051),
    "index of 2^28 images": opening_index,
}


def memory_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


def measure(row: str) -> dict[str, object]:
    """Run one row in this process."""
    with tempfile.TemporaryDirectory() as folder:
        call = ROWS[row](Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before, used = memory_mb("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
        said = call()
        after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    answer = {"cpu_s": round(seconds, 2), "peak_mb": round(memory_mb("VmHWM") - before)}
    return answer | ({"answer": said} if isinstance(said, str) else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name contains this; prints, writes nothing")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.row)))
        return
    rows = {}
    for row in ROWS:
        if options.only in row:
            command = [sys.executable, __file__, "--row", row]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, timeout=600)
            rows[row] = json.loads(out.stdout.splitlines()[-1])
            over = rows[row]["cpu_s"] > MAX_SECONDS or rows[row]["peak_mb"] > MAX_MB
            print(f"{row:50} {rows[row]}{'  OVER' if over else ''}", flush=True)
    if not options.only:
        write_results("limits", {"run": describe_run(), "bar": {"cpu_s": MAX_SECONDS, "peak_mb": MAX_MB}, "rows": rows})


if __name__ == "__main__":
    main()
