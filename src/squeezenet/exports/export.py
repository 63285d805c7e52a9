"""The targets of `squeezenet export`: each reads a MODEL and writes files.

Use this when a model on disk should become a page, C source, ONNX or safetensors.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..fileformat import DEFAULT_LIMITS, SqzFile, read_sqz
from ..files import atomic_write
from ..preprocess import Preprocessing
from .c_source import STACK_BYTES, build_c_source
from .onnx_graph import FloatNetwork, build_onnx_float, build_onnx_int8, pooling_warnings
from .web_page import PageSizes, build_page

__all__ = ["WrittenC", "export_c", "export_onnx", "export_safetensors", "export_web"]

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class WrittenC:
    """A pair of C files and what their network needs."""

    header: Path
    model_bytes: int
    input_size: int
    arena_bytes: int
    weight_bytes: int
    activation_bytes: int
    stack_bytes: int = STACK_BYTES


def export_web(model: AnyPath, output: AnyPath) -> PageSizes:
    """Write the page of a `.sqz` file.

    Raises:
        DataError: If `model` is no `.sqz` file by its name.
        FormatError: If it is damaged.
        OSError: If a file cannot be read or written.
    """
    data, contents = _read_sqz_bytes(model, "a web page")
    page, sizes = build_page(data, contents)
    _write(output, page)
    return sizes


def export_c(model: AnyPath, output: AnyPath, *, name: str | None = None) -> WrittenC:
    """Write a `.sqz` file as `output`, which ends in `.c`, and a header beside it.

    Args:
        model: The file.
        output: Path of the source.
        name: Prefix of all names; by default made from the output's name.

    Raises:
        DataError: If `model` or `output` has another suffix, or `name` is no C identifier.
        FormatError: If the file is damaged.
        ImportError: If the native engine was not built.
        OSError: If a file cannot be read or written.
    """
    output = Path(output)
    if output.suffix != ".c":
        raise DataError(f"expected an output named *.c, got {str(output)!r}")
    data, contents = _read_sqz_bytes(model, "C source")
    source = build_c_source(data, name or _identifier(output.stem), contents)
    header = output.with_name(f"{source.name}.h")  # the name that the source includes
    _write(header, source.header.encode())
    _write(output, source.source.encode())
    return WrittenC(
        header=header,
        model_bytes=len(data),
        input_size=source.input_size,
        arena_bytes=source.arena_bytes,
        weight_bytes=source.weight_bytes,
        activation_bytes=source.activation_bytes,
    )


def export_onnx(model: AnyPath, output: AnyPath, *, precision: str = "float") -> list[str]:
    """Write a network as ONNX.

    Args:
        model: A `.sqz` file; for floats, any MODEL.
        output: Path of the `.onnx` file.
        precision: `float`, or `int8` for the integers of a `.sqz` file.

    Returns:
        Warnings for the user.

    Raises:
        DataError: If `model` has no integers but they are wanted.
        FormatError: If a `.sqz` file is damaged.
        MissingDependencyError: If `onnx` is not installed.
        OSError: If a file cannot be read or written.
    """
    if precision not in ("float", "int8"):
        raise ValueError(f"expected `precision` to be float or int8, got {precision!r}")
    if precision == "int8":
        contents = _read_sqz_bytes(model, "an int8 ONNX file")[1]
        _write(output, build_onnx_int8(contents))
        return pooling_warnings(contents.network.spec)
    network = FloatNetwork.from_sqz(read_sqz(model)) if _is_sqz(model) else _load_float(model)
    _write(output, build_onnx_float(network))
    return pooling_warnings(network.spec)


def export_safetensors(model: AnyPath, output: AnyPath) -> None:
    """Write any MODEL as floats under torchvision's names; `load_model` reads it back.

    Raises:
        SqueezeNetError: If the model cannot be read.
        OSError: If the file cannot be written.
    """
    from ..models import fold_batch_norm, load_model, save_safetensors

    loaded = load_model(model)
    save_safetensors(fold_batch_norm(loaded) if loaded.spec.batch_norm else loaded, output)


def _load_float(model: AnyPath) -> FloatNetwork:
    from ..models import fold_batch_norm, load_model

    loaded = load_model(model)
    folded = fold_batch_norm(loaded) if loaded.spec.batch_norm else loaded
    convs = {}
    for name, conv in folded.convs.items():
        assert conv.bias is not None  # folded networks have biases
        convs[name] = (conv.weight.detach().numpy(), conv.bias.detach().numpy())
    size = folded.spec.input_size
    how = folded.preprocessing or Preprocessing(crop_size=size, resize_size=size)
    return FloatNetwork(folded.spec, convs, how, folded.labels)


def _is_sqz(model: AnyPath) -> bool:
    return Path(model).suffix == ".sqz"


def _read_sqz_bytes(model: AnyPath, what: str) -> tuple[bytes, SqzFile]:
    if not _is_sqz(model):
        raise DataError(
            f"expected a .sqz file to make {what} of, got {os.fspath(model)!r}: run `squeezenet compress` on it first"
        )
    contents = read_sqz(model)
    with Path(model).open("rb") as stream:
        return stream.read(DEFAULT_LIMITS.file_bytes), contents


def _write(path: AnyPath, data: bytes) -> None:
    with atomic_write(path) as stream:
        stream.write(data)


def _identifier(text: str) -> str:
    """A C identifier that resembles a file's name."""
    word = re.sub(r"[^A-Za-z0-9_]+", "_", text)
    return f"_{word}" if word[:1].isdigit() else word
