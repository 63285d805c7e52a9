"""A network as two C files: the `.sqz` bytes as an array, and the portable engine in one piece.

The source is C99 without malloc, threads or files. All memory is one arena that the caller owns, whose size is a
constant of the header: weights once they are decoded, and the activations of one image. Every name begins with the
prefix, so that several exported networks can be linked into one program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    "squeezenet.h", "sqz_internal.h", "sqz_hash.c", "kernels_scalar.c", "kernels.c", "sqz_threads.c", "sqz_decode.c",
    "sqz_plan.c", "sqz_pack.c", "sqz_parse.c", "sqz_run.c", "sqz_model.c",
)  # fmt: skip
_ALIGN = 64  # SQZ_ALIGN
_LINE_LENGTH = 120
_KEYWORDS = frozenset(
    (
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "main",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    )
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
        DataError: If `name` is no C identifier.
        FormatError: If the file is damaged or no `.sqz` file.
        ImportError: If the native engine, which knows how much memory a network takes, was not built.
        FileNotFoundError: If the engine's sources are not installed.
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or name in _KEYWORDS:
        raise DataError(f"expected a C identifier for `name`, got {name!r}: choose one with --name")
    contents = contents or decode_sqz(data)
    network = contents.network
    sizes = measure_memory(network, kernels="scalar")
    shared_bytes = max(sizes.load_bytes, sizes.arena_bytes)  # decoding is over when the first image comes
    arena_bytes = 2 * _ALIGN + sizes.model_bytes + shared_bytes
    labels = contents.labels.names if contents.labels else tuple(map(str, range(network.spec.num_classes)))
    words = {
        "name": name,
        "NAME": name.upper(),
        "size": network.spec.input_size,
        "classes": network.spec.num_classes,
        "map": sizes.map_size,
        "arena": arena_bytes,
        "stack": STACK_BYTES,
        "preprocessing": _describe_preprocessing(contents),
    }
    engine = "\n".join(_engine_part(file) for file in _FILES)
    engine = re.sub(r"\bsqz_", f"{name}_sqz_", engine)
    source = "\n".join(
        (
            _fill(_PRELUDE, words),
            engine,
            f"static const unsigned char {name}_sqz_file[{len(data)}] = {{",
            *_array(data),
            "};\n",
            f"static const char *const {name}_sqz_labels[{len(labels)}] = {{",
            *(f"    {_c_string(label)}," for label in labels),
            "};",
            _fill(_INTERFACE, words),
        )
    )
    return CSource(
        name=name,
        header=_fill(_HEADER, words),
        source=source,
        input_size=network.spec.input_size,
        model_bytes=len(data),
        arena_bytes=arena_bytes,
        weight_bytes=sizes.model_bytes,
        activation_bytes=shared_bytes,
    )


def _engine_folder() -> Path:
    """`csrc` as it was installed with the package, or as it lies in the checkout."""
    installed = Path(__file__).with_name("csrc")
    return installed if installed.is_dir() else Path(__file__).parents[3] / "csrc"


def _engine_part(file: str) -> str:
    text = (_engine_folder() / file).read_text(encoding="utf-8")
    return re.sub(r'^#include "(squeezenet|sqz_internal)\.h"\n', "", text, flags=re.MULTILINE)


def _array(data: bytes) -> Iterator[str]:
    line = ""
    for byte in data:
        if len(line) + 4 > _LINE_LENGTH:
            yield line
            line = ""
        line += f"{byte},"
    yield line


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


def _fill(template: str, words: dict[str, object]) -> str:
    return re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), template)


_HEADER = """\
/* @name@.h - an image classifier in one C file, written by `squeezenet export`.
 *
 *     static unsigned char arena[@NAME@_ARENA_BYTES];
 *     double logits[@NAME@_CLASSES];
 *     if (@name@_open(arena, sizeof arena)) return 1;
 *     @name@_run(arena, pixels, logits, NULL);
 *
 * No malloc, no files, no threads, no global state; at most @stack@ bytes of stack, compiled with -O1 or more. Compile
 * with -std=c99 and link nothing. Do not use -ffast-math, and where the compiler fuses products and sums, add
 * -ffp-contract=off: the logits are then bit-identical to those of every other engine. */
