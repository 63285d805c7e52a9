"""`squeezenet train`: from class folders to a run folder."""

from __future__ import annotations

import click

_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--val", multiple=True, metavar="DATA", help="Images to validate on; by default those that DATA has.")
@click.option("--init", metavar="NAME|FILE", help="Weights to start from: a published network, a file or a run folder.")
@click.option("--recipe", metavar="NAME|FILE", help="How to train; by default a recipe that suits the task.")
@click.option("--epochs", type=click.IntRange(min=1), help="Another number of epochs than the recipe's.")
@click.option("--resume", is_flag=True, help="Continue the run in the output folder, if there is one.")
@click.option("-o", "--output", required=True, metavar="RUN/", help="Folder for weights, checkpoint and log.")
def command(
    data: tuple[str, ...],
    val: tuple[str, ...],
    init: str | None,
    recipe: str | None,
    epochs: int | None,
    resume: bool,
    output: str,
) -> None:
    """Train a classifier on DATA: a folder of class folders, a zip of one, several of them, or `digits`.

    The output folder gets best.safetensors, last.safetensors, log.csv, recipe.toml and run.json. A run that was cut
    off continues with the same command and --resume.
    """
    from ..train import train_model

    result = train_model(
        list(data), list(val) or None, run_dir=output, recipe=recipe, init=init, epochs=epochs, resume=resume
    )
    if not result.is_finished:
        raise click.exceptions.Exit(_INTERRUPTED)
