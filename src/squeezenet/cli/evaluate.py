"""`squeezenet evaluate`: accuracy on labelled images."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from .model_names import resolve_model

if TYPE_CHECKING:
    from ..data import ImageSet
    from ..evaluation.predictor import Predictor, Scores
    from ..evaluation.reliability import UnknownThreshold


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--report",
    metavar="FILE.html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page about the network: classes, confusions, calibration, worst mistakes.",
)
@click.option(
    "--store-unknown",
    is_flag=True,
    help="Store in MODEL, a .sqz file, below which probability an answer is better given as unknown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def command(model: str, data: tuple[str, ...], report: Path | None, store_unknown: bool, as_json: bool) -> None:
    """Measure top-1 and top-5 accuracy, with 95 % intervals.

    \b
    Where DATA has train and val folders, val is measured. Class folders are matched to the
    model's classes by id (wnid) or name, never by position.
    """
    from ..data import open_data
    from ..evaluation.metrics import Accuracy
    from ..evaluation.predictor import collect_logits, match_classes, open_predictor

    if store_unknown and Path(model).suffix != ".sqz":
        raise click.UsageError("--store-unknown needs a .sqz file as MODEL")
    predictor = open_predictor(resolve_model(model))
    images = match_classes(predictor, open_data(data, split="val"))
    start = time.perf_counter()
    scores = collect_logits(predictor, images)
    seconds = time.perf_counter() - start
    accuracy = Accuracy.of(scores.logits, scores.labels)
    if report:
        _write_report(report, model, predictor, images, scores, 1000 * seconds / accuracy.n_images)
    unknown = _store_unknown(model, scores) if store_unknown else None
    if as_json:
        facts: dict[str, Any] = {"model": model, "data": images.name, **accuracy.to_dict()}
        facts["n_unreadable"] = len(scores.unreadable)
        facts["ms_per_image"] = 1000 * seconds / accuracy.n_images
        facts |= {"unknown": dataclasses.asdict(unknown)} if unknown else {}
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
    if report:
        click.echo(f"report: {report}")
    if unknown:
        click.echo(
            f"stored: unknown below {100 * unknown.unknown_below:.1f} %, which keeps {unknown.right_kept:.1f} % of the"
            f" right answers and withholds {unknown.wrong_caught:.1f} % of the wrong ones"
        )


def _write_report(
    path: Path, model: str, predictor: Predictor, images: ImageSet, scores: Scores, ms_per_image: float
) -> None:
    from ..files import atomic_write
    from ..reports.network_page import build_report, render_html

    facts = [("model", model), ("time", f"{ms_per_image:.1f} ms an image, reading and decoding included")]
    if Path(model).is_file():
        facts.append(("file", f"{Path(model).stat().st_size:,} bytes"))
    history: list[dict[str, float]] = []
    if Path(model).is_dir():
        from ..training.run_report import run_facts, run_history, shown_facts

        history = run_history(Path(model))
        facts += shown_facts(run_facts(Path(model)))
    page = build_report(
        predictor, images, scores, title=Path(model).name or model,
        subtitle=f"{predictor.spec.name}, {predictor.spec.num_classes} classes", history=history, facts=facts,
    )  # fmt: skip
    with atomic_write(path) as stream:
        stream.write(render_html(page).encode("utf-8", "backslashreplace"))


def _store_unknown(model: str, scores: Scores) -> UnknownThreshold:
    from ..evaluation.reliability import unknown_threshold
    from ..fileformat import read_sqz, write_sqz

    found = unknown_threshold(scores.logits, scores.labels)
    contents = read_sqz(model)
    facts = {**contents.facts, "unknown_below": found.unknown_below}
    write_sqz(model, dataclasses.replace(contents, facts=facts))
    return found
