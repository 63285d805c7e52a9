"""`squeezenet check`: what is wrong with photos before anybody trains on them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable

_SHOWN = 10


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--on", "model", metavar="MODEL", help="Network whose features are compared.  [default: imagenette]")
@click.option("--report", metavar="FILE.html", type=click.Path(dir_okay=False, path_type=Path),
              help="Write a page that shows the photos found.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit code 1 also for suspects, duplicates and blurred photos.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def command(
    ctx: click.Context, photos: tuple[str, ...], model: str | None, report: Path | None, strict: bool, as_json: bool
) -> None:
    """Find duplicates, leaks between splits, doubtful labels, and blank or blurred photos.

    \b
    PHOTOS are class folders, with or without train and val, or photos without classes (labels
    are then not checked). Near-duplicates differ only in crop, brightness or compression. The
    exit code is 1 if a photo is unreadable or blank, has two labels, or is in both train and
    val, or if train lacks a class of val.
    """
    from ..process import spare_blas_threads

    spare_blas_threads()  # many small products: threads would wait for each other, on a busy machine for minutes
    from .. import check
    from ..progress import reporter_for

    found = check(list(photos), on=model, progress=reporter_for())
    if report:
        from ..reports.check_page import write_check_page

        write_check_page(found, report)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        for line in found.summary():
            click.echo(printable(line))
        for group in [*found.leaks, *found.contradictions][:_SHOWN]:
            click.echo("  same picture: " + printable(", ".join(found.names[i] for i in group.photos)))
        for suspect in found.suspects[:_SHOWN]:
            click.echo(printable(f"  {found.names[suspect.photo]}: looks like {suspect.looks_like}"))
        for entry in found.unreadable[:_SHOWN]:
            click.echo(printable(f"  {entry.name}: {entry.reason}"))
        if report:
            click.echo(f"report: {printable(report)}")
    if found.has_errors or (strict and found.has_findings):
        ctx.exit(1)
