"""`squeezenet evaluate`: accuracy on labelled images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..text import printable

_SHOWN_UNREADABLE = 5


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--report", metavar="FILE.html", type=click.Path(dir_okay=False, path_type=Path),
              help="Write a page about the network: classes, confusions, calibration, worst mistakes.")  # fmt: skip
@click.option("--store", "--store-unknown", is_flag=True, help="Store in MODEL, a .sqz file, a"
              " temperature for its probabilities and a rule for unknown photos.")  # fmt: skip
@click.option("--not", "foreign", multiple=True, metavar="PHOTOS",
              help="Photos that show none of the classes, to measure how many are detected as unknown.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(
    model: str, data: tuple[str, ...], report: Path | None, store: bool, foreign: tuple[str, ...], as_json: bool
) -> None:
    """Measure top-1 and top-5 accuracy, with 95 % intervals.

    \b
    If DATA has train and val folders, val is measured. If MODEL was trained on part of DATA, only
    the held-out images are measured. Class folders are matched to the model's classes by id (wnid)
    or name, never by position.
    """
    from .. import evaluate, store_confidence
    from ..teaching.taught import photos_taught
    from ..zoo import find_model

    found = find_model(model)
    if store and (found.kind != "sqz" or found.path is None):
        raise click.UsageError("--store needs a .sqz file as MODEL")
    result = evaluate(model, data, foreign=foreign or None)
    if report:
        from ..reports.network_page import write_evaluation_page

        if Path(model).is_dir():
            from ..training.run_report import run_facts, run_history, shown_facts

            history, facts = run_history(Path(model)), shown_facts(run_facts(Path(model)))
        else:
            history, facts = [], []
        write_evaluation_page(result, report, history=history, facts=facts)
    confidence = result.confidence if store or foreign else None
    if store and confidence and found.path:
        if result.is_of_trained_images or photos_taught(found.path, result.scores.features):
            raise click.UsageError("--store needs images that were not used to train or teach MODEL: give others")
        store_confidence(found.path, confidence)
    for remark in result.images.remarks():
        click.echo(printable(remark), err=True)
    unreadable = result.scores.unreadable
    for entry in unreadable[:_SHOWN_UNREADABLE]:
        click.echo(f"skipped {printable(entry.name)}: {printable(entry.reason)}", err=True)
    if len(unreadable) > _SHOWN_UNREADABLE:
        click.echo(f"skipped {len(unreadable) - _SHOWN_UNREADABLE} more unreadable images", err=True)
    if as_json:
        click.echo(json.dumps(result.to_dict() | ({"confidence": confidence.to_dict()} if confidence else {})))
        return
    if result.note:
        click.echo(result.note, err=True)
    for name, percent, right, interval in result.rows():
        click.echo(f"{name}  {percent:>8}  ({right}; 95 % interval {interval})")
    click.echo(f"{result.ms_per_image:.1f} ms per image, including reading and decoding")
    if report:
        click.echo(f"report: {printable(report)}")
    for line in confidence.lines() if confidence else ():
        click.echo(f"stored: {line}" if store else line)
