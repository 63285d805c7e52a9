"""`squeezenet verify`: whether every engine here gives the same logits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ..text import printable, table


@click.command()
@click.argument("model", metavar="FILE.sqz", type=click.Path(path_type=Path))
@click.option("--images", "data", multiple=True, required=True, metavar="DATA", help="Images, labelled or not.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=32, show_default=True, help="Images to take, evenly spaced."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(ctx: click.Context, model: Path, data: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Run a file in torch, NumPy, C, WebAssembly and the browser, and compare.

    \b
    Everything starts from the bytes of the file and of the images. An engine that cannot run
    here is named with what it needs. Exit code 1 if two engines differ in any bit.
    """
    from ..data import open_data
    from ..exports.verify import compare_all, run_all

    images = open_data(data, unlabelled=True)
    count = min(limit, len(images))
    results = run_all(model.read_bytes(), images.subset(index * len(images) // count for index in range(count)))
    agreements = compare_all(results)
    if as_json:
        facts = {
            "model": str(model),
            "images": images.name,
            "pairs": [dataclasses.asdict(pair) for pair in agreements],
            "skipped": {result.name: result.skipped for result in results if result.skipped},
        }
        click.echo(json.dumps(facts))
    else:
        rows = [
            (pair.first, pair.second, f"{pair.top1_equal} of {pair.n_images}",
             "0 (same bits)" if pair.largest_difference == 0 else f"{pair.largest_difference:.3g}")
            for pair in agreements
        ]  # fmt: skip
        click.echo(table(("engine", "and", "same class", "largest logit difference"), rows, left=2))
        for result in results:
            if result.skipped:
                click.echo(f"not run: {printable(result.name)}: {result.skipped}")
    if any(pair.largest_difference for pair in agreements):
        ctx.exit(1)
