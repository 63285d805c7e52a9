"""A network as two C files: the `.sqz` bytes as an array, and the portable engine in one piece.

The source is C99 without malloc, threads or files. All memory is one arena that the caller owns, whose size is a
constant of the header: weights once they are decoded, and the activations of one image. Every name begins with the
prefix, so that several exported networks can be linked into one program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..engine import measure_memory
from ..errors import DataError
from ..fileformat import SqzFile, decode_sqz

__all__ = ["CSource", "build_c_source"]

STACK_BYTES = 8_192
"""What opening and running take of the stack at most, compiled with -O1 or more; a test measures it."""

# In the order in which they define what the next ones use.
_FILES = (
    "squeezenet.h", "sqz_internal.h", "sqz_hash.c", "kernels_rows.c", "kernels_small.c",
    "kernels.c", "sqz_threads.c", "sqz_decode.c",
    "sqz_schedule.c", "sqz_plan.c", "sqz_pack.c", "sqz_unknown.c", "sqz_parse.c", "sqz_run.c", "sqz_model.c",
)  # fmt: skip
# What names of the engine begin with.
_PREFIXES = "sqz|squeezenet|decode|hash|kernels|model|pack|parse|plan|run|schedule|small|threads|unknown"
_ALIGN = 64  # SQZ_ALIGN
_KEYWORDS = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|main|"
    "register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while"
)


@dataclass(frozen=True, kw_only=True)
class CSource:
    """The two files and what they need."""

    name: str
    header: str
    source: str
    input_size: int
    model_bytes: int
    """Of the `.sqz` file inside the source."""
    arena_bytes: int
    """Peak memory beside the stack: a constant of the header."""
    weight_bytes: int
    """Of the arena: the model once decoded."""
    activation_bytes: int
    """Of the arena: activations, and before that the decoder."""
    stack_bytes: int = STACK_BYTES


def build_c_source(data: bytes, name: str, contents: SqzFile | None = None) -> CSource:
    """Write a model and the engine as C.

    Args:
        data: A whole `.sqz` file.
        name: Prefix of all names, a C identifier.
        contents: The same file decoded, if the caller has it already.

    Raises:
        DataError: If `name` is not a C identifier.
        FormatError: If the file is damaged or no `.sqz` file.
        ImportError: If the native engine, which computes how much memory a network takes, was not built.
        FileNotFoundError: If the engine's sources are not installed.
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or _KEYWORDS.fullmatch(name):
        raise DataError(f"expected a C identifier for `name`, got {name!r}: choose one with --name")
    contents = contents or decode_sqz(data)
    network = contents.network
    sizes = measure_memory(network, kernels="small", band_rows=1, streamed=-1)
    shared_bytes = max(sizes.load_bytes, sizes.arena_bytes)  # decoding is over when the first image comes
    arena_bytes = 2 * _ALIGN + sizes.model_bytes + shared_bytes
    labels = contents.class_names
    words = {
        "name": name, "NAME": name.upper(), "size": network.spec.input_size, "classes": network.spec.num_classes,
        "map": sizes.map_size, "arena": arena_bytes, "stack": STACK_BYTES, "features": network.spec.num_features,
        "preprocessing": _describe_preprocessing(contents), "temperature": repr(contents.temperature),
        "below": _unknown_below(contents, name), "has_unknown": int(contents.unknown is not None),
    }  # fmt: skip
    source = "\n".join(
        (
            _fill("prelude.c", words),
            *(_with_prefix(_engine_part(file), name) for file in _FILES),
            f"static const unsigned char {name}_sqz_file[{len(data)}] = {{",
            *("".join(f"{byte}," for byte in data[start : start + 30]) for start in range(0, len(data), 30)),
            "};\n",
            f"static const char *const {name}_sqz_labels[{len(labels)}] = {{",
            *(f"    {_c_string(label)}," for label in labels),
            "};\n",
            *_unknown_rule(contents, name),
            _fill("interface.c", words),
        )
    )
    return CSource(
        name=name, header=_fill("header.h", words), source=source, input_size=network.spec.input_size,
        model_bytes=len(data), arena_bytes=arena_bytes, weight_bytes=sizes.model_bytes, activation_bytes=shared_bytes,
    )  # fmt: skip


def _unknown_rule(contents: SqzFile, name: str) -> list[str]:
    """The rule for "none of these" as constants; one of no vectors where the file has none."""
    rule = contents.unknown
    body = rule.encode()[3:] if rule else b"\0"
    count, threshold = (len(rule.vectors), rule.threshold) if rule else (0, 0)
    return [
        f"static const uint8_t {name}_sqz_vectors[{len(body)}] = {{",
        *("".join(f"{byte}," for byte in body[start : start + 30]) for start in range(0, len(body), 30)),
        "};",
        f"static const {name}_sqz_unknown {name}_sqz_rule = {{",
        f"    {name}_sqz_vectors, {count}, {contents.network.spec.num_features}, {threshold}",
        "};\n",
    ]


def _unknown_below(contents: SqzFile, name: str) -> str:
    """A line of the header for files that have a probability instead of a rule."""
    if contents.unknown is not None or contents.unknown_below is None:
        return ""
    return (
        "/* Smallest probability of an answer that is better given than not. */\n"
        f"#define {name.upper()}_UNKNOWN_BELOW {contents.unknown_below!r}\n"
    )


def _engine_folder() -> Path:
    """`csrc` as it was installed with the package, or as it lies in the checkout."""
    installed = Path(__file__).with_name("csrc")
    return installed if installed.is_dir() else Path(__file__).parents[3] / "csrc"


def _engine_part(file: str) -> str:
    text = (_engine_folder() / file).read_text(encoding="utf-8")
    return re.sub(r'^#include "(squeezenet|sqz_internal)\.h"\n', "", text, flags=re.MULTILINE)


def _with_prefix(code: str, name: str) -> str:
    """The engine's code with its functions, types, constants and macros named after the network.

    Two networks can then be linked into one program, or included into one file, whatever their names are.
    """

    def renamed(match: re.Match[str]) -> str:
        prefix = f"{name}_sqz_" if match[0].islower() else f"{name.upper()}_SQZ_"
        return prefix if match[0] in ("sqz_", "SQZ_") else prefix + match[0]

    return re.sub(rf"\b(({_PREFIXES})_(?=[a-z])|({_PREFIXES.upper()})_(?=[A-Z]))", renamed, code)


def _c_string(text: str) -> str:
    """A string literal of printable ASCII: foreign text can neither end it nor form a trigraph."""
    plain = b" ,.'()-_:;/+&!"
    parts = (chr(byte) if chr(byte).isalnum() and byte < 128 or byte in plain else f"\\{byte:03o}" for byte in
             text.encode())  # fmt: skip
    return '"' + "".join(parts) + '"'


def _describe_preprocessing(contents: SqzFile) -> str:
    how = contents.preprocessing
    size = contents.network.spec.input_size
    if how is None or how.resize_size == how.crop_size:
        return f"the photo resized to {size}x{size}"
    side = (
        f"{how.resize_size}x{how.resize_size}" if how.resize_mode == "squash" else f"a short side of {how.resize_size}"
    )
    return f"the photo resized to {side} ({how.resample}), the middle {size}x{size} of it"


def _fill(file: str, words: dict[str, object]) -> str:
    template = _with_prefix((Path(__file__).with_name("c") / file).read_text(encoding="utf-8"), str(words["name"]))
    return re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), template)