#ifndef @NAME@_H
#define @NAME@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_INPUT_SIZE @size@ /* height and width of the input */
#define @NAME@_CLASSES @classes@
#define @NAME@_MAP_SIZE @map@ /* height and width of the class activation map */
#define @NAME@_ARENA_BYTES @arena@ /* all memory there is, weights and activations */

/* Decodes the model into `arena` (any alignment, at least @NAME@_ARENA_BYTES), which must then stay as it is.
 * Returns 0, or a positive number if the arena is too small or the program's copy of the model is damaged. */
int @name@_open(void *arena, size_t bytes);

/* Classifies one image in an opened arena. Returns 0.
 *   pixels  RGB, @size@ rows of @size@: @preprocessing@
 *   logits  @NAME@_CLASSES scores, the highest wins
 *   map     where it sees each class: @map@ rows of @map@ positions of @classes@ values; or NULL */
int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map);

/* Name of a class, UTF-8; NULL for a number that is no class. */
const char *@name@_label(int index);

#ifdef __cplusplus
}
#endif
#endif
"""

_PRELUDE = """\
/* @name@.c - written by `squeezenet export`: the engine (C99, portable), then the model. See @name@.h.
 *
 * The engine is Apache-2.0; the model is whatever its author says. */
#include "@name@.h"

#define SQZ_PORTABLE_ONLY 1
#define SQZ_NO_THREADS 1
#define SQZ_API

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off") /* -std=c99 does it too; for those who build without */
#endif
"""

_INTERFACE = """
enum { @NAME@_IS_OPEN = 0x53515a31 };

/* What lies at the start of the arena. */
typedef struct {
    uint32_t state;
    @name@_sqz_model *model;
    void *shared; /* the decoder's memory, then the activations */
    size_t shared_bytes;
} @name@_sqz_state;

static uint8_t *@name@_sqz_align(void *at) {
    return (uint8_t *)at + (SQZ_ALIGN - (uintptr_t)at % SQZ_ALIGN) % SQZ_ALIGN;
}

int @name@_open(void *arena, size_t bytes) {
    @name@_sqz_header header;
    @name@_sqz_sizes sizes;
    @name@_sqz_state *state;
    uint8_t *memory;
    @name@_sqz_status status = @name@_sqz_read_header(@name@_sqz_file, sizeof @name@_sqz_file, NULL, &header);
    if (!arena) return SQZ_BAD_ARGUMENT;
    if (!status) status = @name@_sqz_measure(&header.spec, "scalar", 1, &sizes);
    if (status) return (int)status;
    if (bytes < @NAME@_ARENA_BYTES) return SQZ_NO_MEMORY;
    state = (@name@_sqz_state *)(void *)@name@_sqz_align(arena);
    memory = (uint8_t *)state + SQZ_ALIGN;
    memset(state, 0, sizeof *state);
    state->shared = memory + sizes.model_bytes;
    state->shared_bytes = sizes.load_bytes > sizes.arena_bytes ? sizes.load_bytes : sizes.arena_bytes;
    status = @name@_sqz_create(&header.spec, "scalar", memory, sizes.model_bytes, &state->model);
    if (!status) status = @name@_sqz_load(state->model, &header, @name@_sqz_file, state->shared, state->shared_bytes);
    if (!status) state->state = @NAME@_IS_OPEN;
    return (int)status;
}

int @name@_run(void *arena, const uint8_t *pixels, double *logits, double *map) {
    @name@_sqz_state *state = arena ? (@name@_sqz_state *)(void *)@name@_sqz_align(arena) : NULL;
    if (!state || state->state != @NAME@_IS_OPEN) return SQZ_BAD_ARGUMENT;
    return (int)@name@_sqz_run(state->model, NULL, state->shared, state->shared_bytes, pixels, 1, logits, map);
}

const char *@name@_label(int index) {
    return index >= 0 && index < @NAME@_CLASSES ? @name@_sqz_labels[index] : NULL;
}
"""
