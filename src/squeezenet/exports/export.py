"""`squeezenet.export`: convert a network to another form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from ..classifier import Classifier, sqz_path
from ..data import ImageSet, decode_batches, open_data
from ..errors import DataError
from ..evaluation.evaluate import Data
from ..evaluation.predictor import Model
from ..fileformat import SqzFile, encode_sqz, read_encoded
from ..files import write_together
from ..memory import Weights
from ..network import FloatNetwork
from ..zoo import find_model
from .c_source import CSource, build_c_source
from .onnx_graph import build_onnx_float, build_onnx_int8, pooling_warnings
from .tflite_graph import build_tflite
from .web_page import PageSizes, build_page
from .web_script import build_script

if TYPE_CHECKING:
    from ..models import SqueezeNet

__all__ = ["TARGET_SUFFIXES", "Exported", "Target", "export", "read_compressed"]

Target = Literal["web", "js", "c", "onnx", "tflite", "safetensors"]
TARGET_SUFFIXES: dict[str, Target] = {
    ".html": "web", ".htm": "web", ".js": "js", ".c": "c", ".onnx": "onnx", ".tflite": "tflite",
    ".safetensors": "safetensors",
}  # fmt: skip


_RANGE_PHOTOS = 200
_RANGE_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The files that were written, and details about them."""

    to: Target
    files: tuple[Path, ...]
    details: PageSizes | CSource | None = None
    """For a page, the sizes of its parts; for C source, the memory that the network needs."""
    warnings: tuple[str, ...] = ()
    """Differences to expect in programs that read the file."""


def export(
    model: Model,
    output: str | os.PathLike[str],
    *,
    to: Target | None = None,
    precision: Literal["float", "int8"] | None = None,
    name: str | None = None,
    photos: Data | None = None,
    weights: Weights | None = None,
    max_ram: int | None = None,
    max_flash: int | None = None,
) -> Exported:
    """Convert a network to another form; if several files are written, either all of them appear or none.

    Args:
        model: For `web`, `js`, `c`, `tflite` and int8, a `.sqz` file, the name of a network of the package, or the
            contents of a file; for the others any MODEL (see `find_model`) or a torch model.
        output: The file to write.
        to: `web` (one HTML page), `js` (a script for your own pages and for Node), `c` (a C99 source and its header),
            `onnx`, `tflite` (int8) or `safetensors`; by default the form that the suffix of `output` stands for.
        precision: For `onnx`: `float` (the default), or `int8` for the integers of a compressed network.
        name: For `c`, the prefix of all names; for `js`, the variable that the script defines. By default derived from
            the name of `output`.
        photos: For `tflite`: images on which the range of the head's sums is measured, so that the head is int8 too.
            Without them the head is float, and the logits are those of the engines.
        weights: For `c`: `flash`, `ram` or `coded`, see `build_c_source`; by default the fastest form that fits.
        max_ram: For `c`: largest RAM for arena, stack and logits together, bytes.
        max_flash: For `c`: largest flash memory for code and constants together, bytes.

    Raises:
        DataError: If the target is unknown, an option does not apply to it, the model has no integers, no form fits
            the limits, or a C header would replace that of another source.
        ModelNotFoundError: If there is no such model.
        FormatError: If a `.sqz` file is damaged.
        MissingDependencyError: If the target needs a package that is not installed.
        OSError: If a file cannot be read or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export("cifar10", Path(folder) / "net.html").to
        'web'
    """
    output = Path(output)
    target = _target_of(output, to)
    for_c = {"name": None if target == "js" else name, "weights": weights, "max_ram": max_ram, "max_flash": max_flash}
    _check_options(target, {"onnx": {"precision": precision}, "tflite": {"photos": photos}, "c": for_c})
    if target == "c":
        return _export_c(model, output, name, weights, max_ram, max_flash)
    if target == "onnx":
        return _export_onnx(model, output, precision or "float")
    if target in ("web", "js"):
        return _export_for_browsers(model, output, target, name)
    if target == "tflite":
        return _export_tflite(model, output, photos)
    from ..models import save_safetensors

    save_safetensors(_load_folded(model), output)
    return Exported(to=target, files=(output,))


def _target_of(output: Path, to: Target | None) -> Target:
    target = to or TARGET_SUFFIXES.get(output.suffix.lower())
    if target not in get_args(Target):
        suffixes = ", *".join(sorted(suffix for suffix in TARGET_SUFFIXES if suffix != ".htm"))
        raise DataError(f"expected `to`, or an output named *{suffixes}, got {str(output)!r}")
    return cast(Target, target)


