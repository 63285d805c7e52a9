"""`squeezenet shards`: pack a data set into tar shards."""

from __future__ import annotations

import click


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder to write; created if missing.")
@click.option(
    "--images-per-shard", type=click.IntRange(min=1), default=1000, show_default=True, help="Images in each tar file."
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True)
def command(data: tuple[str, ...], output: str, images_per_shard: int, split: str) -> None:
    """Pack DATA into tar shards in WebDataset's layout, with an index that `train` takes as DATA.

    Use shards for a data set that does not fit on the training machine. They may be served over
    HTTP: `squeezenet train https://host/index.json --val DATA ...`.
    """
    from ..data import open_data
    from ..data.shards import write_shards
    from ..text import printable

    images = open_data(list(data), split=split)  # type: ignore[arg-type]
    packed = write_shards(images, output, images_per_shard=images_per_shard)
    for name, reason in packed.unreadable:
        click.echo(f"skipped {printable(name)}: {printable(reason)}", err=True)
    click.echo(f"{packed.n_images} images in {packed.n_shards} shards: {packed.index}")
