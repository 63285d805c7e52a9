"""`squeezenet explore`: the best network within limits on bytes and MACs, for one's own data."""

from __future__ import annotations

from typing import Any

import click

from ..process import EXIT_INTERRUPTED


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--val", multiple=True, metavar="DATA", help="Images to choose by; by default DATA's own.")
@click.option("--preset", metavar="NAME", help="What to vary, by name (see below).  [default: pareto]")
@click.option("--space", metavar="FILE.toml", help="What to vary, from a file.")
@click.option("--trials", type=click.IntRange(min=1), help="Networks to train in all.  [default: the grid, or 30]")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True,
              help="Times to train each point of a grid.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest file in int8.")
@click.option("--max-macs", type=click.IntRange(min=1), help="Most multiply-accumulates per image.")
@click.option("--max-ram", type=click.IntRange(min=1), help="Most RAM on a microcontroller, weights in flash memory.")
@click.option("--recipe", metavar="NAME|FILE.toml", help="How to train; by default what suits the data.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of a trial; by default the recipe's.")
@click.option("--storage", metavar="URL", help="An Optuna storage; by default a SQLite file in the folder.")
@click.option("--retrain/--no-retrain", default=True, show_default=True, help="Train the winner again, in full.")
@click.option("--ray", metavar="ADDRESS|local", help="Train on a Ray cluster, several networks at a time.")
@click.option("-o", "--output", metavar="STUDY/", required=True, help="Folder to write, or to continue in.")
@click.pass_context
def command(
    ctx: click.Context, /, data: tuple[str, ...], val: tuple[str, ...], preset: str | None, space: str | None,
    output: str, **options: Any,
) -> None:  # fmt: skip
    """Train many architectures on DATA and find those worth having: accuracy against bytes, MACs and memory.

    \b
    pareto             a search over all that an architecture may vary
    paper-sr           the paper's squeeze ratios, 0.125 to 1
    paper-pct3x3       the paper's shares of 3x3 filters, 1 % to 99 %
    paper-bypass       none, simple, complex
    late-downsampling  the same layers with pools from early to late

    Stop it whenever you like: the same command continues, repeats no finished trial, and continues the one that was
    interrupted. The folder gets report.html, study.json, every trial, and the winner's run folder.
    """
    if preset and space:
        raise click.UsageError("--preset and --space exclude each other: a space file defines what varies")
    from ..process import ending_at_ctrl_c, keep_freed_memory

    with ending_at_ctrl_c():
        from ..exploration import explore

    keep_freed_memory()
    result = explore(list(data), list(val) or None, study_dir=output, space=space or preset or "pareto", **options)
    if not result.is_finished:
        ctx.exit(EXIT_INTERRUPTED)
    if result.winner is not None:
        best = result.retrained or result.winner.measured
        click.echo(
            f"winner: trial {result.winner.number}, {best.top1:.2f} % in {best.file_bytes:,} bytes,"
            f" {best.macs:,} MACs, {best.ram_bytes:,} bytes of RAM on a chip"
        )