def _check_options(target: Target, options_of: Mapping[Target, Mapping[str, object]]) -> None:
    for goes_with, options in options_of.items():
        for option, value in options.items():
            if value is not None and target != goes_with:
                raise DataError(f"`{option}` applies to {goes_with}, not to {target}: leave it out (got {value!r})")


def _export_c(
    model: Model, output: Path, name: str | None, weights: Weights | None, max_ram: int | None, max_flash: int | None
) -> Exported:
    if output.suffix != ".c":
        raise DataError(f"expected an output named *.c, got {str(output)!r}")
    data, contents = read_compressed(model)
    source = build_c_source(
        data, name or _identifier(output.stem), contents, weights=weights, max_ram=max_ram, max_flash=max_flash
    )
    header = output.with_name(f"{source.name}.h")  # the name that the source includes
    if output.stem != source.name and header.exists() and not _includes(output, header):
        raise DataError(f"{header} exists and is of another source than {output.name}: choose a name with --name")
    write_together({output: source.source.encode(), header: source.header.encode()})
    return Exported(to="c", files=(output, header), details=source)


def _includes(source: Path, header: Path) -> bool:
    return source.exists() and f'#include "{header.name}"' in source.read_text(encoding="utf-8", errors="replace")


def _export_for_browsers(model: Model, output: Path, target: Target, name: str | None) -> Exported:
    data, contents = read_compressed(model)
    if target == "js":
        text, sizes = build_script(data, name or _identifier(output.stem), contents), None
    else:
        text, sizes = build_page(data, contents, title=output.stem)
    write_together({output: text})
    return Exported(to=target, files=(output,), details=sizes)


def _export_tflite(model: Model, output: Path, photos: Data | None) -> Exported:
    contents = read_compressed(model)[1]
    head_range = None if photos is None else _head_range(contents, photos)
    write_together({output: build_tflite(contents, head_range=head_range)})
    return Exported(to="tflite", files=(output,))


def _export_onnx(model: Model, output: Path, precision: str) -> Exported:
    if precision not in ("float", "int8"):
        raise DataError(f"expected `precision` to be float or int8, got {precision!r}")
    if precision == "int8":
        contents = read_compressed(model)[1]
        spec, graph = contents.network.spec, build_onnx_int8(contents)
    else:
        network = _float_network(model)
        spec, graph = network.spec, build_onnx_float(network)
    write_together({output: graph})
    return Exported(to="onnx", files=(output,), warnings=tuple(pooling_warnings(spec)))


def _head_range(contents: SqzFile, photos: Data) -> tuple[float, float]:
    """Smallest and largest value of the class activation maps of some photos."""
    images = photos if isinstance(photos, ImageSet) else open_data(photos, unlabelled=True)
    classifier = Classifier(contents)
    chosen = images.sample(_RANGE_PHOTOS)
    ranges = [
        (maps.min(), maps.max())
        for batch in decode_batches(chosen, classifier.preprocessing, batch_size=_RANGE_BATCH)
        if len(batch.pixels)
        for maps in [classifier.activation_maps(batch.pixels)]
    ]
    if not ranges:
        raise DataError(f"{images.name}: expected photos to measure the head's range on, got none that can be read")
    return float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))


def _load_folded(model: Model) -> SqueezeNet:
    from ..models import SqueezeNet, fold_batch_norm, load_model
    from ..models.integer import dequantize

    if isinstance(model, SqzFile):
        return dequantize(model)
    loaded = model if isinstance(model, SqueezeNet) else load_model(model)
    return fold_batch_norm(loaded)


def _float_network(model: Model) -> FloatNetwork:
    if _is_sqz(model):  # which needs no torch
        contents = read_compressed(model)[1]
        return contents.network.dequantize(contents.preprocessing_or_default, contents.labels)
    from ..models import float_network

    return float_network(_load_folded(model))


def _is_sqz(model: Model) -> bool:
    if isinstance(model, (str, os.PathLike)):
        return find_model(model).kind in ("sqz", "imagenet")
    return isinstance(model, SqzFile)


def read_compressed(model: Model) -> tuple[bytes, SqzFile]:
    """Read the bytes and the contents of a compressed network.

    Raises:
        ModelNotFoundError: If there is no such file or name, or it is a float network.
        DataError: If it is a float network in memory.
        FormatError: If the file is damaged.
    """
    if isinstance(model, SqzFile):
        return encode_sqz(model), model
    if not isinstance(model, (str, os.PathLike)):
        raise DataError(f"expected a compressed network, got {type(model).__name__}: call `compress` on it first")
    return read_encoded(sqz_path(model))


def _identifier(text: str) -> str:
    """A C identifier made from a file's name."""
    word = re.sub(r"[^A-Za-z0-9_]+", "_", text)
    if not word.strip("_"):  # of other letters alone
        return "network"
    return f"_{word}" if word[:1].isdigit() else word
