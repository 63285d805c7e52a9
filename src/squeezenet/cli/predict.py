"""`squeezenet predict`: classify images, one record each, whatever their state."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import printable
from .model_names import resolve_model, split_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..evaluation.predictor import Predictor

_BATCH = 32
_REPORT_EVERY_S = 10.0
_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


@click.command()
@click.argument("arguments", nargs=-1, metavar="[MODEL] IMAGE...")
@click.option("-m", "--model", metavar="MODEL", help="Network to use, as well as or instead of the first argument.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes to show.")
@click.option("--json", "layout", flag_value="json", help="One JSON object a line for each image.")
@click.option("--csv", "layout", flag_value="csv", help="One CSV row for each image and class.")
@click.option("--ray", "address", metavar="ADDRESS|local", help="Share the work on a Ray cluster; needs -o.")
@click.option("-o", "--output", metavar="OUT.parquet", help="With --ray: the file for the rows, one an image.")
def command(
    arguments: tuple[str, ...],
    model: str | None,
    top: int,
    layout: str | None,
    address: str | None,
    output: str | None,
) -> None:
    """Classify images.

    \b
    IMAGE is a file, a folder or zip (all images in it), a pattern such as "photos/*.jpg",
    or - for the bytes of one image on standard input. An image that cannot be read becomes
    an error record; the exit code is 1 only if no image could be read.

    Without a MODEL, one that comes with this package is used, and named. `--model imagenet`
    fetches published weights for the 1,000 classes of ImageNet once and compresses them.

    \b
    With --ray, IMAGE may also be a Parquet file with a column of images, or a URI such as
    s3://bucket/photos. Stopped or killed, the same command continues: see docs/scale.md.
    """
    if (address is None) != (output is None) or (address and layout):
        raise click.UsageError("--ray and -o go together, and exclude --json and --csv")
    chosen, images = split_model(model, arguments)
    if address is not None and output is not None:
        _predict_on_cluster(resolve_model(chosen), images, output, address, top)
        return
    resolved = resolve_model(chosen)
    _spare_blas_threads(resolved)
    from ..evaluation.predictor import open_predictor

    predictor = open_predictor(resolved)
    names = list(predictor.labels.names if predictor.labels else map(str, range(predictor.spec.num_classes)))
    writers: dict[str | None, Callable[[dict[str, Any]], None]] = {"json": _write_json, "csv": _CsvWriter()}
    write = writers.get(layout, _write_table)
    good = 0
    for record in _records(predictor, images, names, top):
        good += "error" not in record
        write(record)
    if not good:
        raise click.ClickException("no image could be read")


def _spare_blas_threads(model: str) -> None:
    """Let NumPy's BLAS start without a pool of threads, a fifth of a cold start, where the C engine does the work."""
    from ..native_library import load_library

    if model.endswith(".sqz") and load_library() is not None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _predict_on_cluster(model: str, images: tuple[str, ...], output: str, address: str, top: int) -> None:
    import time

    from ..cluster import predict_to_parquet

    if Path(model).suffix != ".sqz":
        raise click.UsageError(f"--ray needs a .sqz file, got {model}: `squeezenet compress` makes one")
    if "-" in images:
        raise click.UsageError("--ray reads no standard input")
    said = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= _REPORT_EVERY_S:
            said = time.monotonic()
            click.echo(f"{done:,} of {total:,} images", err=True)

    sources = [source for argument in images for source in _expanded(argument)]
    try:
        result = predict_to_parquet(model, sources, output, address=address, top=top, on_progress=report)
    except KeyboardInterrupt:
        click.echo("stopped; finished blocks are saved: the same command continues", err=True)
        sys.exit(_INTERRUPTED)
    earlier = f", {result.n_earlier:,} of them by an earlier run" if result.n_earlier else ""
    click.echo(f"{output}: {result.n_images:,} images{earlier}, {result.n_errors:,} could not be read")
    if result.n_errors == result.n_images:
        raise click.ClickException("no image could be read")


