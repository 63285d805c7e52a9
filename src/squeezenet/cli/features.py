"""`squeezenet features`: the feature vectors of images, for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from ..text import printable


@click.command()
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("-m", "--model", required=True, metavar="MODEL", help="A .sqz file, or a name.")
@click.option("-o", "--output", required=True, metavar="OUT.npy|OUT.parquet", type=click.Path(path_type=Path),
              help="An array (N, channels), or rows of name, class and features.")  # fmt: skip
def command(data: tuple[str, ...], model: str, output: Path) -> None:
    """Write the feature vectors of DATA's images: integers, the same on every machine (docs/format.md).

    \b
    An .npy file has one row per readable image, in the order of names. A .parquet file also
    has the name of each image and, if there are class folders, its class.
    """
    from ..evaluation.features import write_features
    from ..progress import reporter_for

    found, images = write_features(model, list(data), output, reporter_for())
    for entry in found.unreadable:
        click.echo(f"skipped {printable(entry.name)}: {printable(entry.reason)}", err=True)
    click.echo(
        f"{printable(output)}: {found.vectors.shape[1]} features of {len(found.indices)} of {len(images)} images"
    )
