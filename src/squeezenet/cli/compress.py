"""`squeezenet compress`: from a float network to a `.sqz` file and a report."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..text import format_bytes, printable, table

if TYPE_CHECKING:
    from ..compression.methods import Outcome
    from ..data import ImageSet
    from ..models import SqueezeNet
    from ..network import IntegerNetwork
    from ..progress import Reporter
    from ..quantization.photos import CalibrationPhotos

_PRESETS = ("rate-distortion", "int8", "deep-compression")
_TARGET_MISSED = 3  # exit code: the file is written, but does not meet its budget
_SHOWN_CLASSES = 5


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .sqz file to write.")
@click.option("--preset", type=click.Choice(_PRESETS), default=_PRESETS[0], show_default=True, help="How.")
@click.option("--calibration", multiple=True, metavar="DATA", help="Photos, labelled or not, to set scales with.")
@click.option(
    "--photos",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Photos to calibrate on; more are better and slower.",
)
@click.option("--max-bytes", type=click.IntRange(min=1), help="Largest file (rate-distortion).")
@click.option("--max-kl", type=click.FloatRange(0, min_open=True),
              help="Largest KL to the float network, nats (rate-distortion).  [default: 0.05]")  # fmt: skip
@click.option("--max-drop", type=click.FloatRange(0), metavar="POINTS",
              help="Most points of top-1 on --val to lose (rate-distortion).")  # fmt: skip
@click.option("--polish", type=click.FloatRange(0), default=0.0, metavar="MINUTES",
              help="Distil from the float network for so long (rate-distortion).")  # fmt: skip
@click.option("--data", multiple=True, metavar="DATA", help="Labelled images to retrain on.")
@click.option("--val", multiple=True, metavar="DATA", help="Labelled images to measure accuracy on.")
@click.option("--density", type=click.FloatRange(0, 1, min_open=True), default=0.385, show_default=True,
              help="Share of the weights to keep (deep-compression).")  # fmt: skip
@click.option("--index-bits", type=click.IntRange(1, 8), default=5, show_default=True,
              help="Bits of a shared value's code (deep-compression).")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), default=None,
              help="Epochs on --data: in all (rate-distortion), of shared values (deep-compression).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    output: Path,
    preset: str,
    calibration: tuple[str, ...],
    photos: int,
    max_bytes: int | None,
    max_kl: float | None,
    max_drop: float | None,
    polish: float,
    data: tuple[str, ...],
    val: tuple[str, ...],
    density: float,
    index_bits: int,
    epochs: int | None,
    as_json: bool,
) -> None:
    """Squeeze a trained network into a .sqz file.

    \b
    rate-distortion   spends bytes where the loss feels them, to a budget of bytes,
                      of KL or of points; wants a few hundred photos
                      (--calibration); labelled images (--data) save more
    int8              8-bit weights; a few photos (--calibration) set the scales
    deep-compression  the 2016 pipeline: prune, retrain, share weights, train the
                      shared values; retrains on labelled images (--data)

    The report is written beside the file, as FILE.report.json: bytes of every layer, fidelity to the float network
    on photos set aside, and accuracy where --val is given. If a budget cannot be met, the nearest file is written
    and the exit code is 3.
    """
    if preset == "deep-compression" and not data:
        raise click.UsageError("the deep-compression preset retrains: give labelled images with --data DATA")
    if sum(budget is not None for budget in (max_bytes, max_kl, max_drop)) > 1:
        raise click.UsageError("--max-bytes, --max-kl and --max-drop exclude each other: one is the budget")
    if max_drop is not None and not val:
        raise click.UsageError("--max-drop is measured on labelled images: give them with --val DATA")
    if polish and data and preset == "rate-distortion":
        raise click.UsageError("--polish and --data exclude each other: give the length of training as --epochs")
    if not output.parent.is_dir():  # minutes of work must not end in a folder that does not exist
        raise click.UsageError(f"{output.parent}: no such folder; make it first")
    import numpy as np

    from ..classifier import Classifier
    from ..compression import methods as presets
    from ..compression.deep.deep_compression import DeepCompression
    from ..compression.plot import plot_points
    from ..compression.report import compression_report, measure_fidelity
    from ..data import open_data
    from ..evaluation.comparison import AccuracyComparer
    from ..evaluation.predictor import FloatPredictor
    from ..evaluation.reliability import unknown_threshold
    from ..fileformat import SqzFile, decode_sqz, encode_sqz
    from ..files import atomic_write
    from ..models import fold_batch_norm, load_model
    from ..process import keep_freed_memory
    from ..progress import reporter_for
    from ..quantization.int8 import quantize_int8

    start = time.monotonic()
    keep_freed_memory()
    reporter = reporter_for()
    network = load_model(model).eval()
    if network.spec.batch_norm:
        network = fold_batch_norm(network)
    labelled = open_data(data, split="train") if data else None
    seen = _calibration(network, calibration, labelled, photos, reporter)
    if labelled is not None and not calibration:  # what the report judges on is not trained on
        labelled = labelled.subset(np.setdiff1d(np.arange(len(labelled)), seen.held_out_indices).tolist())
    reference = FloatPredictor(network)
    judge = AccuracyComparer(reference, open_data(val, split="val")) if val else None
    facts: dict[str, Any] = {"provenance": {**network.provenance, "compressed": {"preset": preset}}}
    if judge:
        facts["unknown_below"] = 0.1234  # as many bytes as the measured value will take

    def contents(integers: IntegerNetwork) -> SqzFile:
        return SqzFile(network=integers, labels=network.labels, preprocessing=network.preprocessing, facts=facts)

    def encode(integers: IntegerNetwork) -> bytes:
        return encode_sqz(contents(integers))

    def points_lost(integers: IntegerNetwork) -> float:
        assert judge is not None
        return judge(Classifier(contents(integers))).points_lost

    if preset == "int8":
        outcome = presets.Outcome(network=quantize_int8(network, seen, reporter))
    elif preset == "deep-compression":
        settings = DeepCompression(
            density=density, index_bits=index_bits, share_epochs=epochs or DeepCompression.share_epochs
        )
        assert labelled is not None
        outcome = presets.run_deep_compression(network, seen, labelled, settings, reporter)
    else:
        outcome = presets.run_rate_distortion(
            network,
            seen,
            max_bytes=max_bytes,
            max_kl=max_kl,
            max_drop=max_drop,
            points_lost=points_lost if max_drop is not None else None,
            polish_minutes=polish,
            data=labelled,
            epochs=epochs or 2,
            file_bytes=lambda integers: len(encode(integers)),
            reporter=reporter,
        )
    encoded = encode(outcome.network)
    # The encoded file, decoded again: what is reported is what a user of the file gets.
    compressed = Classifier(decode_sqz(encoded))
    comparison = judge(compressed) if judge else None
    if comparison:
        found = unknown_threshold(comparison.compressed_logits, comparison.labels)
        facts["unknown_below"] = found.unknown_below
        with_threshold = encode(outcome.network)
        if max_bytes and len(with_threshold) > max_bytes >= len(encoded):
            del facts["unknown_below"]
            with_threshold = encode(outcome.network)
        encoded = with_threshold
    report = compression_report(
        encoded,
        preset=preset,
        fidelity=measure_fidelity(reference, compressed, seen.held_out) if len(seen.held_out) else None,
        comparison=comparison,
        layers_2016=outcome.layers_2016,
        model=model,
        seconds=time.monotonic() - start,
        calibration_photos=0 if seen.is_synthetic else len(seen.pixels),
        is_data_free=seen.is_synthetic,
        is_chosen_on_val=max_drop is not None,
        meets_target=outcome.meets_target,
        points=[dataclasses.asdict(point) for point in outcome.points],
    )
    with atomic_write(output) as stream:
        stream.write(encoded)
    with atomic_write(f"{output}.report.json") as stream:
        stream.write(json.dumps(report, indent=1).encode())
    if outcome.points:
        kl = report["fidelity"]["kl"] if report["fidelity"] else None
        title = f"{network.spec.name}: networks the search looked at"
        with atomic_write(f"{output}.report.svg") as stream:
            stream.write(plot_points(outcome.points, file_bytes=len(encoded), kl=kl, title=title))
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show(report, outcome, output)
    if not outcome.meets_target:
        click.echo("the budget was not met; this is the nearest file that was found", err=True)
        ctx.exit(_TARGET_MISSED)


def _calibration(
    model: SqueezeNet, photos: tuple[str, ...], labelled: ImageSet | None, n_images: int, reporter: Reporter
) -> CalibrationPhotos:
    from ..data import open_data
    from ..quantization.photos import calibration_from_images, calibration_from_noise
    from ..quantization.quantize import required_preprocessing

    preprocessing = required_preprocessing(model)
    if photos:
        images = open_data(photos, split="train", unlabelled=True)
    elif labelled is not None:
        images = labelled
    else:
        reporter.say("no --calibration photos: synthetic pictures stand in, and fidelity is unknown")
        return calibration_from_noise(preprocessing)
    return calibration_from_images(images, preprocessing, n_images=n_images)


def _show(report: dict[str, Any], outcome: Outcome, output: Path) -> None:
    if outcome.layers_2016:
        from ..compression.report import pruning_table, storage_table

        header = ("layer", "params", "kept", "params kept", "shared values")
        click.echo(table(header, pruning_table(outcome.layers_2016)))
        click.echo()
        click.echo(table(("step", "bytes", "ratio"), storage_table(outcome.layers_2016, report["file_bytes"])))
        click.echo()
    click.echo(
        f"{output}: {report['file_bytes']:,} bytes ({format_bytes(report['fp32_bytes'])} as float32,"
        f" {report['ratio_vs_fp32']:.1f}x smaller; {report['ratio_vs_alexnet']:.0f}x smaller than AlexNet,"
        f" where the paper reached {report['paper']['ratio_vs_alexnet']}x)"
    )
    if fidelity := report["fidelity"]:
        click.echo(
            f"against the float network, on {fidelity['n_images']} photos set aside: KL {fidelity['kl']:.4f} nats,"
            f" same class on {fidelity['agreement']:.1f} %"
        )
    if accuracy := report["accuracy"]:
        before, after = accuracy["float"], accuracy["compressed"]
        click.echo(
            f"top-1 {after['top1']:.2f} % (float {before['top1']:.2f} %), top-5 {after['top5']:.2f} %"
            f" (float {before['top5']:.2f} %) of {after['n_images']} images; McNemar's p {accuracy['mcnemar_p']:.2g}"
        )
        lost = [row for row in accuracy["classes"] if row["compressed_correct"] < row["float_correct"]][:_SHOWN_CLASSES]
        if lost:
            keys = ("class", "n_images", "float_correct", "compressed_correct")
            rows = [tuple(printable(str(row[key])) for key in keys) for row in lost]
            click.echo(table(("classes that lost most", "images", "right, float", "right now"), rows))
    click.echo(f"report: {output}.report.json" + (f", plot: {output}.report.svg" if outcome.points else ""))
