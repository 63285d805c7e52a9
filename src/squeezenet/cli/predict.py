"""`squeezenet predict`: classify images, one record per image, also for those that cannot be read."""

from __future__ import annotations

import csv
import dataclasses
import glob
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from ..process import EXIT_INTERRUPTED
from ..text import printable

if TYPE_CHECKING:
    from ..classifier import Answer

_LAYOUTS = {".csv": "csv", ".jsonl": "json", ".ndjson": "json", ".json": "array"}
_CSV_HEADER = ("image", "rank", "index", "label", "probability", "is_unknown", "error")


@click.command()
@click.argument("arguments", nargs=-1, metavar="[MODEL] IMAGE...")
@click.option("-m", "--model", metavar="MODEL", help="Network to use, instead of the first argument.")
@click.option("-k", "--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes per image.")
@click.option("--json", "layout", flag_value="json", help="Print one JSON object per image, one per line.")
@click.option("--csv", "layout", flag_value="csv", help="Print CSV with one row per image and class.")
@click.option("--ray", "address", metavar="ADDRESS|local", help="Share the work on a Ray cluster; needs -o.")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="A .csv, .jsonl (one record per line) or .json file (an array); with --ray a .parquet file.",
)
def command(
    arguments: tuple[str, ...], model: str | None, top: int, layout: str | None, address: str | None, output: str | None
) -> None:
    """Classify images.

    \b
    IMAGE is a file, a folder or zip (all images in it), a pattern such as "photos/*.jpg",
    @FILE for a list of these, one per line, or - for the bytes of one image on standard
    input. An image that cannot be read becomes an error record; the exit code is 1 only if
    no image could be read.

    Without a MODEL, a network of this package is used, and its name is printed. The model
    `imagenet`, with the 1,000 classes of ImageNet, is downloaded and compressed on first use.

    \b
    With --ray, IMAGE may also be a Parquet file with a column of images, or a URI such as
    s3://bucket/photos. If the command is interrupted, repeat it to continue (docs/scale.md).
    """
    if output is not None and not output.strip():
        raise click.UsageError("expected a file for -o, got an empty name")
    kind = _kind_of_output(output, layout, address)
    chosen, images = _split_model(model, _without_lists(arguments))
    if address is not None and output is not None:
        _predict_on_cluster(chosen, images, output, address, top)
        return
    answers = _answers(chosen, images, top)
    if output is None:
        _, good = _write_answers(answers, kind, _write_data)
    else:
        from ..files import atomic_write

        with atomic_write(output) as stream:
            total, good = _write_answers(answers, kind, lambda text: _write_bytes(stream, text))
        click.echo(f"{printable(output)}: {total:,} images, {total - good:,} could not be read")
    if not good:
        raise click.ClickException("no image could be read")


