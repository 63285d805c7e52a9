"""Take the pictures of the exported page that README and docs show: docs/page.webp and docs/page-phone.webp.

python tools/take_pictures.py

Needs Chromium and playwright.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

import squeezenet
from squeezenet.exports.browser import classify_in_page, open_browser, open_page

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples/photo.jpg"
SCREENS = {"page": (1280, 704), "page-phone": (390, 844)}
SCALE = 2  # pixels of the picture per pixel of the page, for sharp displays
WIDTH = 1280  # of the largest picture that is stored


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        file = Path(folder) / "imagenette.html"
        squeezenet.export("imagenette", file)
        for name, (width, height) in SCREENS.items():
            page = open_page(
                browser,
                file,
                viewport={"width": width, "height": height},
                device_scale_factor=SCALE,
                color_scheme="light",
            )
            classify_in_page(page, PHOTO.read_bytes(), runs=20)  # the time shown is that of a warm engine
            page.set_input_files("input[type=file]", PHOTO)
            page.wait_for_function("document.getElementById('time').textContent.includes('ms')")
            page.evaluate("document.getAnimations().forEach((animation) => animation.finish())")
            picture = Image.open(io.BytesIO(page.screenshot()))
            if picture.width > WIDTH:
                picture = picture.resize(
                    (WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS
                )
            picture.convert("RGB").save(ROOT / f"docs/{name}.webp", quality=82, method=6)
            page.context.close()


if __name__ == "__main__":
    main()
