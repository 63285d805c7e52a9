"""Compare the page's kernels in one Chromium, bits and times, and write results/web_kernels.json.

    python benchmarks/web_kernels.py bits FILE.sqz ...              # 100 photos each, and 200 random networks
    python benchmarks/web_kernels.py timing FILE.sqz --before COMMIT    # with nothing else running

`timing` alternates with the engine of another commit. Needs Chromium and, for photos, ../shared.
"""

from __future__ import annotations

import argparse
import base64
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT, SHARED, write_part

from squeezenet import Classifier, SqzFile
from squeezenet.data import open_data
from squeezenet.engine import ReferenceEngine
from squeezenet.exports import build_page
from squeezenet.exports.browser import classify_in_page, open_browser, open_page
from squeezenet.exports.web_page import PARTS
from squeezenet.fileformat import encode_sqz
from squeezenet.preprocess import load_image

sys.path.append(str(ROOT / "tests"))
from networks import random_network, random_pixels, random_spec  # noqa: E402

N_PHOTOS, N_RANDOM, ROUNDS = 100, 200, 40
KERNELS = ("plain", "pairs", "dot")
WEB = PARTS.relative_to(ROOT).as_posix()

# An engine outside a page: `run` classifies pixels, `time` alternates between engines.
_DRIVER = """
const bytesOf = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const parts = {};
async function make({ code, kernels, file }) {
  const { engine } = code ? { engine: (await WebAssembly.instantiate(bytesOf(code), {})).instance.exports }
    : await loadEngine(bytesOf(parts.engine), bytesOf(parts.relaxed), kernels);
  const at = engine.web_alloc(file.length);
  new Uint8Array(engine.memory.buffer, at, file.length).set(file);
  const status = engine.web_open(at, file.length);
  if (status) throw new Error(`status ${status}`);
  return engine;
}
function runOn(engine, pixels) {
  new Uint8Array(engine.memory.buffer, engine.web_pixels(), pixels.length).set(pixels);
  engine.web_run(0);
  return Array.from(new Float64Array(engine.memory.buffer, engine.web_logits(), engine.web_classes()));
}
async function run(file, pixels, kernels) {
  const logits = [];
  for (const one of kernels) logits.push(runOn(await make({ kernels: one, file: bytesOf(file) }), bytesOf(pixels)));
  return logits;
}
async function time(file, pixels, engines, rounds) {
  const made = [];
  for (const one of engines) made.push(await make({ ...one, file: bytesOf(file) }));
  const times = made.map(() => []);
  for (const engine of made) runOn(engine, bytesOf(pixels));
  for (let round = 0; round < rounds; round++) {
    made.forEach((engine, i) => {
      for (let k = 0; k < 3; k++) {
        const began = performance.now();
        engine.web_run(0);
        times[i].push(performance.now() - began);
      }
    });
  }
  return times;
}
"""


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def open_driver(browser: Any) -> Any:
    page = browser.new_page()
    page.set_default_timeout(600_000)
    page.add_script_tag(content=(PARTS / "engine.js").read_text() + _DRIVER)
    for name in ("engine", "relaxed"):
        page.evaluate("([name, text]) => { parts[name] = text; }", [name, text((PARTS / f"{name}.wasm").read_bytes())])
    return page


def compare_random(page: Any, count: int) -> dict[str, int]:
    """Random networks with logits that differ from the NumPy engine's, for each kind of kernels."""
    different = dict.fromkeys(KERNELS, 0)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        spec = random_spec(rng)
        network = random_network(spec, seed=seed, max_weight=int(rng.choice([1, 7, 15, 31, 63, 64, 100, 127])))
        pixels = random_pixels(spec, 1, seed=seed)
        expected = ReferenceEngine(network).logits(pixels)[0].tolist()
        file = text(encode_sqz(SqzFile(network=network)))
        for kernels, logits in zip(
            KERNELS, page.evaluate("([...all]) => run(...all)", [file, text(pixels.tobytes()), KERNELS]), strict=True
        ):
            different[kernels] += logits != expected
    return different


def compare_photos(browser: Any, model: Path, data: str, folder: Path) -> dict[str, int]:
    """Photos whose logits in the page differ from Python's, alone with each kind of kernels, and by all workers."""
    images, classifier = open_data([data], unlabelled=True), Classifier(model)
    photos = []
    for index in range(N_PHOTOS):
        stream = io.BytesIO()
        load_image(images.read(index * len(images) // N_PHOTOS)).save(stream, "PNG", compress_level=1)
        photos.append(stream.getvalue())
    expected = [classifier.logits(classifier.preprocessing(photo)[None])[0] for photo in photos]
    (folder / "page.html").write_bytes(build_page(model.read_bytes())[0])
    different: dict[str, int] = {}
    for kernels in KERNELS:
        page = open_page(browser, folder / "page.html", kernels=kernels)
        assert page.evaluate("squeezenet.kernels") == kernels
        answers = [classify_in_page(page, photo).logits for photo in photos]
        different[kernels] = sum(not np.array_equal(*pair) for pair in zip(answers, expected, strict=True))
        page.context.close()
    page = open_page(browser, folder / "page.html")
    answers = [np.array(logits) for logits in page.evaluate(_CLASSIFY_ALL, [text(photo) for photo in photos])]
    different["workers"] = sum(not np.array_equal(*pair) for pair in zip(answers, expected, strict=True))
    page.context.close()
    return different


_CLASSIFY_ALL = """async (photos) => {
  const blobs = photos.map((text) => new Blob([Uint8Array.from(atob(text), (char) => char.charCodeAt(0))]));
  return (await squeezenet.classifyAll(blobs)).map(({ logits }) => Array.from(logits));
}"""


def bits(models: list[Path], folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"n_photos": N_PHOTOS, "n_random": N_RANDOM, "networks": {}}
    with open_browser() as browser:
        for model in models:
            size = Classifier(model).spec.input_size
            data = SHARED / ("data/cifar10-val.zip" if size == 32 else "data/imagenet-500.zip")
            facts["networks"][model.stem] = compare_photos(browser, model, str(data), folder)
        facts["random_networks"] = compare_random(open_driver(browser), N_RANDOM)
    return facts


def timing(model: Path, before: str) -> dict[str, Any]:
    """Milliseconds for the network of one photo: the engine of the commit `before`, and this one's kernels."""
    code = subprocess.run(["git", "show", f"{before}:{WEB}/engine.wasm"], cwd=ROOT, capture_output=True, check=True)
    classifier = Classifier(model)
    pixels = classifier.preprocessing(open_data([str(SHARED / "data/imagenet-500.zip")]).read(0))
    engines = {"before": {"code": text(code.stdout)}, **{name: {"kernels": name} for name in KERNELS}}
    with open_browser() as browser:
        times = open_driver(browser).evaluate(
            "([...all]) => time(...all)",
            [text(model.read_bytes()), text(pixels.tobytes()), list(engines.values()), ROUNDS],
        )
        version = browser.version
    medians = {name: round(float(np.median(values[ROUNDS:])), 2) for name, values in zip(engines, times, strict=True)}
    return {
        "net": f"{classifier.spec.name}@{classifier.spec.input_size}", "file_bytes": model.stat().st_size,
        "chromium": version, "before": before, "ms": medians,
        "share_of_before": {name: round(ms / medians["before"], 3) for name, ms in medians.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["bits", "timing"])
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--before", default="HEAD")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.part == "bits":
            measured = bits(arguments.models, Path(name))
        else:
            measured = {"networks": [timing(model, arguments.before) for model in arguments.models]}
    write_part("web_kernels", arguments.part, measured)


if __name__ == "__main__":
    main()