def _without_lists(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Put the lines of @FILE in its place, unless there is a file of that very name.

    Raises:
        ClickException: If the list cannot be read, or has no line.
    """
    found: list[str] = []
    for argument in arguments:
        if not argument.startswith("@") or os.path.lexists(argument):
            found.append(argument)
            continue
        try:
            text = Path(argument[1:]).read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        except OSError as error:
            raise click.ClickException(f"{printable(argument[1:])}: cannot be read ({error.strerror})") from None
        lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
        if not lines:
            raise click.ClickException(f"{printable(argument[1:])}: expected names of images, one per line, got none")
        found += lines
    return tuple(found)


def _kind_of_output(output: str | None, layout: str | None, address: str | None) -> str | None:
    """The layout of the records, by the option or the output's name; None for a table.

    Raises:
        UsageError: If the options do not go together.
    """
    if address is not None and (output is None or layout):
        raise click.UsageError("--ray needs -o OUT.parquet, and cannot be combined with --json or --csv")
    if output is None or address is not None:
        return layout
    suffix = Path(output).suffix.lower()
    if suffix not in _LAYOUTS or layout not in (None, _LAYOUTS[suffix]):
        given = f" with --{layout}" if layout else ""
        raise click.UsageError(
            f"expected an output named *.csv, *.jsonl or *.json, or --ray for *.parquet, got {printable(output)}{given}"
        )
    return _LAYOUTS[suffix]


def _write_answers(answers: Iterator[Answer], layout: str | None, sink: Callable[[str], None]) -> tuple[int, int]:
    """Write a record for each answer; returns how many there were, and how many had no error."""
    writers: dict[str | None, Callable[[Answer], None]] = {
        "json": lambda answer: sink(_json(answer, sink) + "\n"), "csv": _CsvWriter(sink),
        "array": lambda answer: sink(f"{',' if total > 1 else '['}\n{_json(answer, sink)}"),
    }  # fmt: skip
    write, total, good = writers.get(layout, _write_table), 0, 0
    for answer in answers:
        total, good = total + 1, good + (answer.error is None)
        write(answer)
    if layout == "array":
        sink("\n]\n" if total else "[]\n")
    return total, good


def _answers(model: str, images: tuple[str, ...], top: int) -> Iterator[Answer]:
    from ..native_library import load_library
    from ..process import spare_blas_threads
    from ..zoo import find_model

    if find_model(model).kind in ("sqz", "imagenet") and load_library() is not None:
        spare_blas_threads()  # the C engine does the work
    from .. import open_model, predict
    from ..images import MAX_FILE_BYTES

    predictor = open_model(model)
    while images:
        named = images.index("-") if "-" in images else len(images)
        if named:
            yield from predict(predictor, images[:named], top=top)
        for _ in images[named : named + 1]:
            stdin = io.BytesIO(sys.stdin.buffer.read(MAX_FILE_BYTES))
            for answer in predict(predictor, stdin, top=top):
                yield dataclasses.replace(answer, name="-")
        images = images[named + 1 :]


def _split_model(model: str | None, arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Separate MODEL from IMAGEs: the first argument is a MODEL if it names one, or nothing that exists.

    Raises:
        UsageError: If there is no image, or no MODEL either.
    """
    from ..zoo import default_model

    first = arguments[0] if arguments else ""
    if model is None and _is_model(first, is_alone=len(arguments) < 2):
        model, arguments = first, arguments[1:]
    if not arguments:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    if model is not None:
        return model, arguments
    if late := [argument for argument in arguments[1:] if _is_only_a_model(argument)]:
        raise click.UsageError(f"{printable(late[0])} is a MODEL: put it first, or use --model")
    name = default_model()
    if name is None:
        raise click.UsageError(
            "Missing argument 'MODEL': this installation does not include a network; name a file, or --model imagenet"
        )
    click.echo(f"model: {name}, from this package; use --model for another", err=True)
    return name, arguments


def _is_model(argument: str, *, is_alone: bool) -> bool:
    from ..architectures import SPEC_NAMES
    from ..errors import ModelNotFoundError
    from ..files import IMAGE_EXTENSIONS
    from ..zoo import FOREIGN_SUFFIXES, MODEL_SUFFIXES, find_model

    suffix = Path(argument).suffix.lower()
    if suffix in (*MODEL_SUFFIXES, *FOREIGN_SUFFIXES) or argument in SPEC_NAMES:
        return True
    try:
        find_model(argument)
    except ModelNotFoundError:
        is_image = not argument or argument == "-" or suffix in IMAGE_EXTENSIONS or glob.has_magic(argument)
        # What is neither there nor named like an image is a MODEL that is misspelt, if images follow.
        return not (is_alone or is_image or os.path.lexists(argument) or "://" in argument)
    return True


def _is_only_a_model(argument: str) -> bool:
    """Whether an argument names a network by its name or file, and cannot be a folder of images."""
    from ..errors import ModelNotFoundError
    from ..zoo import find_model

    try:
        return not os.path.isdir(argument) and bool(find_model(argument))
    except ModelNotFoundError:
        return False


def _predict_on_cluster(model: str, images: tuple[str, ...], output: str, address: str, top: int) -> None:
    from .. import predict_to_parquet

    if "-" in images:
        raise click.UsageError("--ray cannot read standard input")
    try:
        result = predict_to_parquet(model, list(images), output, address=address, top=top)
    except KeyboardInterrupt:
        click.echo("stopped; finished blocks are saved: repeat the command to continue", err=True)
        sys.exit(EXIT_INTERRUPTED)
    earlier = f", {result.n_earlier:,} of them by an earlier run" if result.n_earlier else ""
    click.echo(f"{output}: {result.n_images:,} images{earlier}, {result.n_errors:,} could not be read")
    if result.n_errors == result.n_images:
        raise click.ClickException("no image could be read")


def _write_data(text: str) -> None:
    """Write lines for another program: UTF-8, whatever the encoding of the console."""
    if sys.stdout is not None:
        sys.stdout.flush()
        _write_bytes(sys.stdout.buffer, text)
        sys.stdout.buffer.flush()


def _write_bytes(stream: BinaryIO, text: str) -> None:
    stream.write(text.encode("utf-8", "backslashreplace"))


def _is_shown(sink: Callable[[str], None]) -> bool:
    """Whether what is written is read by a person, on a terminal that obeys control characters."""
    return sink is _write_data and sys.stdout is not None and sys.stdout.isatty()


def _json(answer: Answer, sink: Callable[[str], None]) -> str:
    record: dict[str, Any] = {"image": answer.name}
    if answer.error is not None:
        record["error"] = answer.error
    else:
        if answer.is_unknown is not None:
            record["is_unknown"] = answer.is_unknown
        record["predictions"] = [dataclasses.asdict(prediction) for prediction in answer.predictions]
    return json.dumps(record, ensure_ascii=_is_shown(sink))


def _write_table(answer: Answer) -> None:
    if answer.error is not None:
        click.echo(f"{printable(answer.name)}\n    error: {printable(answer.error)}", err=True)
        return
    click.echo(printable(answer.name))
    if answer.is_unknown:
        click.echo("    unknown: perhaps none of the classes; the most probable of them are")
    for prediction in answer.predictions:
        click.echo(f"    {100 * prediction.probability:5.1f} %  {printable(prediction.label)}")


class _CsvWriter:
    """Rows that hold names as they are, but for cells that a spreadsheet would run as formulas."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink, self._has_header = sink, False

    def __call__(self, answer: Answer) -> None:
        if not self._has_header:
            self._write(*_CSV_HEADER)
            self._has_header = True
        if answer.error is not None:
            self._write(answer.name, "", "", "", "", "", answer.error)
        unknown = "" if answer.is_unknown is None else str(answer.is_unknown).lower()
        for rank, best in enumerate(answer.predictions, start=1):
            self._write(answer.name, rank, best.index, best.label, best.probability, unknown, "")

    def _write(self, *cells: object) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerow([self._cell(cell) for cell in cells])  # quotes both inside
        self._sink(text.getvalue().removesuffix("\r\n") + "\n")

    def _cell(self, cell: object) -> object:
        if not isinstance(cell, str):
            return cell
        text = f"'{cell}" if len(cell) > 1 and cell[0] in "=+-@\t\r" else cell
        return printable(text) if _is_shown(self._sink) else text
