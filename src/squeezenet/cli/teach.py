"""`squeezenet teach`: a head for your classes from a few photos, without torch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable, table

_SHOWN = 10


@click.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTOS...")
@click.option("--on", required=True, metavar="MODEL", help="The network to teach: a .sqz file or a name.")
@click.option("-o", "--output", required=True, metavar="NEW.sqz", type=click.Path(path_type=Path),
              help="The file to write; may be MODEL itself.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep MODEL's classes beside the new ones.")
@click.option("--not", "foreign", multiple=True, metavar="DATA",
              help="Photos that show none of the classes, to improve the detection of unknown photos.")  # fmt: skip
@click.option("--val", multiple=True, metavar="DATA", help="Labelled images to measure accuracy on.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    photos: tuple[str, ...], on: str, output: Path, keep: bool, foreign: tuple[str, ...], val: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Teach MODEL the classes of PHOTOS, a folder of class folders, in seconds. One photo per class is enough to
    start.

    \b
    Writes NEW.sqz, and beside it NEW.taught, which contains the features of each photo but no
    photos. If MODEL has such a file, photos and classes are added to those in it. The accuracy
    shown is leave-one-out: each photo is classified by a head made from all the others.
    """
    from .. import teach
    from ..progress import reporter_for

    result = teach(
        photos, on=on, output=output, keep=keep, foreign=foreign, val=list(val) or None, progress=reporter_for()
    )
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    for entry in result.unreadable[:_SHOWN]:
        click.echo(f"skipped {printable(entry.name)}: {printable(entry.reason)}", err=True)
    for name, same_as in result.repeated[:_SHOWN]:
        click.echo(f"skipped {printable(name)}: the same photo as {printable(same_as)}", err=True)
    for problem, count in (("unreadable photos", len(result.unreadable)), ("duplicates", len(result.repeated))):
        if count > _SHOWN:
            click.echo(f"skipped {count - _SHOWN} more {problem}", err=True)
    for names in result.shared[:_SHOWN]:
        click.echo(f"the same photo in several places: {printable(', '.join(names))}", err=True)
    if len(result.shared) > _SHOWN:
        click.echo(f"{len(result.shared) - _SHOWN} more photos are in several places", err=True)
    rows = [(printable(name), *rest) for name, *rest in result.rows()]
    click.echo(table(("class", "photos", "correct", "95 % interval"), rows))
    accuracy = result.accuracy
    if accuracy.n_images:
        low, high = accuracy.top1_interval
        click.echo(
            f"leave-one-out accuracy: {accuracy.top1:.1f} % ({accuracy.top1_correct} of {accuracy.n_images};"
            f" 95 % interval {low:.1f} to {high:.1f})"
        )
    for name, answer, count in result.confusions[:_SHOWN]:
        click.echo(f"{printable(name)} mistaken for {printable(answer)}: {count}")
    for suspect in result.suspects[:_SHOWN]:
        click.echo(f"label looks wrong: {printable(suspect.name)} (looks like {printable(suspect.looks_like)})")
    if result.unknown and result.unknown.foreign_caught is not None:
        click.echo(f"unknown: {result.unknown.foreign_caught:.1f} % of the {result.unknown.n_foreign} photos of --not")
    if result.evaluation:
        name, top1 = printable(result.evaluation.images.name), result.evaluation.accuracy
        click.echo(f"accuracy on {name}: {top1.top1:.1f} % ({top1.top1_correct} of {top1.n_images})")
    click.echo(f"{printable(result.path)}: {result.file_bytes:,} bytes, {result.seconds:.1f} s")
