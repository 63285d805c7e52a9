"""`squeezenet verify`: whether every engine here computes the same logits and features."""

from __future__ import annotations

import dataclasses
import json

import click

from ..text import printable, table

_SHOWN = 10


@click.command()
@click.argument("model")
@click.option("--images", "data", multiple=True, metavar="DATA", help="Images, labelled or not.  [default: drawn ones]")
@click.option("--limit", type=click.IntRange(min=1), default=32, show_default=True,
              help="Largest number of images, evenly spaced.")  # fmt: skip
@click.option("--chips", is_flag=True, help="Also run on emulated microcontrollers (needs QEMU and their compilers).")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(ctx: click.Context, model: str, data: tuple[str, ...], limit: int, chips: bool, as_json: bool) -> None:
    """Run a compressed network in torch, NumPy, C, WebAssembly and the browser, and compare.

    \b
    All engines start from the bytes of the file and of the images. For engines that cannot run
    here, the command prints what they need. The exit code is 1 if two engines differ in any bit.
    """
    from .. import verify
    from ..exports.verify import HEADER

    result = verify(model, data or None, limit=limit, chips=chips)
    for remark in result.remarks:
        click.echo(printable(remark), err=True)
    for image in result.unreadable[:_SHOWN]:
        click.echo(f"skipped {printable(image.name)}: {printable(image.reason)}", err=True)
    if len(result.unreadable) > _SHOWN:
        click.echo(f"skipped {len(result.unreadable) - _SHOWN} more unreadable images", err=True)
    if as_json:
        pairs = [dataclasses.asdict(pair) for pair in result.pairs]
        facts = {"model": model, "images": result.images, "pairs": pairs, "skipped": result.skipped}
        click.echo(json.dumps(facts | {"unreadable": [image._asdict() for image in result.unreadable]}))
    else:
        click.echo(table(HEADER, result.rows(), left=2))
        for name, needs in result.skipped.items():
            click.echo(f"not run: {printable(name)}: {needs}")
    if not result.is_identical:
        ctx.exit(1)
