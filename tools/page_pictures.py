"""Take the pictures of the exported page in docs/: `page.webp`, and `page-phone.webp` as a phone shows it.

python tools/page_pictures.py FILE.sqz [PHOTO]      # needs Chromium; with nothing else running, for the time it shows
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from squeezenet import export
from squeezenet.exports.browser import open_browser, open_page

ROOT = Path(__file__).parents[1]
SCREENS = {
    "page.webp": {"viewport": {"width": 1280, "height": 800}},
    "page-phone.webp": {
        "viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5, "is_mobile": True, "has_touch": True,
    },
}  # fmt: skip
_TIMES = 8  # the photo is looked at, so that the time shown is one of a page in use


def main() -> None:
    model, photo = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "examples/photo.jpg"
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        page = Path(folder) / "page.html"
        export(model, page)
        for name, screen in SCREENS.items():
            tab = open_page(browser, page, **screen)
            for _ in range(_TIMES):
                tab.set_input_files("#file", photo)
                tab.wait_for_selector("#state.ready")
                tab.wait_for_timeout(300)  # bars move to their places
            picture = Image.open(io.BytesIO(tab.screenshot(full_page=True)))
            picture.convert("RGB").save(ROOT / "docs" / name, quality=80, method=6)
            tab.context.close()


if __name__ == "__main__":
    main()