def _records(predictor: Predictor, images: tuple[str, ...], names: list[str], top: int) -> Iterator[dict[str, Any]]:
    """One record an image, in the order given; the order within a folder is that of its names."""
    from ..classifier import Classifier
    from ..data import Unreadable, open_data
    from ..errors import SqueezeNetError
    from ..evaluation.predictor import predict_each
    from ..preprocess import MAX_FILE_BYTES

    unknown_below = predictor.unknown_below if isinstance(predictor, Classifier) else None
    for sources in _grouped(images):
        try:
            if sources == ["-"]:
                pixels = predictor.preprocessing(sys.stdin.buffer.read(MAX_FILE_BYTES))
                yield _record("-", predictor.logits(pixels[None])[0], names, top, unknown_below)
                continue
            found = open_data(sources, unlabelled=True)
        except (SqueezeNetError, OSError) as error:
            if len(sources) > 1:  # one of them spoils the group: each for itself
                for source in sources:
                    yield from _records(predictor, (str(source),), names, top)
            else:
                yield {"image": str(sources[0]), "error": _reason(error, str(sources[0]))}
            continue
        for name, outcome in predict_each(predictor, found, batch_size=_BATCH):
            if isinstance(outcome, Unreadable):
                yield {"image": name, "error": outcome.reason}
            else:
                yield _record(name, outcome, names, top, unknown_below)


def _grouped(images: tuple[str, ...]) -> Iterator[list[str | Path]]:
    """Patterns expanded, and files beside each other put together, so that they are read and classified in batches."""
    files: list[str | Path] = []
    for argument in images:
        for source in _expanded(argument):
            if source != "-" and Path(source).is_file():
                files.append(source)
            else:
                if files:
                    yield files
                files = []
                yield [source]
    if files:
        yield files


def _expanded(argument: str) -> list[str]:
    if glob.has_magic(argument) and not Path(argument).exists():
        # A pattern that the shell has not expanded; one that fits nothing is reported like a missing file.
        return sorted(glob.glob(argument, recursive=True)) or [argument]
    return [argument]


def _reason(error: Exception, name: str) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.removeprefix(f"{name}: ").removeprefix("image: ")


def _record(
    image: str, logits: NDArray[np.float64], names: list[str], top: int, unknown_below: float | None
) -> dict[str, Any]:
    from ..classifier import rank

    ranked = rank(logits, top)
    best = [{"index": index, "label": names[index], "probability": probability} for index, probability in ranked]
    if unknown_below is None:
        return {"image": image, "predictions": best}
    return {"image": image, "is_unknown": ranked[0][1] < unknown_below, "predictions": best}


def _write_json(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record))


def _write_table(record: dict[str, Any]) -> None:
    if "error" in record:
        click.echo(f"{printable(record['image'])}\n    error: {printable(record['error'])}", err=True)
        return
    click.echo(printable(record["image"]))
    if record.get("is_unknown"):
        click.echo("    unknown: nothing that this network knows for sure; its best guesses are")
    for prediction in record["predictions"]:
        click.echo(f"    {100 * prediction['probability']:5.1f} %  {printable(prediction['label'])}")


class _CsvWriter:
    def __init__(self) -> None:
        self._writer = csv.writer(sys.stdout, lineterminator="\n")
        self._has_header = False

    def __call__(self, record: dict[str, Any]) -> None:
        if not self._has_header:
            self._writer.writerow(("image", "rank", "index", "label", "probability", "error"))
            self._has_header = True
        if "error" in record:
            self._write(record["image"], error=record["error"])
            return
        for rank, prediction in enumerate(record["predictions"], start=1):
            self._write(record["image"], rank, *prediction.values())

    def _write(
        self, image: str, rank: Any = "", index: Any = "", label: str = "", share: Any = "", error: str = ""
    ) -> None:
        self._writer.writerow((printable(image), rank, index, printable(label), share, printable(error)))
