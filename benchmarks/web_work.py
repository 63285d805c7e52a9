"""Time the exported page at work, and write results/web_work.json.

    python benchmarks/web_work.py many FILE.sqz        # 200 photos at once: one worker, and as many as cores, in turns
    python benchmarks/web_work.py teach FILE.sqz       # 100 photos of four classes, then one more; bytes of pages

Needs Chromium and ../shared, and nothing else running.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from environment import SHARED, write_part

from squeezenet import Classifier
from squeezenet.data import open_data
from squeezenet.exports import build_page
from squeezenet.exports.browser import classify_in_page, open_browser, open_page

IMAGENET, TRASH = SHARED / "data/imagenet-500.zip", SHARED / "data/trash-360.zip"
N_MANY, ROUNDS = 200, 3
_KEEP = """(photos) => {
  self.photos = photos.map((text) => new Blob([Uint8Array.from(atob(text), (char) => char.charCodeAt(0))]));
}"""
_MANY = """async (workers) => {
  const began = performance.now();
  const answers = await squeezenet.classifyAll(self.photos, { workers });
  return [performance.now() - began, answers.map(({ top }) => top[0].index)];
}"""


def many(model: Path, folder: Path) -> dict[str, Any]:
    images = open_data([str(IMAGENET)])
    photos = [base64.b64encode(images.read(index)).decode() for index in range(N_MANY)]
    (folder / "page.html").write_bytes(build_page(model.read_bytes())[0])
    seconds: dict[str, list[float]] = {"one": [], "all": []}
    with open_browser() as browser:
        page = open_page(browser, folder / "page.html")
        page.set_default_timeout(300_000)
        page.evaluate(_KEEP, photos)
        cores = page.evaluate("navigator.hardwareConcurrency")
        page.evaluate(_MANY, cores)  # starts the workers
        for _ in range(ROUNDS):
            for name, workers in (("one", 1), ("all", cores)):
                taken, answers = page.evaluate(_MANY, workers)
                seconds[name].append(round(taken / 1000, 3))
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "net": Classifier(model).spec.name, "n_photos": N_MANY, "cores": cores, "seconds": seconds,
        "speedup": round(medians["one"] / medians["all"], 3), "photos_a_second": round(N_MANY / medians["all"], 1),
        "classes": len(set(answers)),
    }  # fmt: skip


def teach(model: Path, folder: Path) -> dict[str, Any]:
    """Through the interface: four classes of 25, a photo more, then five classes of 50, saved."""
    by_class: dict[str, list[bytes]] = {}
    with zipfile.ZipFile(TRASH) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                by_class.setdefault(name.split("/")[-2], []).append(archive.read(name))
    (folder / "page.html").write_bytes(build_page(model.read_bytes())[0])
    facts: dict[str, Any] = {"net": Classifier(model).spec.name, "model_bytes": model.stat().st_size}
    facts["page_bytes"] = (folder / "page.html").stat().st_size
    with open_browser() as browser:
        page = open_page(browser, folder / "page.html")
        page.wait_for_timeout(1000)
        page.click("#mode-teach")
        classes = list(by_class.items())[:5]
        for _ in range(3):
            page.click("#add-class")
        began = time.perf_counter()
        for index, (_, photos) in enumerate(classes[:4]):
            add(page, index, photos[:25], 25)
        facts["teach_100_photos_s"] = round(time.perf_counter() - began, 2)
        facts["judged"] = page.inner_text("#judged")
        began = time.perf_counter()
        add(page, 0, classes[0][1][25:26], 26)
        facts["one_more_photo_s"] = round(time.perf_counter() - began, 3)
        taken = page.evaluate(_ANSWER, base64.b64encode(classes[0][1][26]).decode())
        facts["answer_ms"] = round(taken, 1)
        for index, (_, photos) in enumerate(classes):
            add(page, index, photos[27 if index == 0 else 25 if index < 4 else 0 :][: 50 - counts(page)[index]], 50)
        with page.expect_download() as download:
            page.click("#save-page")
        download.value.save_as(folder / "taught.html")
        facts["saved_page_bytes"] = (folder / "taught.html").stat().st_size
        with page.expect_download() as download:
            page.click("#save-sqz")
        download.value.save_as(folder / "taught.sqz")
        facts["saved_sqz_bytes"] = (folder / "taught.sqz").stat().st_size
        again, classifier = open_page(browser, folder / "taught.html"), Classifier(folder / "taught.sqz")
        facts["judged_5_classes_of_50"] = again.inner_text("#judged")
        photos = [photo for _, of_class in classes for photo in of_class[50:]]
        expected = [classifier.logits(classifier.preprocessing(photo)[None])[0] for photo in photos]
        same = sum(
            np.array_equal(classify_in_page(again, photo).logits, logits)
            for photo, logits in zip(photos, expected, strict=True)
        )
        facts["photos_with_python_s_bits"] = f"{same} of {len(photos)}"
    return facts


_ANSWER = """async (text) => {
  const photo = new Blob([Uint8Array.from(atob(text), (char) => char.charCodeAt(0))]);
  const began = performance.now();
  await squeezenet.classify(photo, { taught: true });
  return performance.now() - began;
}"""


def counts(page: Any) -> list[int]:
    return [int(text.split()[0]) for text in page.locator(".card .count").all_inner_texts()]


def add(page: Any, index: int, photos: list[bytes], total: int) -> None:
    files = [
        {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": photo} for number, photo in enumerate(photos)
    ]
    page.locator(".card input[type=file]").nth(index).set_input_files(files)
    page.wait_for_function(
        "([i, n]) => document.querySelectorAll('.card .count')[i].textContent.startsWith(`${n} photo`)"
        " && document.getElementById('state').textContent.startsWith('Ready')",
        arg=[index, total],
        polling=10,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["many", "teach"])
    parser.add_argument("model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measured = {"many": many, "teach": teach}[arguments.part](arguments.model, Path(name))
    write_part("web_work", arguments.part, measured)


if __name__ == "__main__":
    main()
