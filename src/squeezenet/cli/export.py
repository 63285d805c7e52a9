"""`squeezenet export`: a network in another form."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import DataError
from ..text import format_bytes, printable


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--to", type=click.Choice(["web", "js", "c", "onnx", "tflite", "safetensors"]), default=None,
    help="The form.  [default: by the output's suffix: .html, .js, .c, .onnx, .tflite, .safetensors]",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["float", "int8"]), default=None,
    help="For onnx: float weights, or integers with QuantizeLinear and DequantizeLinear.  [default: float]",
)  # fmt: skip
@click.option(
    "--name",
    default=None,
    help="For c: prefix of all names; for js: name of the variable.  [default: the output's name]",
)
@click.option(
    "--photos", multiple=True, metavar="DATA",
    help="For tflite: photos on which the range of the head is measured, so that the head is int8 too; repeatable.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["flash", "ram", "coded"]), default=None,
    help="For c: weights as constants in flash memory, decoded into RAM when the network is opened, or decoded for each"
    " image.  [default: the first that fits]",
)  # fmt: skip
@click.option("--max-ram", type=click.IntRange(min=1), default=None, metavar="BYTES",
              help="For c: largest RAM for arena, stack and logits together.")  # fmt: skip
@click.option("--max-flash", type=click.IntRange(min=1), default=None, metavar="BYTES",
              help="For c: largest flash memory for code and constants together.")  # fmt: skip
def command(model: str, output: Path, **options: object) -> None:
    """Convert a network to another form.

    \b
    web          one HTML file with model, engine and interface; works offline
    js           a script with model and engine, for your own pages and for Node
    c            a .c and .h file with model and portable engine; no malloc
    onnx         a graph for ONNX Runtime and similar runtimes
    tflite       an int8 model for LiteRT: Android, browsers, microcontrollers
    safetensors  float weights under torchvision's names

    web, js, c, tflite and `--precision int8` need a .sqz file; the others take any MODEL.
    """
    from .. import export
    from ..exports.c_source import CSource
    from ..exports.web_page import PageSizes

    try:
        result = export(model, output, **{**options, "photos": options["photos"] or None})  # type: ignore[arg-type]
    except DataError as error:
        message = str(error)
        for option in options:
            message = message.replace(f"`{option}`", f"--{option.replace('_', '-')}")
        raise click.UsageError(printable(message)) from None
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    shown = printable(output)
    size = output.stat().st_size
    if isinstance(result.details, PageSizes):
        sizes = result.details
        click.echo(
            f"{shown}: {sizes.page_bytes:,} bytes: model {sizes.model_bytes:,}, runtime {sizes.runtime_bytes:,},"
            f" class names {sizes.label_bytes:,}"
        )
    elif isinstance(result.details, CSource):
        c, memory = result.details, result.details.memory
        click.echo(f"{shown} and {printable(result.files[1].name)}: model of {c.model_bytes:,} bytes")
        click.echo(
            f"RAM at {c.input_size}x{c.input_size} pixels: {memory.ram_bytes:,} bytes: {memory.arena_bytes:,} in one"
            f" arena ({format_bytes(memory.weight_bytes)} of weights), {memory.stack_bytes:,} of stack,"
            f" {memory.logit_bytes:,} of logits"
        )
        click.echo(
            f"flash memory, weights as `{memory.weights}`: {memory.flash_bytes:,} bytes:"
            f" {memory.constant_bytes:,} of constants, at most {memory.code_bytes:,} of code"
        )
    elif result.to == "onnx":
        click.echo(f"{shown}: {size:,} bytes, {options['precision'] or 'float'}")
    else:
        click.echo(f"{shown}: {size:,} bytes")
