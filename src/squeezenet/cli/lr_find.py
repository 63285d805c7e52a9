"""`squeezenet lr-find`: a learning rate for data and recipe."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--init", metavar="MODEL", help="Weights to start from.  [default: none]")
@click.option("--recipe", metavar="NAME|FILE.toml", help="How to train.  [default: to suit the data]")
@click.option("--steps", type=click.IntRange(min=10), default=100, show_default=True, help="Number of rates to try.")
@click.option(
    "-o", "--output", metavar="FILE.html", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve."
)
def command(data: tuple[str, ...], init: str | None, recipe: str | None, steps: int, output: Path | None) -> None:
    """Find a learning rate for DATA: train a few steps, each with a higher rate than the one before.

    The suggested rate is the one at which the loss falls fastest. Use it as `lr` in a copy of the recipe.
    """
    from ..process import ending_at_ctrl_c
    from ..text import printable, table

    with ending_at_ctrl_c():
        from ..training.lr_finder import find_learning_rate

    found = find_learning_rate(list(data), recipe=recipe, init=init, n_steps=steps)
    shown = range(0, len(found.rates), max(1, len(found.rates) // 12))
    rows = [(f"{found.rates[i]:.2g}", f"{found.losses[i]:.3f}") for i in shown]
    click.echo(table(("lr", "loss"), rows, left=0))
    click.echo(f"suggested: lr = {found.suggested:.2g} (the loss is lowest at {found.lowest:.2g})")
    if output:
        found.write(output)
        click.echo(f"curve: {printable(output)}")
