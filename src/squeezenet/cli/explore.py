"""`squeezenet explore`: the best network within limits on bytes and MACs, for one's own data."""

from __future__ import annotations

from typing import Any

import click

from ..process import EXIT_INTERRUPTED


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--val", multiple=True, metavar="DATA", help="Images to validate on.  [default: val of DATA, or a tenth]")
@click.option("--preset", metavar="NAME", help="Search space by name, see above.  [default: pareto]")
@click.option("--space", metavar="FILE.toml", help="Search space from a file.")
@click.option("--trials", type=click.IntRange(min=1), help="Networks to train in total.  [default: the grid, or 30]")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True,
              help="Trainings per point of a grid.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest int8 file, bytes.")
@click.option("--max-macs", type=click.IntRange(min=1), help="Most multiply-accumulates per image.")
@click.option(
    "--max-ram", type=click.IntRange(min=1), help="Most bytes of RAM on a chip, with weights in flash memory."
)
@click.option("--recipe", metavar="NAME|FILE.toml", help="How to train.  [default: to suit the data]")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of each trial.  [default: the recipe's]")
@click.option("--storage", metavar="URL", help="An Optuna storage.  [default: a SQLite file in the folder]")
@click.option("--retrain/--no-retrain", default=True, show_default=True, help="Train the winner again, in full.")
@click.option("--ray", metavar="ADDRESS|local", help="Train on a Ray cluster, several networks at a time.")
@click.option("-o", "--output", metavar="STUDY/", required=True, help="Folder of the study; continued if it exists.")
@click.pass_context
def command(
    ctx: click.Context, /, data: tuple[str, ...], val: tuple[str, ...], preset: str | None, space: str | None,
    output: str, **options: Any,
) -> None:  # fmt: skip
    """Train many architectures on DATA and find the best trade-offs between accuracy, bytes, MACs and memory.

    \b
    pareto             a search over all properties of an architecture
    paper-sr           the paper's squeeze ratios, 0.125 to 1
    paper-pct3x3       the paper's shares of 3x3 filters, 1 % to 99 %
    paper-bypass       none, simple, complex
    late-downsampling  the same layers with pools from early to late

    The command can be stopped at any time. Repeat it to continue: finished trials are kept, and the interrupted trial
    resumes. Writes report.html, study.json, every trial, and the winner's run folder to STUDY/.
    """
    if preset and space:
        raise click.UsageError("expected either --preset or --space, got both")
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
