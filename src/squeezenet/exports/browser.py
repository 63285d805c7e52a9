"""A page in headless Chromium, driven by Playwright, for `verify`, the tests and the benchmarks.

The browser is the system's own, and so is Node: nothing is downloaded.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["Classified", "classify_in_page", "find_node", "missing_browser", "open_browser", "open_page"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LOAD_TIMEOUT_MS = 60_000

# A program that succeeds if Node takes the module on its standard input.
_VALIDATE = "process.exit(WebAssembly.validate(require('fs').readFileSync(0)) ? 0 : 1)"

# Text is what the browser's protocol carries fast.
_CLASSIFY = """async ([data, options]) => {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const { logits, features, top, ms, width, height } = await squeezenet.classify(new Blob([bytes]), options);
  const text = (array) => btoa(Array.from(new Uint8Array(array.buffer), (byte) => String.fromCharCode(byte)).join(""));
  return { logits: text(logits), features: text(features), top, ms, width, height };
}"""


@dataclass(frozen=True)
class Classified:
    """The result of a page for an image."""

    logits: NDArray[np.float64]
    """(classes,)"""
    features: NDArray[np.int32]
    """(channels of the last Fire module,)"""
    top: list[dict[str, Any]]
    """Index, label and probability of the most probable classes."""
    ms: dict[str, Any]
    """Milliseconds of `decode`, `resize` and `run`; `runs` has those of every run."""
    size: tuple[int, int]
    """Width and height of the decoded image."""


def missing_browser() -> str | None:
    """Name what is missing to run a page; None if nothing is."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "needs playwright"
    return None if _find_browser() else "needs chromium"


@contextlib.contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    """Start the system's Chromium without a window.

    Args:
        arguments: Further switches of its command line.
    """
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox does not start for root, as in containers; the page is ours.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_find_browser(), args=[*sandbox, *arguments])
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser: Browser, path: str | os.PathLike[str], *, kernels: str = "", **context: Any) -> Page:
    """Open an exported page from its file, and wait until its model is ready.

    Args:
        browser: From `open_browser`.
        path: The page.
        kernels: "plain", or "pairs" or "dot" of relaxed SIMD; empty takes what is fastest.
        context: Settings of the browser's context, such as `viewport` or `color_scheme`.
    """
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(_LOAD_TIMEOUT_MS)
    page.goto(f"{Path(path).resolve().as_uri()}#{kernels}")
    page.evaluate("squeezenet.ready")
    return page


def classify_in_page(page: Page, data: bytes, **options: Any) -> Classified:
    """Have an image file classified, decoding and resizing included.

    Args:
        page: From `open_page`.
        data: The image file.
        options: `runs`, how often to run the network; `map`, whether to make activation maps.
    """
    answer = page.evaluate(_CLASSIFY, [base64.b64encode(data).decode(), options])
    logits = np.frombuffer(base64.b64decode(answer["logits"]))
    features = np.frombuffer(base64.b64decode(answer["features"]), np.int32)
    return Classified(logits, features, answer["top"], answer["ms"], (answer["width"], answer["height"]))


def find_node(*, relaxed: bool = False) -> tuple[str, ...] | str:
    """Return the command that starts Node, for relaxed SIMD if asked, or what is missing.

    Node 20 hides relaxed SIMD behind a switch, newer ones do not have the switch.
    """
    if shutil.which("node") is None:
        return "needs node"
    return (_find_relaxed_node() or "needs Node 20 or newer") if relaxed else ("node",)


@functools.cache
def _find_relaxed_node() -> tuple[str, ...] | None:
    module = Path(__file__).with_name("web").joinpath("relaxed.wasm").read_bytes()
    for command in (("node",), ("node", "--experimental-wasm-relaxed-simd")):
        if subprocess.run([*command, "-e", _VALIDATE], input=module, capture_output=True, check=False).returncode == 0:
            return command
    return None


def _find_browser() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)
