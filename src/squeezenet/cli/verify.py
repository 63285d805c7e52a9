"""`squeezenet verify`: whether every engine here computes the same logits and features."""

from __future__ import annotations

import dataclasses
import json

import click

from ..text import printable, table


@click.command()
@click.argument("model")
@click.option("--images", "data", multiple=True, required=True, metavar="DATA", help="Images, labelled or not.")
@click.option("--limit", type=click.IntRange(min=1), default=32, show_default=True,
              help="Images to take, evenly spaced.")  # fmt: skip
@click.option("--chips", is_flag=True, help="Also on emulated microcontrollers (QEMU and their compilers).")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(ctx: click.Context, model: str, data: tuple[str, ...], limit: int, chips: bool, as_json: bool) -> None:
    """Run a compressed network in torch, NumPy, C, WebAssembly and the browser, and compare.

    \b
    Everything starts from the bytes of the file and of the images. An engine that cannot run
    here is named with what it needs. Exit code 1 if two engines differ in any bit.
    """
    from .. import verify
    from ..exports.verify import HEADER

    result = verify(model, data, limit=limit, chips=chips)
    if as_json:
        pairs = [dataclasses.asdict(pair) for pair in result.pairs]
        click.echo(json.dumps({"model": model, "images": result.images, "pairs": pairs, "skipped": result.skipped}))
    else:
        click.echo(table(HEADER, result.rows(), left=2))
        for name, needs in result.skipped.items():
            click.echo(f"not run: {printable(name)}: {needs}")
    if not result.is_identical:
        ctx.exit(1)
