"""`squeezenet similar`: photos that look like one."""

from __future__ import annotations

import json

import click

from ..text import printable


@click.command()
@click.argument("photo")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--on", "model", metavar="MODEL", help="Network whose features are compared.  [default: imagenette]")
@click.option("-k", "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Photos to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per photo, one per line.")
def command(photo: str, data: tuple[str, ...], model: str | None, top: int, as_json: bool) -> None:
    """Find the photos of DATA that look most like PHOTO, by the cosine of their features."""
    from .. import similar
    from ..progress import reporter_for

    for found in similar(photo, list(data), on=model, top=top, progress=reporter_for()):
        if as_json:
            click.echo(json.dumps(found._asdict()))
        else:
            click.echo(f"{found.cosine:.4f}  {printable(found.name)}")
