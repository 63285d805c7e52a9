"""The engine's part of exported C: its files pasted into one text, all functions static.

The text is enclosed in an include guard, and its names begin with `squeezenet_` and its checksum. Networks exported
in the same form by the same version, and included into one file, thus share one engine; others do not collide.
"""

from __future__ import annotations

import functools
import re
import zlib
from pathlib import Path

__all__ = ["ENGINE_FILES", "add_prefix", "engine_text"]

_RUN = ("squeezenet.h", "sqz_internal.h", "kernels_rows.c", "kernels_small.c", "sqz_unknown.c")
ENGINE_FILES = {
    "flash": (*_RUN, "sqz_run.c"),
    "coded": (*_RUN, "sqz_range.h", "sqz_weights.h", "sqz_pack.c", "sqz_coded.c", "sqz_run.c"),
    "ram": (
        *_RUN[:2], "sqz_hash.c", *_RUN[2:4], "kernels.c", "sqz_range.h", "sqz_weights.h", "sqz_decode.c",
        "sqz_schedule.c", "sqz_plan.c", "sqz_pack.c", "sqz_unknown.c", "sqz_parse.c", "sqz_run.c", "sqz_model.c",
    ),
}  # fmt: skip
"""Source files for each form; each file uses only definitions of the files before it."""

# What names of the engine begin with.
_PREFIXES = "sqz|squeezenet|coded|decode|hash|kernels|model|pack|parse|plan|run|schedule|small|unknown"
_COMMENT = r"(?:^/\*(?:[^*]|\*(?!/))*\*/\n)?"
_PROTOTYPE = re.compile(
    _COMMENT + r"^(?:SQZ_API )?(?!typedef|static|extern|SQZ_INLINE)((?:\w+ )+\*?(sqz_\w+)\([^;{}]*\);.*\n)",
    re.MULTILINE,
)
_DEFINITION = re.compile(r"^(?!typedef|static|SQZ_INLINE)((?:\w+ )+\*?(sqz_\w+)\([^;{}]*\)\s*\{)", re.MULTILINE)


@functools.cache
def engine_text(form: str) -> tuple[str, str]:
    """Build the engine of a form.

    Args:
        form: A key of `ENGINE_FILES`.

    Returns:
        The text, and the prefix of its names.

    Raises:
        FileNotFoundError: If the engine's sources are not installed.
    """
    files = [_read(file) for file in ENGINE_FILES[form]]
    defined = {name for text in files for _, name in _DEFINITION.findall(text)}

    def declare(match: re.Match[str]) -> str:
        return f"static SQZ_UNUSED {match[1]}" if match[2] in defined else ""

    text = "\n".join([_read("prelude.c", "c") + ("#define SQZ_CODED 1\n" if form == "coded" else ""), *files])
    text = _PROTOTYPE.sub(declare, text)
    text = _DEFINITION.sub(r"static \1", text)
    text = re.sub(r"^extern const sqz_kernels .*;\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^const sqz_kernels ", "static const sqz_kernels ", text, flags=re.MULTILINE)
    prefix = f"squeezenet_{zlib.crc32(text.encode()):08x}"
    guard = f"{prefix.upper()}_SQZ_ENGINE"
    return f"#ifndef {guard}\n#define {guard}\n{add_prefix(text, prefix)}\n#endif\n", prefix


def add_prefix(code: str, prefix: str) -> str:
    """The code with the engine's functions, types, constants and macros named after `prefix`."""

    def renamed(match: re.Match[str]) -> str:
        start = f"{prefix}_sqz_" if match[0].islower() else f"{prefix.upper()}_SQZ_"
        return start if match[0] in ("sqz_", "SQZ_") else start + match[0]

    return re.sub(rf"\b(({_PREFIXES})_(?=[a-z])|({_PREFIXES.upper()})_(?=[A-Z]))", renamed, code)


def _read(file: str, folder: str = "") -> str:
    if folder:
        return Path(__file__).with_name(folder).joinpath(file).read_text(encoding="utf-8")
    installed = Path(__file__).with_name("csrc")
    path = (installed if installed.is_dir() else Path(__file__).parents[3] / "csrc") / file
    text = path.read_text(encoding="utf-8")
    return re.sub(r'^#include "(squeezenet|sqz_internal|sqz_range|sqz_weights)\.h"\n', "", text, flags=re.MULTILINE)
