"""`squeezenet evaluate`: accuracy on labelled images."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from .text import printable


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(model: str, data: tuple[str, ...], as_json: bool) -> None:
    """Measure top-1 and top-5 accuracy, with 95 % intervals.

    \b
    Where DATA has train and val folders, val is measured. Class folders are matched to the
    model's classes by id (wnid) or name, never by position.
    """
    from ..data import open_data
    from ..evaluate.metrics import Accuracy
    from ..evaluate.predictor import collect_logits, match_classes, open_predictor

    predictor = open_predictor(model)
    images = match_classes(predictor, open_data(data, split="val"))
    start = time.perf_counter()
    scores = collect_logits(predictor, images)
    seconds = time.perf_counter() - start
    accuracy = Accuracy.of(scores.logits, scores.labels)
    if as_json:
        facts: dict[str, Any] = {"model": model, "data": images.name, **accuracy.to_dict()}
        facts["n_unreadable"] = len(scores.unreadable)
        facts["ms_per_image"] = 1000 * seconds / accuracy.n_images
        click.echo(json.dumps(facts))
        return
    for unreadable in scores.unreadable[:5]:
        click.echo(f"skipped {printable(unreadable.name)}: {printable(unreadable.reason)}", err=True)
    if len(scores.unreadable) > 5:
        click.echo(f"skipped {len(scores.unreadable) - 5} more unreadable images", err=True)
    n_images = accuracy.n_images
    for name in ("top1", "top5"):
        percent, count = getattr(accuracy, name), getattr(accuracy, f"{name}_correct")
        low, high = getattr(accuracy, f"{name}_interval")
        click.echo(f"{name}  {percent:6.2f} %  ({count} of {n_images}; 95 % interval {low:.2f} to {high:.2f})")
    click.echo(f"{1000 * seconds / n_images:.1f} ms an image, reading and decoding included")
