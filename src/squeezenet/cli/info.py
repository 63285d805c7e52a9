"""`squeezenet info`: the layer table of an architecture, or the contents of a model file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from ..text import format_bytes, printable, table

if TYPE_CHECKING:
    from ..description import Description, FileFacts

_SHOWN_LABELS = 5


@click.command()
@click.argument("model", metavar="NAME|MODEL")
@click.option("--input-size", type=int, default=None, help="Input height and width for a NAME.  [default: the paper's]")
@click.option("--num-classes", type=int, default=None, help="Number of classes for a NAME.  [default: 1000]")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(model: str, input_size: int | None, num_classes: int | None, as_json: bool) -> None:
    """Show layers, parameters, multiply-accumulates and bytes.

    \b
    NAME is an architecture: squeezenet1_0 or squeezenet1_1, alone or with _simple_bypass or
    _complex_bypass. For a .sqz file, the bytes of every layer are shown too.
    """
    from .. import describe
    from ..architectures import SPEC_NAMES

    if model not in SPEC_NAMES and (input_size is not None or num_classes is not None):
        raise click.UsageError("--input-size and --num-classes apply only to the NAME of an architecture")
    found = describe(model, input_size=input_size, num_classes=num_classes)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
        return
    click.echo(_layer_table(found))
    if found.file:
        click.echo(_file_table(found.file))


def _layer_table(found: Description) -> str:
    from ..accounting import ALEXNET_FILE_BYTES

    header = ("layer", "filter/stride", "output", "s1x1", "e1x1", "e3x3", "params", "MACs", "activation bytes")
    fp32_bytes = found.cost.fp32_bytes
    title = f"{printable(found.spec.name)}: {format_bytes(fp32_bytes)} as float32, bypass {found.spec.bypass}"
    smaller = f"{ALEXNET_FILE_BYTES / fp32_bytes:.0f}x smaller than AlexNet"
    return f"{title}, {smaller}\n\n{table(header, found.rows(), left=2)}"


def _file_table(file: FileFacts) -> str:
    labels = file.contents.labels
    names = "none" if labels is None else ", ".join(printable(name) for name in labels.names[:_SHOWN_LABELS])
    if labels is not None and len(labels) > _SHOWN_LABELS:
        names += f" and {len(labels) - _SHOWN_LABELS} more"
    return (
        f"\nFile: {file.file_bytes:,} bytes, {file.ratio_vs_fp32:.1f}x smaller than float32,"
        f" {file.ratio_vs_alexnet:.0f}x smaller than AlexNet\nLabels: {names}\n"
        + "".join(
            f"On a microcontroller, weights as {m.weights}: {m.ram_bytes:,} bytes of RAM,"
            f" {m.flash_bytes:,} of flash memory\n"
            + (f"  {', '.join(f'{name} {size:,}' for name, size in m.layers)}\n" if m.weights != "ram" else "")
            for m in file.memory
        )
        + "\n"
        + table(("part", "params", "bytes", "bits/param", "density"), file.rows())
    )
