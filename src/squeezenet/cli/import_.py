"""`squeezenet import`: read a torch file, once and on purpose."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import DataError
from ..labels import Labels
from ..text import printable
from ..zoo import MODEL_SUFFIXES

if TYPE_CHECKING:
    from ..models import SqueezeNet


@click.command("import")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .safetensors file.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Text file of class names, one per line, in output order."
)
@click.option("--mean", metavar="R,G,B", help="Subtracted from pixels: from 0 to 1 as torchvision has it, or to 255.")
@click.option("--std", metavar="R,G,B", help="Divided by after that, in the same units.")
@click.option("--resize", metavar="N", help="Shorter side before the centre crop; NxN makes a square of both sides.")
def command(
    weights: Path, output: Path, labels: Path | None, mean: str | None, std: str | None, resize: str | None
) -> None:
    """Turn a torch state dict (.pth, of torchvision's naming) or the authors' .net file into safetensors.

    No code in the file is run: it is read with weights_only. Checkpoints are searched for the state dict, and prefixes
    of wrappers are taken off. The output holds the preprocessing of the file's origin (torchvision's, or that of the
    authors' Caffe network), as far as --mean, --std and --resize do not say otherwise.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError(f"expected an output named *.safetensors, got {printable(str(output))}")
    changes = _normalisation(mean, std) | _resize(resize)
    from ..models import import_pth, load_model, save_safetensors

    is_torch = weights.is_file() and weights.suffix.lower() not in MODEL_SUFFIXES
    model = import_pth(weights) if is_torch else load_model(weights)
    if labels is not None:
        model.labels = _read_labels(labels, model.spec.num_classes)
    _change_preprocessing(model, changes)
    save_safetensors(model, output)
    click.echo(f"{printable(str(output))}: {printable(model.spec.name)}, {model.spec.num_classes} classes")
    if "tensors" in model.provenance:
        click.echo(f"tensors: {printable(model.provenance['tensors'])}")
    if (how := model.preprocessing) is not None and (changes or weights.suffix.lower() != ".safetensors"):
        origin = f"taken to be that of {'the authors' if weights.suffix.lower() == '.net' else 'torchvision'}"
        size = f"{how.resize_size}x{how.resize_size}" if how.resize_mode == "squash" and changes else how.resize_size
        click.echo(
            f"preprocessing: {'as given' if changes else origin}"
            f" (resize {size}, crop {how.crop_size}, mean {how.mean}, std {how.std})"
        )


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


def _read_labels(path: Path, count: int) -> Labels:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as text ({error})", source=printable(str(path))) from None
    if len(names) != count or not all(names):
        got = f"{len(names)}" if all(names) else "an empty line"
        raise DataError(f"expected {count} class names, one per line, got {got}", source=printable(str(path)))
    return Labels(tuple(names))
