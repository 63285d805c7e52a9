"""A network as two C files: the engine in one piece, and the model.

The source is C99 without malloc, threads or files. All memory but the stack is one arena that the caller owns, whose
size is a constant of the header. The model's weights have one of these forms:

    flash  constants that are multiplied where they are: the least RAM and no time to open
    ram    the `.sqz` file, decoded into the arena when it is opened: the least flash memory
    coded  the file's weights, decoded anew for each image: little of both
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine import NativeEngine, measure_memory
from ..errors import DataError
from ..fileformat import SqzFile, decode_sqz
from ..memory import WEIGHTS, ChipMemory, CodedForm, Weights, chip_memory, coded_form, small_engine
from ..network import IntegerNetwork
from .c_constants import model_constants, write_array
from .c_engine import add_prefix, engine_text

__all__ = ["CSource", "build_c_source"]

_DESCRIPTIONS = {
    "flash": "constants, multiplied where they are",
    "ram": "a .sqz file, decoded into the arena",
    "coded": "constants, decoded for each image",
}
_ALIGN = 64  # SQZ_ALIGN
_KEYWORDS = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|main|"
    "register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|volatile|while"
)


@dataclass(frozen=True, kw_only=True)
class CSource:
    """The two files, and the memory that the network needs."""

    name: str
    header: str
    source: str
    input_size: int
    model_bytes: int
    """Size of the `.sqz` file that the source was made from."""
    memory: ChipMemory

    @property
    def arena_bytes(self) -> int:
        """Size of the arena, which is all memory except stack and results; a constant of the header."""
        return self.memory.arena_bytes


def build_c_source(
    data: bytes,
    name: str,
    contents: SqzFile | None = None,
    *,
    weights: Weights | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
) -> CSource:
    """Write a model and the engine as C.

    Args:
        data: A whole `.sqz` file.
        name: Prefix of all names, a C identifier.
        contents: The same file, decoded, if it is available.
        weights: `flash`, constants that are multiplied where they are, `ram`, decoded when the network is opened, or
            `coded`, decoded for each image; by default the fastest that fits the limits.
        max_ram: Bytes of RAM that arena, stack and logits may take together.
        max_flash: Bytes of flash memory that code and constants may take.

    Raises:
        DataError: If `name` is not a C identifier, there is no such form, or none fits the limits.
        FormatError: If the file is damaged or not a `.sqz` file.
        ImportError: If the native engine, which computes how much memory a network takes, was not built.
        FileNotFoundError: If the engine's sources are not installed.
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII) or _KEYWORDS.fullmatch(name):
        raise DataError(f"expected a C identifier for `name`, got {name!r}: choose one with --name")
    if weights not in (None, *WEIGHTS):
        raise DataError(f"expected `weights` to be one of {', '.join(WEIGHTS)}, got {weights!r}")
    contents = contents or decode_sqz(data)
    memory, coded = _choose(data, contents, weights, max_ram, max_flash)
    engine, prefix = engine_text(memory.weights)
    words = _words(contents, name, memory)
    model = _model(data, contents.network, memory.weights, coded)
    opening = "ram" if memory.weights == "ram" else "flash"
    source = [*model, *_labels(contents), *_unknown_rule(contents), _read("start.c"), _read(f"{opening}.c")]
    return CSource(
        name=name, header=_fill(_read("header.h"), words, prefix), memory=memory, model_bytes=len(data),
        source=_fill(_read("top.c"), words, prefix) + engine
        + _fill("\n".join([*source, _read("interface.c")]), words, prefix),
        input_size=contents.network.spec.input_size,
    )  # fmt: skip


def _model(data: bytes, network: IntegerNetwork, weights: Weights, coded: CodedForm | None) -> Iterator[str]:
    if weights == "ram":
        return write_array(f"static const unsigned char own_file[{len(data)}]", data)
    return model_constants(small_engine(network)) if coded is None else model_constants(coded.engine, coded)


