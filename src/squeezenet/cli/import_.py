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

    No code in the file is run: it is read with weights_only.
    """
    if output.suffix != ".safetensors":
        raise click.UsageError(f"expected an output named *.safetensors, got {printable(str(output))}")
    from ..models import import_pth, load_model, save_safetensors

    model = import_pth(weights) if weights.suffix in (".pth", ".pt") else load_model(weights)
    save_safetensors(model, output)
    click.echo(f"{printable(str(output))}: {printable(model.spec.name)}, {model.spec.num_classes} classes")
