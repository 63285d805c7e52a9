"""`squeezenet import`: a network of another program, and what is known about it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import DataError
from ..labels import Labels
from ..text import printable
from ..zoo import RUN_WEIGHTS, find_model

if TYPE_CHECKING:
    from ..models import SqueezeNet


@click.command("import")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .safetensors file.")
@click.option(
    "--check", multiple=True, metavar="DATA",
    help="Labelled photos on which the usual preprocessings are tried; the best one is used; repeatable.",
)  # fmt: skip
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Text file of class names, one per line, in output order."
)
@click.option(
    "--mean", metavar="R,G,B", help="Mean to subtract, for pixels from 0 to 1, as in torchvision, or from 0 to 255."
)
@click.option("--std", metavar="R,G,B", help="Standard deviation to divide by, in the same units.")
@click.option("--resize", metavar="N", help="Size of the shorter side before the centre crop; NxN scales both sides.")
@click.option(
    "--bypass", type=click.Choice(["none", "simple"]), default="none", show_default=True,
    help="Bypass of the network in a torch file, which does not reveal a simple one.",
)  # fmt: skip
def command(
    weights: Path, output: Path, check: tuple[str, ...], labels: Path | None, mean: str | None, std: str | None,
    resize: str | None, bypass: str,
) -> None:  # fmt: skip
    """Convert a network of another program to safetensors.

    \b
    torch    state dicts and checkpoints (.pth, .pt, .ckpt, ...) of torchvision, Lightning, ...
    ONNX     files of the model zoo and exports from torch, in floats or quantised
    Keras    .keras and .h5
    Caffe    .caffemodel, and the authors' compressed .net
    ncnn     .param and .bin
    TFLite   .tflite, in floats or quantised

    No code in the file is run. The output has the preprocessing that is usual for the file's
    origin, unless --check finds a better one or --mean, --std and --resize set it.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError(f"expected an output named *.safetensors, got {printable(str(output))}")
    changes = _normalisation(mean, std) | _resize(resize)
    from ..evaluation.imported import import_weights

    if weights.name.startswith("checkpoint.") and any((weights.parent / name).is_file() for name in RUN_WEIGHTS):
        find_model(weights)  # says that the run folder is the MODEL
    names = None if labels is None else _read_labels(labels)
    imported = import_weights(weights, check=check or None, labels=names, bypass=bypass)  # type: ignore[arg-type]
    model = imported.model
    _change_preprocessing(model, changes)
    imported.write(output)
    click.echo(f"{printable(str(output))}: {printable(model.spec.name)}, {model.spec.num_classes} classes")
    if imported.format not in ("safetensors", "net"):
        click.echo(f"format: {imported.format}, tensor names: {printable(imported.names)}")
    if imported.notes:
        click.echo(f"notes: {', '.join(map(printable, imported.notes))}")
    for name, top1, right in imported.rows():
        click.echo(f"  {name:<16} {top1:>7}  {right}")
    if (how := model.preprocessing) is not None:
        origin = "as given" if changes else imported.preprocessing_from
        if origin == "a guess":
            origin = "torchvision's, a guess: verify it with --check PHOTOS"
        size = f"{how.resize_size}x{how.resize_size}" if how.resize_mode == "squash" else how.resize_size
        normalised = f"mean {_shown(how.mean)}, std {_shown(how.std)}"
        click.echo(f"preprocessing: {origin} (resize {size}, crop {how.crop_size}, {normalised})")


def _shown(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"


def _normalisation(mean: str | None, std: str | None) -> dict[str, object]:
    given = {name: _three_numbers(f"--{name}", text) for name, text in (("mean", mean), ("std", std)) if text}
    # Zeros and ones alone do not tell the units.
    in_pixels = {max(values) > 1 for values in given.values() if max(values) not in (0, 1)}
    if len(in_pixels) > 1:
        raise click.UsageError("expected --mean and --std both from 0 to 1 or both from 0 to 255, got one of each")
    factor = 1 if True in in_pixels else 255
    return {name: tuple(factor * value for value in values) for name, values in given.items()}


def _three_numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in re.split(r"[,\s]+", text.strip("[]() ")))
    except ValueError:
        values = ()
    if len(values) != 3 or not all(0 <= value <= 255 for value in values) or (option == "--std" and min(values) == 0):
        raise click.UsageError(f"expected {option} as R,G,B, such as 0.5,0.5,0.5, got {printable(text)}")
    return values


def _resize(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    found = re.fullmatch(r"(\d{1,5})(x\1)?", text)
    if not found:
        raise click.UsageError(f"expected --resize as N, or NxN for a square, got {printable(text)}")
    return {"resize_size": int(found[1]), "resize_mode": "squash" if found[2] else "short_side"}


def _change_preprocessing(model: SqueezeNet, changes: dict[str, object]) -> None:
    if changes:
        from ..preprocess import Preprocessing

        before = model.preprocessing or Preprocessing.plain(model.spec.input_size)
        model.preprocessing = dataclasses.replace(before, **changes)  # type: ignore[arg-type]


def _read_labels(path: Path) -> Labels:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as text ({error})", source=printable(str(path))) from None
    if not names or not all(names):
        got = "an empty line" if names else "an empty file"
        raise DataError(f"expected class names, one per line, got {got}", source=printable(str(path)))
    return Labels(tuple(names))
