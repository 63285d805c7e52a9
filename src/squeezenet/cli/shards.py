"""`squeezenet shards`: pack a data set into tar shards."""

from __future__ import annotations

import click


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder to write; made if it does not exist.")
@click.option(
    "--images-per-shard", type=click.IntRange(min=1), default=1000, show_default=True, help="Images in each tar file."
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="train", show_default=True)
def command(data: tuple[str, ...], output: str, images_per_shard: int, split: str) -> None:
    """Pack DATA into tar shards in WebDataset's layout, with an index that `train` takes as DATA.

    Shards are for sets that are larger than the memory or the disk of the machine that trains. They may lie behind
    HTTP: `squeezenet train https://host/index.json --val DATA ...`.
    """
    from ..data import open_data
    from ..data.shards import write_shards
    from ..progress import reporter_for

    images = open_data(list(data), split=split)  # type: ignore[arg-type]
    with reporter_for().task("packing", len(images)) as task:
        index = write_shards(
            images, output, images_per_shard=images_per_shard, on_progress=lambda done, _: task.update(done)
        )
    click.echo(f"{len(images)} images in {-(-len(images) // images_per_shard)} shards: {index}")
