"""Time a network in one Chromium: the exported page, ONNX Runtime Web, TensorFlow.js and LiteRT.js, in turns.

    npm install --prefix FOLDER onnxruntime-web @tensorflow/tfjs @tensorflow/tfjs-backend-wasm @litertjs/core
    python benchmarks/web_peers.py FILE.sqz FOLDER/node_modules     # with nothing else running

Every peer runs on one thread and on the processor, from files that this program serves and whose bytes it counts: the
library, its WebAssembly, the model. Models are made from FILE.sqz: ONNX in float and in int8, weights as float16 for
TensorFlow.js, an int8 `.tflite`. A first answer is timed from the start of the navigation; the page also decodes and
resizes its photo, the others get pixels. Needs Chromium and ../shared; writes results/web_peers.json.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import http.server
import io
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from environment import SHARED, describe_run, write_results

from squeezenet import Classifier, export
from squeezenet.data import open_data
from squeezenet.exports.browser import open_browser

PAGES = Path(__file__).with_name("web_peers")
IMAGENET = SHARED / "data/imagenet-500.zip"
N_PHOTOS, ROUNDS, RUNS, N_LOADS = 20, 5, 15, 3
PEERS = {
    "this page": ("page.html", None),
    "ONNX Runtime Web, int8": ("onnxruntime.html?int8", "onnxruntime-web"),
    "ONNX Runtime Web, float": ("onnxruntime.html?float", "onnxruntime-web"),
    "TensorFlow.js, wasm": ("tensorflow.html", "@tensorflow/tfjs-backend-wasm"),
    "LiteRT.js, int8": ("litert.html?int8", "@litertjs/core"),
    "LiteRT.js, int8 with a float head": ("litert.html?head", "@litertjs/core"),
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the folder and of npm's, and how many bytes went out."""

    extensions_map = {
        **http.server.SimpleHTTPRequestHandler.extensions_map, ".wasm": "application/wasm", ".mjs": "text/javascript",
    }  # fmt: skip
    sent: dict[str, int] = {}
    modules = Path()

    def translate_path(self, path: str) -> str:
        """Find a file of a model's, of a page's or of npm's."""
        name = path.split("?")[0].lstrip("/")
        found = Path(self.directory) / name
        for place in (PAGES / name, self.modules / name.removeprefix("npm/")):
            found = found if found.is_file() else place
        if found.is_file():
            self.sent[name] = found.stat().st_size
        return str(found)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def serve(folder: Path, modules: Path) -> Iterator[str]:
    Handler.modules = modules
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def prepare(model: Path, folder: Path) -> tuple[list[bytes], np.ndarray]:
    """Write everybody's model and pixels; returns the photos and Python's logits."""
    classifier, images = Classifier(model), open_data([str(IMAGENET)])
    how = classifier.preprocessing
    photos = [images.read(index * len(images) // N_PHOTOS) for index in range(N_PHOTOS)]
    pixels = np.stack([how(photo) for photo in photos])
    (folder / "pixels.bin").write_bytes(pixels.tobytes())
    export(model, folder / "page.html")
    export(model, folder / "float.onnx")
    export(model, folder / "int8.onnx", precision="int8")
    export(model, folder / "head.tflite")
    export(model, folder / "int8.tflite", photos=str(IMAGENET))
    network = classifier.contents.network.dequantize(how)
    weights, entries = io.BytesIO(), []
    for op in network.spec.convs:
        conv = network.convs[op.name]
        for part in (conv.weight.transpose(2, 3, 1, 0), conv.bias):
            weights.write(part.astype(np.float16).tobytes())
        entries.append({"shape": list(conv.weight.transpose(2, 3, 1, 0).shape)})
    (folder / "weights.bin").write_bytes(weights.getvalue())
    facts = {"size": network.spec.input_size, "mean": how.mean, "std": how.std, "convs": entries}
    facts["pools"] = list(network.spec.pools)
    facts["stride"] = network.spec.stem.stride
    (folder / "network.json").write_text(json.dumps(facts))
    return photos, classifier.logits(pixels)


def measure(browser: Any, address: str, name: str, modules: Path, ours: list[str]) -> tuple[Any, dict[str, Any]]:
    """Open a peer several times; the last page stays open."""
    path, package = PEERS[name]
    firsts: list[float] = []
    for load in range(N_LOADS):
        Handler.sent = {}
        tab = browser.new_context().new_page()
        tab.set_default_timeout(120_000)
        tab.goto(address + path, wait_until="domcontentloaded")
        if package is None:
            tab.evaluate((PAGES / "ours.js").read_text().split("\n", 2)[2], ours)
        firsts.append(tab.evaluate("peer.first()"))
        if load < N_LOADS - 1:
            tab.context.close()
    sent = {key: size for key, size in Handler.sent.items() if key not in ("pixels.bin", "favicon.ico")}
    facts = {"bytes": sum(sent.values()), "files": sent, "first_answer_ms": round(float(np.median(firsts)), 1)}
    if package:
        facts["version"] = json.loads((modules / package / "package.json").read_text())["version"]
    return tab, facts


def compare(tab: Any, expected: np.ndarray) -> dict[str, Any]:
    """Answers of two runs, and against Python's."""
    first, second = (np.array(tab.evaluate("peer.answers()")) for _ in range(2))
    return {
        "two_runs_equal": bool(np.array_equal(first, second)),
        "photos_with_python_s_bits": int((first == expected).all(1).sum()),
        "same_class": int((first.argmax(1) == expected.argmax(1)).sum()),
        "largest_difference": float(f"{np.abs(first - expected).max():.3g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("modules", type=Path, help="npm's node_modules")
    arguments = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        folder = Path(name)
        photos, expected = prepare(arguments.model, folder)
        ours = [base64.b64encode(photo).decode() for photo in photos]
        with serve(folder, arguments.modules) as address:
            tabs = {}
            for peer in PEERS:
                tabs[peer], results[peer] = measure(browser, address, peer, arguments.modules, ours)
                results[peer] |= compare(tabs[peer], expected)
            times: dict[str, list[float]] = {peer: [] for peer in PEERS}
            for turn in range(ROUNDS):
                for peer, tab in tabs.items():
                    tab.bring_to_front()
                    taken = tab.evaluate("(runs) => peer.time(runs)", RUNS)
                    times[peer] += taken if turn else []  # the first turn warms up
        for peer, taken in times.items():
            results[peer]["ms"] = round(float(np.median(taken)), 2)
        facts = {"net": Classifier(arguments.model).spec.name, "file_bytes": arguments.model.stat().st_size}
        facts |= {"chromium": browser.version, "n_photos": N_PHOTOS, "peers": results}
    write_results("web_peers", {"run": describe_run(), **facts})
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
