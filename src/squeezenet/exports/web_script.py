"""One script that classifies photos on a page of your own or in Node: the page's engine, model and class names.

Binary parts are in base64, so the file is ASCII and works with any encoding that a server declares. Compression by the
server removes most of what base64 adds.
"""

from __future__ import annotations

import base64
import json
import re
import zlib

from ..errors import DataError
from ..fileformat import SqzFile, decode_sqz
from .web_page import PARTS, STRICT, join_sources, named_labels

__all__ = ["build_script"]

_USAGE = """\
// {name}: an image classifier, written by `squeezenet export`. It makes no network requests.
//   const {{ top, unknown }} = await {name}.classify(image);   // top: [{{ label, probability, index }}, ...]
// image: a Blob or File, <img>, <canvas>, <video>, ImageBitmap, or RGBA pixels {{ width, height, data }}.
// Node cannot decode images; pass pixels there.
"""


def build_script(data: bytes, name: str, contents: SqzFile | None = None) -> bytes:
    """Write a model and the WebAssembly engine as one script.

    Args:
        data: A whole `.sqz` file.
        name: The global variable that the script defines.
        contents: The same file decoded, if the caller has it already.

    Raises:
        DataError: If `name` is not a plain identifier.
        FormatError: If the file is damaged or no `.sqz` file.
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
        raise DataError(f"expected letters, digits and _ for `name`, got {name!r}: choose one with --name")
    parts = {wasm: zlib.compress((PARTS / f"{wasm}.wasm").read_bytes(), 9) for wasm in ("engine", "relaxed")}
    parts |= {"model": data, "labels": named_labels(contents or decode_sqz(data))}
    embedded = {"name": name, **{part: base64.b64encode(content).decode() for part, content in parts.items()}}
    program = join_sources("engine.js", "inflate.js", "photos.js", "worker.js", "embed.js")
    text = f"{_USAGE.format(name=name)}(() => {{{STRICT}const embedded = {json.dumps(embedded)};\n{program}\n}})();\n"
    return text.encode()
