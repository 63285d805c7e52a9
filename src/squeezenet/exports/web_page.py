"""One HTML file that classifies photos: model, engine, names and interface, without any network request.

The parts are in `web/`, including the engine as WebAssembly, built by `csrc/web/build.sh`. The `.sqz` file is embedded
unchanged. The page trusts nothing in that file: names are never markup, and the Content-Security-Policy allows only the
page's own two scripts and two styles, by their hashes, and no connection. One script is in plain text. It starts the
other one, which is deflated and contains the styles of elements that only it shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..accounting import network_cost
from ..engine import NativeEngine, ReferenceEngine, native_kernels
from ..errors import DataError
from ..fileformat import SqzFile, decode_sqz
from ..labels import imagenet_labels

__all__ = ["PARTS", "STRICT", "PageSizes", "build_page", "join_sources", "named_labels", "pack", "unpack"]

PARTS = Path(__file__).with_name("web")

STRICT = '"use strict";\n'
_PROGRAM = (
    "base.js", "answer.js", "camera.js", "many.js", "teach.js", "lesson.js", "save_page.js", "page.js",
)  # fmt: skip

# Characters that a text inside a script element cannot hold: NUL, the two line ends, and "<", which could end it.
_ESCAPED = (0, 10, 13, 60)
_FIRST_ESCAPE = 1024  # code points from here on stand for an escaped character and the one after it: two UTF-8 bytes
_PAGE_BYTES_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class PageSizes:
    """Sizes of the parts of a page."""

    page_bytes: int
    model_bytes: int
    """Size of the encoded `.sqz` in the page."""
    label_bytes: int
    """Size of class names in the page that the file only refers to (ImageNet's)."""

    @property
    def runtime_bytes(self) -> int:
        """HTML, style, scripts and engine."""
        return self.page_bytes - self.model_bytes - self.label_bytes


def build_page(data: bytes, contents: SqzFile | None = None, *, title: str = "") -> tuple[bytes, PageSizes]:
    """Build the page of a model.

    Args:
        data: A whole `.sqz` file, which goes into the page unchanged.
        contents: The same file decoded, if the caller has it already.
        title: What the page is called; by default the name of the architecture.

    Returns:
        The page, UTF-8, and where its bytes are. The same file and title give the same page.

    Raises:
        FormatError: If the file is damaged or no `.sqz` file.
    """
    contents = contents or decode_sqz(data)
    script = STRICT + join_sources("unpack.js", "inflate.js", "loader.js")
    style, late_style = join_sources("page.css"), join_sources("late.css")
    page = f"(() => {{{STRICT}const lateStyle = {json.dumps(late_style)};\n{join_sources(*_PROGRAM)}}})()"
    worker = STRICT + join_sources("engine.js", "photos.js", "worker.js", "messages.js")
    model, named = _block("model", data), named_labels(contents)
    labels = _block("labels", named) if named else ""
    early = {"worker": worker.encode()}
    early |= {name: (PARTS / f"{name}.wasm").read_bytes() for name in ("engine", "relaxed")}
    facts = {
        "name": title or contents.network.spec.name,
        "file_bytes": len(data),
        "fp32_bytes": network_cost(contents.network.spec).fp32_bytes,
        "check": _check_sum(contents),
    }
    parts = {"policy": _policy((script, page), (style, late_style)), "style": style, "script": script}
    parts["early"] = "".join(_block(name, zlib.compress(part, 9)) for name, part in early.items())
    parts["blocks"] = _block("page", zlib.compress(page.encode(), 9)) + labels + model
    template, encoded = join_sources("page.html"), b""
    for _ in range(2):  # the second time with the page's own size, which JSON allows to stand behind spaces
        text = json.dumps(facts, separators=(",", ":")).replace("<", "\\u003c")  # which could end the element
        parts["facts"] = f'{text[:-1]},"page_bytes":{len(encoded):>{_PAGE_BYTES_DIGITS}}}}'
        # In one pass: what goes in may look like a placeholder itself.
        encoded = re.sub("@([a-z]+)@", lambda match: parts[match[1]], template).encode()
    return encoded, PageSizes(
        page_bytes=len(encoded), model_bytes=len(model.encode()), label_bytes=len(labels.encode())
    )


def pack(data: bytes) -> str:
    """Write bytes as text that a script element holds unchanged: seven bits per character.

    Characters that HTML would change or end the element at are joined with the following one into a character of
    two UTF-8 bytes, so n bytes take n * 8 / 7 bytes, rounded up, or one more.

    Example:
        >>> unpack(pack(b"any bytes"), 9)
        b'any bytes'
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    padded = np.concatenate([bits, np.zeros(-len(bits) % 7, np.uint8)])
    septets = np.packbits(padded.reshape(-1, 7), axis=1, bitorder="big").ravel() >> 1
    text, at, values = [], 0, septets.tolist()
    while at < len(values):
        if values[at] in _ESCAPED:
            following = values[at + 1] if at + 1 < len(values) else 0
            text.append(_FIRST_ESCAPE + (_ESCAPED.index(values[at]) << 7) + following)
            at += 2
        else:
            text.append(values[at])
            at += 1
    return "".join(map(chr, text))


def unpack(text: str, size: int) -> bytes:
    """Read back the `size` bytes that `pack` wrote.

    Raises:
        DataError: If the text holds other characters or too few.
    """
    septets: list[int] = []
    for char in text:
        code = ord(char)
        if code < 128:
            septets.append(code)
        elif 0 <= code - _FIRST_ESCAPE < len(_ESCAPED) << 7:
            septets += [_ESCAPED[(code - _FIRST_ESCAPE) >> 7], code & 127]
        else:
            raise DataError(f"expected text that `pack` wrote, got the character {char!r}")
    bits = np.unpackbits(np.array(septets, np.uint8)[:, None], axis=1)[:, 1:].ravel()
    if len(bits) < 8 * size:
        raise DataError(f"expected {size} bytes as text, got {len(bits) // 8}")
    return np.packbits(bits[: 8 * size]).tobytes()


def named_labels(contents: SqzFile) -> bytes:
    """The names, deflated, for a file that only states that its classes are ImageNet's; else nothing."""
    if contents.labels is None or "set" not in contents.labels.to_dict():
        return b""
    return zlib.compress("\n".join(imagenet_labels().names).encode(), 9)


def _block(name: str, data: bytes) -> str:
    return f'<script type="text/plain" id="{name}" data-bytes="{len(data)}">{pack(data)}</script>\n'


def _check_sum(contents: SqzFile) -> int:
    """Checksum that the page's test expects: Adler-32 of the logits of a synthetic photo."""
    size = contents.network.spec.input_size
    pixels = (np.arange(size * size * 3, dtype=np.uint32) * np.uint32(2654435761) >> 24).astype(np.uint8)
    engine = NativeEngine if native_kernels() else ReferenceEngine
    logits = engine(contents.network).logits(pixels.reshape(1, size, size, 3))
    return zlib.adler32(logits.astype("<f8").tobytes())


def _policy(scripts: tuple[str, ...], styles: tuple[str, ...]) -> str:
    def sha256(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (  # the image is the icon
        f"default-src 'none'; script-src {' '.join(map(sha256, scripts))} 'wasm-unsafe-eval';"
        f" style-src {' '.join(map(sha256, styles))};"
        " worker-src blob:; img-src data:; connect-src 'none'; base-uri 'none'; form-action 'none';"
        " require-trusted-types-for 'script'; trusted-types squeezenet"
    )


def join_sources(*names: str) -> str:
    """Join sources without indentation, blank lines and whole-line comments; they have no texts of several lines."""
    lines = (line.strip() for name in names for line in (PARTS / name).read_text().splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))
