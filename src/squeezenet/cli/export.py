"""`squeezenet export`: a network for where this package is not."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import format_bytes, printable
from .model_names import resolve_model

_SUFFIXES = {".html": "web", ".htm": "web", ".c": "c", ".onnx": "onnx", ".safetensors": "safetensors"}


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write.")
@click.option(
    "--to", type=click.Choice(["web", "c", "onnx", "safetensors"]), default=None,
    help="What to write.  [default: by the output's suffix: .html, .c, .onnx, .safetensors]",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["float", "int8"]), default="float", show_default=True,
    help="For onnx: dequantised floats, or the integers with QuantizeLinear and DequantizeLinear around them.",
)  # fmt: skip
@click.option("--name", default=None, help="For c: prefix of all names.  [default: the output's name]")
@click.pass_context
def command(ctx: click.Context, model: str, output: Path, to: str | None, precision: str, name: str | None) -> None:
    """Write a network in another form.

    \b
    web          one HTML file: model, engine and interface, no network needed
    c            a .c and .h pair: model, portable engine, no malloc
    onnx         a graph for ONNX Runtime and the like
    safetensors  float weights under torchvision's names

    web, c and int8 take a .sqz file; the others take any MODEL.
    """
    target = to or _SUFFIXES.get(output.suffix.lower())
    if target is None:
        raise click.UsageError(
            f"expected --to, or an output named *{', *'.join(sorted(set(_SUFFIXES) - {'.htm'}))},"
            f" got {printable(str(output))}"
        )
    for option, value, goes_with in (("precision", precision, "onnx"), ("name", name, "c")):
        if ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE and target != goes_with:
            raise click.UsageError(f"--{option} goes with --to {goes_with}, not with {target}: leave out {value!r}")
    from ..exports import export_c, export_onnx, export_safetensors, export_web

    model = resolve_model(model)
    shown = printable(str(output))
    if target == "web":
        sizes = export_web(model, output)
        click.echo(
            f"{shown}: {sizes.page_bytes:,} bytes: model {sizes.model_bytes:,}, runtime {sizes.runtime_bytes:,},"
            f" class names {sizes.label_bytes:,}"
        )
    elif target == "c":
        written = export_c(model, output, name=name)
        click.echo(f"{shown} and {printable(str(written.header.name))}: model of {written.model_bytes:,} bytes")
        click.echo(
            f"peak RAM at {written.input_size}x{written.input_size} pixels: {written.arena_bytes:,} bytes in one arena"
            f" ({format_bytes(written.weight_bytes)} weights, {format_bytes(written.activation_bytes)} activations)"
            f" and {format_bytes(written.stack_bytes)} of stack"
        )
    elif target == "onnx":
        for warning in export_onnx(model, output, precision=precision):
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{shown}: {output.stat().st_size:,} bytes, {precision}")
    else:
        export_safetensors(model, output)
        click.echo(f"{shown}: {output.stat().st_size:,} bytes")
