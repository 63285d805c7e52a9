"""`squeezenet compress`: from a float network to a `.sqz` file and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import CompressionError
from ..text import format_bytes, printable, table

if TYPE_CHECKING:
    from ..compression.report import CompressionReport

_METHODS = ("rate-distortion", "int8", "deep-compression")
_TARGET_MISSED = 3  # exit code: the file is written, but does not meet its budget
_SHOWN_CLASSES = 5

# Options of the methods: parameter of the command -> method -> field.
_FIELDS = {
    "max_bytes": {"rate-distortion": "max_bytes"},
    "max_kl": {"rate-distortion": "max_kl"},
    "max_drop": {"rate-distortion": "max_drop"},
    "polish": {"rate-distortion": "polish_minutes"},
    "density": {"deep-compression": "density"},
    "index_bits": {"deep-compression": "index_bits"},
    "prune_epochs": {"rate-distortion": "prune_epochs"},
    "epochs": {"rate-distortion": "epochs", "deep-compression": "share_epochs"},
}


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .sqz file to write.")
@click.option("--method", "--preset", "method", type=click.Choice(_METHODS), default=_METHODS[0], show_default=True,
              help="Compression method.")  # fmt: skip
@click.option("--calibration", multiple=True, metavar="DATA", help="Photos, labelled or not, to calibrate on.")
@click.option("--photos", type=click.IntRange(min=1), default=250, show_default=True,
              help="Number of photos to calibrate on; more are better but slower.")  # fmt: skip
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest file, bytes (rate-distortion).")
@click.option("--max-kl", type=click.FloatRange(0, min_open=True),
              help="Largest KL to the float network, nats (rate-distortion).  [default: 0.05]")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(0), metavar="POINTS",
              help="Largest loss of top-1 on --val, percentage points (rate-distortion).")  # fmt: skip
@click.option("--polish", type=click.FloatRange(0), default=0.0, metavar="MINUTES",
              help="Time to distil from the float network (rate-distortion).")  # fmt: skip
@click.option("--data", multiple=True, metavar="DATA", help="Labelled images to retrain on.")
@click.option("--unlabelled", multiple=True, metavar="DATA",
              help="Photos without labels to distil on, thousands if possible (rate-distortion).")  # fmt: skip
@click.option("--val", multiple=True, metavar="DATA", help="Labelled images to measure accuracy on.")
@click.option("--density", type=click.FloatRange(0, 1, min_open=True), default=0.385, show_default=True,
              help="Share of the weights to keep (deep-compression).")  # fmt: skip
@click.option("--index-bits", type=click.IntRange(1, 8), default=5, show_default=True,
              help="Bits per weight before coding: at most 2^bits - 1 shared values (deep-compression).")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), default=None,
              help="Epochs on --data or --unlabelled (rate-distortion), or of training the shared values"
              " (deep-compression).")  # fmt: skip
@click.option("--prune-epochs", type=click.IntRange(min=0), default=0, show_default=True,
              help="Epochs on --data before rounding that remove weights step by step; for low budgets"
              " (rate-distortion).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context, /, model: str, output: Path, method: str, calibration: tuple[str, ...], photos: int,
    data: tuple[str, ...], unlabelled: tuple[str, ...], val: tuple[str, ...], as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Compress a trained network to a .sqz file.

    \b
    rate-distortion   spends bytes where the loss is sensitive to them, within a limit on
                      bytes, KL or lost accuracy. Needs a few hundred photos
                      (--calibration); with thousands of labelled (--data) or unlabelled
                      photos (--unlabelled), the file is more accurate
    int8              8-bit weights; a few photos (--calibration) set the scales
    deep-compression  the 2016 pipeline: prune, retrain, share weights, train the shared
                      values. Needs labelled images (--data)

    Also writes FILE.report.json: bytes of every layer, fidelity to the float network on held-out photos, and, with
    --val, accuracy. If the limit cannot be met, the closest file is written and the exit code is 3.
    """
    given = {name for name in options if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE}
    for name in sorted(given):
        if method not in _FIELDS[name]:
            raise click.UsageError(f"{_flag(name)} applies to --method {' or '.join(_FIELDS[name])}, not to {method}")
    from .. import compress
    from ..compression.methods import METHODS
    from ..process import keep_freed_memory
    from ..zoo import find_model

    keep_freed_memory()
    find_model(model)  # a misspelt MODEL is named before any other mistake
    try:
        fields = {_FIELDS[name][method]: options[name] for name in given}
        result = compress(
            model, output, method=METHODS[method](**fields), calibration=calibration or None, n_photos=photos,
            data=data or None, unlabelled=unlabelled or None, val=val or None,
        )  # fmt: skip
    except CompressionError as error:
        raise click.UsageError(_in_flags(str(error), method)) from None
    if as_json:
        click.echo(json.dumps(result.report.to_dict()))
    else:
        _show(result.report, output)
    if not result.meets_target:
        click.echo("the budget was not met; this is the closest file that was found", err=True)
        ctx.exit(_TARGET_MISSED)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _in_flags(message: str, method: str) -> str:
    """Name options in a message as the command line does."""
    names = {fields[method]: name for name, fields in _FIELDS.items() if method in fields}
    for field in (*names, "data", "unlabelled", "val", "calibration"):
        message = message.replace(f"`{field}`", _flag(names.get(field, field)))
    return message


def _show(report: CompressionReport, output: Path) -> None:
    if report.layers_2016:
        from ..compression.report import pruning_table, storage_table

        header = ("layer", "params", "kept", "params kept", "shared values")
        click.echo(table(header, pruning_table(report.layers_2016)) + "\n")
        click.echo(table(("step", "bytes", "ratio"), storage_table(report.layers_2016, report.file.file_bytes)) + "\n")
    file = report.file
    click.echo(
        f"{printable(output)}: {file.file_bytes:,} bytes ({format_bytes(file.fp32_bytes)} as float32,"
        f" {file.ratio_vs_fp32:.1f}x smaller; {file.ratio_vs_alexnet:.0f}x smaller than AlexNet,"
        f" where the paper reached 510x)"
    )
    if fidelity := report.fidelity:
        click.echo(
            f"compared with the float network on {fidelity.n_images} held-out photos: KL {fidelity.kl:.4f} nats,"
            f" same class for {fidelity.agreement:.1f} %"
        )
    if distilled := report.distilled:
        end = "" if distilled.has_helped else "; no network was better, so the file is the one before distillation"
        click.echo(
            f"distillation: KL {distilled.kl_before:.4f} -> {distilled.kl_after:.4f} on held-out calibration photos,"
            f" {distilled.own_kl_before:.4f} -> {distilled.own_kl_after:.4f} on held-out unlabelled photos{end}"
        )
    if comparison := report.comparison:
        before, after = comparison.accuracies
        click.echo(
            f"top-1 {after.top1:.2f} % (float {before.top1:.2f} %), top-5 {after.top5:.2f} %"
            f" (float {before.top5:.2f} %) of {after.n_images} images; McNemar's p {comparison.mcnemar_p:.2g}"
        )
        worse = [row for row in comparison.losses_by_class() if row["compressed_correct"] < row["float_correct"]]
        if worse:
            keys = ("class", "n_images", "float_correct", "compressed_correct")
            rows = [tuple(printable(row[key]) for key in keys) for row in worse[:_SHOWN_CLASSES]]
            click.echo(table(("classes that lost most", "images", "correct, float", "correct now"), rows))
    click.echo(
        f"report: {printable(output)}.report.json"
        + (f", plot: {printable(output)}.report.svg" if report.points else "")
    )