def _choose(
    data: bytes, contents: SqzFile, weights: Weights | None, max_ram: int | None, max_flash: int | None
) -> tuple[ChipMemory, CodedForm | None]:
    tried = list[ChipMemory]()
    for form in (weights,) if weights else WEIGHTS:  # one after the other: `coded` encodes the weights to know
        coded = coded_form(contents.network) if form == "coded" else None
        memory = chip_memory(contents, len(data), form, coded)
        if memory.ram_bytes <= (max_ram or memory.ram_bytes) and memory.flash_bytes <= (
            max_flash or memory.flash_bytes
        ):
            return memory, coded
        tried.append(memory)
    needs = "; ".join(
        f"{memory.weights} takes {memory.ram_bytes:,} bytes of RAM and {memory.flash_bytes:,} of flash memory"
        for memory in tried
    )
    limits = " and ".join(
        f"`{option}` of {limit:,}" for option, limit in (("max_ram", max_ram), ("max_flash", max_flash)) if limit
    )
    raise DataError(f"expected a form that fits {limits}: {needs}")


def _words(contents: SqzFile, name: str, memory: ChipMemory) -> dict[str, object]:
    spec = contents.network.spec
    return {
        "name": name, "NAME": name.upper(), "size": spec.input_size, "classes": spec.num_classes,
        "map": measure_memory(contents.network, kernels="small").map_size, "features": spec.num_features,
        "arena": memory.arena_bytes, "stack": memory.stack_bytes, "ram": memory.ram_bytes,
        "constants": memory.constant_bytes, "code": memory.code_bytes, "flash": memory.flash_bytes,
        "weights_are": _DESCRIPTIONS[memory.weights],
        "damaged": "" if memory.weights != "ram" else " or the program's copy of the model is damaged",
        "preprocessing": _describe_preprocessing(contents), "temperature": repr(contents.temperature),
        "below": _unknown_below(contents, name), "has_unknown": int(contents.unknown is not None),
        "test_hash": _test_hash(contents.network),
    }  # fmt: skip


def _test_hash(network: IntegerNetwork) -> int:
    """Hash of the logits that `NAME_selftest` computes, see interface.c."""
    size = network.spec.input_size
    rows = np.arange(size, dtype=np.uint32)
    state, pixels = rows * np.uint32(2654435761), np.empty((size, 3 * size), np.uint8)
    for i in range(3 * size):
        state = state * np.uint32(1664525) + np.uint32(1013904223)
        pixels[:, i] = (state >> np.uint32(25)) + ((rows + np.uint32(i)) & np.uint32(127))
    logits = NativeEngine(network, threads=1).logits(pixels.reshape(1, size, size, 3))
    value = 14695981039346656037
    for bits in logits.view(np.uint64).ravel().tolist():
        value = (value ^ bits) * 1099511628211 % (1 << 64)
    return value


def _labels(contents: SqzFile) -> Iterator[str]:
    labels = contents.class_names
    yield f"static const char *const own_labels[{len(labels)}] = {{"
    yield from (f"    {_c_string(label)}," for label in labels)
    yield "};\n"


def _unknown_rule(contents: SqzFile) -> Iterator[str]:
    """The rule for "none of these" as constants; one of no vectors where the file has none."""
    rule = contents.unknown
    body = rule.encode()[3:] if rule else b"\0"
    count, threshold = (len(rule.vectors), rule.threshold) if rule else (0, 0)
    yield from write_array(f"static const uint8_t own_vectors[{len(body)}]", body)
    features = contents.network.spec.num_features
    yield f"static const sqz_unknown own_rule = {{own_vectors, {count}, {features}, {threshold}}};"


def _unknown_below(contents: SqzFile, name: str) -> str:
    """A line of the header for files that have a probability instead of a rule."""
    if contents.unknown is not None or contents.unknown_below is None:
        return ""
    return (
        "/* If the largest probability is below this, the image probably shows none of the classes. */\n"
        f"#define {name.upper()}_UNKNOWN_BELOW {contents.unknown_below!r}\n"
    )


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


def _read(file: str) -> str:
    return Path(__file__).with_name("c").joinpath(file).read_text(encoding="utf-8")


def _fill(template: str, words: dict[str, object], prefix: str) -> str:
    """The engine's names with its prefix, then the network's with its own."""
    named = re.compile("^(?![-0-9]).*$", re.MULTILINE)  # lines of numbers are most of a model

    def name_all(match: re.Match[str]) -> str:
        text = re.sub(r"\bown_(?=[a-z])", "@name@_own_", add_prefix(match[0], prefix))
        return re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), text)

    return named.sub(name_all, template)
