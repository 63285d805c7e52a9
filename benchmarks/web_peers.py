"""Time a network in one Chromium: the exported page, ONNX Runtime Web, TensorFlow.js and LiteRT.js, in turns.

    npm install --prefix FOLDER onnxruntime-web @tensorflow/tfjs @tensorflow/tfjs-backend-wasm @litertjs/core
    python benchmarks/web_peers.py first  FILE.sqz FOLDER/node_modules     # with nothing else running
    python benchmarks/web_peers.py photos FILE.sqz FOLDER/node_modules

Every peer runs on one thread and on the processor, from files that this program serves and whose bytes it counts: the
library, its WebAssembly, the model. Models are made from FILE.sqz: ONNX in float and in int8, weights as float16 for
TensorFlow.js, an int8 `.tflite`; they stay in --folder. A first answer is timed from the start of the navigation to the
most probable class of a JPEG that is in the page's memory from the beginning; every load has empty caches and a window
that has been open for a moment. `photos` times the network alone and compares answers with Python's, from the same
pixels. Needs Chromium and ../shared; writes results/web_peers.json.
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
from environment import SHARED, write_part

from squeezenet import Classifier, export
from squeezenet.data import open_data
from squeezenet.exports.browser import open_browser

PAGES = Path(__file__).with_name("web_peers")
IMAGENET = SHARED / "data/imagenet-500.zip"
N_PHOTOS, ROUNDS, RUNS, N_LOADS = 20, 4, 8, 7
WINDOW_MS = 600  # for Chromium's own pages, which each new window loads beside what is timed
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
    """Write everybody's model and pixels, as far as they are not there; returns the photos and Python's logits."""
    classifier, images = Classifier(model), open_data([str(IMAGENET)])
    how = classifier.preprocessing
    photos = [images.read(index * len(images) // N_PHOTOS) for index in range(N_PHOTOS)]
    pixels = np.stack([how(photo) for photo in photos])
    export(model, folder / "page.html")
    if not (folder / "network.json").exists():
        (folder / "pixels.bin").write_bytes(pixels.tobytes())
        export(model, folder / "float.onnx")
        export(model, folder / "int8.onnx", precision="int8")
        export(model, folder / "head.tflite")
        export(model, folder / "int8.tflite", photos=str(IMAGENET))
        write_weights(classifier, folder)
    return photos, classifier.logits(pixels)


def write_weights(classifier: Classifier, folder: Path) -> None:
    """What the page of TensorFlow.js builds the network from, and what all know of it."""
    how = classifier.preprocessing
    network = classifier.contents.network.dequantize(how)
    weights, entries = io.BytesIO(), []
    for op in network.spec.convs:
        conv = network.convs[op.name]
        for part in (conv.weight.transpose(2, 3, 1, 0), conv.bias):
            weights.write(part.astype(np.float16).tobytes())
        entries.append({"shape": list(conv.weight.transpose(2, 3, 1, 0).shape)})
    (folder / "weights.bin").write_bytes(weights.getvalue())
    facts = {"size": network.spec.input_size, "resize": how.resize_size, "mean": how.mean, "std": how.std}
    facts |= {"convs": entries, "pools": list(network.spec.pools), "stride": network.spec.stem.stride}
    (folder / "network.json").write_text(json.dumps(facts))


def open_peer(browser: Any, address: str, name: str, photo: bytes) -> tuple[Any, dict[str, Any]]:
    """Load a peer with empty caches; its page stays open. Returns its first answer as well."""
    path, package = PEERS[name]
    context = browser.new_context()
    text = base64.b64encode(photo).decode()
    context.add_init_script(f"self.givenPhoto = new Blob([Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0))]);")
    if package is None:
        context.add_init_script((PAGES / "ours.js").read_text())
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    tab.wait_for_timeout(WINDOW_MS)
    tab.goto(address + path, wait_until="domcontentloaded")
    return tab, tab.evaluate("peer.first")


def time_first_answers(browser: Any, address: str, modules: Path, photos: list[bytes], expected: np.ndarray) -> Any:
    """Bytes to load, and milliseconds to the first answer."""
    firsts: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    peers: dict[str, dict[str, Any]] = {}
    for _ in range(N_LOADS):
        for name, (_, package) in PEERS.items():
            Handler.sent = {}
            tab, first = open_peer(browser, address, name, photos[0])
            firsts[name].append(first)
            tab.context.close()
            sent = {key: size for key, size in Handler.sent.items() if key != "favicon.ico"}
            peers[name] = {"bytes": sum(sent.values()), "files": sent}
            if package:
                peers[name]["version"] = json.loads((modules / package / "package.json").read_text())["version"]
    for name, answers in firsts.items():
        times = [answer["ms"] for answer in answers]
        peers[name]["first_answer_ms"] = round(float(np.median(times)), 1)
        peers[name]["first_answers_ms"] = [round(ms) for ms in times]
        peers[name]["same_class"] = sum(answer["top1"] == int(expected[0].argmax()) for answer in answers)
    return {"n_loads": N_LOADS, "peers": peers}


def time_photos(browser: Any, address: str, modules: Path, photos: list[bytes], expected: np.ndarray) -> Any:
    """Answers of each peer, and milliseconds of one photo in turns."""
    texts = [base64.b64encode(photo).decode() for photo in photos]
    tabs, peers = {}, {}
    for name in PEERS:
        tabs[name], _ = open_peer(browser, address, name, photos[0])
        to_blob = "new Blob([Uint8Array.from(atob(text), (char) => char.charCodeAt(0))])"
        if name == "this page":
            tabs[name].evaluate(f"(texts) => {{ self.photos = texts.map((text) => {to_blob}); }}", texts)
        peers[name] = compare(tabs[name], expected)
    times: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for turn in range(ROUNDS):
        for peer, tab in tabs.items():
            tab.bring_to_front()
            taken = tab.evaluate("(runs) => peer.time(runs)", RUNS)
            times[peer] += taken if turn else []  # the first turn warms up
    for peer, taken in times.items():
        peers[peer]["ms"] = round(float(np.median(taken)), 2)
    return {"n_photos": N_PHOTOS, "peers": peers}


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
    parser.add_argument("part", choices=["first", "photos"])
    parser.add_argument("model", type=Path)
    parser.add_argument("modules", type=Path, help="npm's node_modules")
    parser.add_argument("--folder", type=Path, help="where the peers' models are kept (default: nowhere)")
    arguments = parser.parse_args()
    measure = {"first": time_first_answers, "photos": time_photos}[arguments.part]
    with tempfile.TemporaryDirectory() as name, open_browser() as browser:
        folder = arguments.folder or Path(name)
        folder.mkdir(exist_ok=True)
        photos, expected = prepare(arguments.model, folder)
        with serve(folder, arguments.modules) as address:
            measured = measure(browser, address, arguments.modules, photos, expected)
        facts = {"net": Classifier(arguments.model).spec.name, "file_bytes": arguments.model.stat().st_size}
        facts |= {"chromium": browser.version}
    write_part("web_peers", arguments.part, facts | measured)


if __name__ == "__main__":
    main()
