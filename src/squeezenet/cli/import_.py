"""`squeezenet import`: read a torch file, once and on purpose."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import printable


@click.command("import")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .safetensors file.")
def command(weights: Path, output: Path) -> None:
    """Turn a torch state dict (.pth, of torchvision's naming) or the authors' .net file into safetensors.

    No code in the file is run: it is read with weights_only. The output holds the preprocessing of the file's origin:
    torchvision's, or that of the authors' Caffe network.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError(f"expected an output named *.safetensors, got {printable(str(output))}")
    from ..models import import_pth, load_model, save_safetensors

    model = import_pth(weights) if weights.suffix in (".pth", ".pt") else load_model(weights)
    save_safetensors(model, output)
    click.echo(f"{printable(str(output))}: {printable(model.spec.name)}, {model.spec.num_classes} classes")
    if (how := model.preprocessing) is not None and weights.suffix != ".safetensors":
        click.echo(
            f"preprocessing: taken to be that of {'the authors' if weights.suffix == '.net' else 'torchvision'}"
            f" (resize {how.resize_size}, crop {how.crop_size}, mean {how.mean}, std {how.std})"
        )
