"""`squeezenet compress`: from a float network to a `.sqz` file and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .text import format_bytes, table

if TYPE_CHECKING:
    from ..compress.calibration import Calibration
    from ..compress.deep_compression import DeepCompressionResult
    from ..models import SqueezeNet
    from ..network import Network
    from ..train.progress import Reporter

_PRESETS = ("int8", "deep-compression")


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .sqz file to write.")
@click.option("--preset", type=click.Choice(_PRESETS), default="int8", show_default=True, help="How to compress.")
@click.option("--calibration", multiple=True, metavar="DATA", help="Photos, labelled or not, to set scales with.")
@click.option("--photos", type=click.IntRange(min=1), default=250, show_default=True, help="Photos to calibrate on.")
@click.option("--data", multiple=True, metavar="DATA", help="Labelled images to retrain on (deep-compression).")
@click.option("--val", multiple=True, metavar="DATA", help="Labelled images to measure accuracy on.")
@click.option("--density", type=click.FloatRange(0, 1, min_open=True), default=0.33, show_default=True,
              help="Share of the weights to keep (deep-compression).")  # fmt: skip
@click.option("--index-bits", type=click.IntRange(1, 8), default=6, show_default=True,
              help="Bits of a shared value's code (deep-compression).")  # fmt: skip
@click.option("--epochs", type=click.IntRange(min=1), default=None,
              help="Epochs of retraining a round (deep-compression).  [default: 2]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    model: str,
    output: Path,
    preset: str,
    calibration: tuple[str, ...],
    photos: int,
    data: tuple[str, ...],
    val: tuple[str, ...],
    density: float,
    index_bits: int,
    epochs: int | None,
    as_json: bool,
) -> None:
    """Squeeze a trained network into a .sqz file.

    \b
    int8              rounds the weights to 8 bits; a few photos (--calibration) set the scales
    deep-compression  the 2016 method: prune, retrain, share weights, train the centroids;
                      retrains on --data

    The report is written beside the file, as FILE.report.json: bytes of every layer, fidelity to the float network
    on photos set aside, and accuracy where --val is given.
    """
    if preset == "deep-compression" and not data:
        raise click.UsageError("the deep-compression preset retrains: give labelled images with --data DATA")
    _check_folder(output)
    from ..compress.deep_compression import DeepCompression
    from ..compress.report import compression_report, measure_fidelity
    from ..evaluate.predictor import FloatPredictor
    from ..fileformat import SqzFile, encode_sqz
    from ..files import atomic_write
    from ..models import load_model
    from ..train.progress import reporter_for

    reporter = reporter_for()
    network = load_model(model).eval()
    if network.spec.batch_norm:
        from ..models import fold_batch_norm

        network = fold_batch_norm(network)
    settings = DeepCompression(density=density, index_bits=index_bits, prune_epochs=epochs or 2)
    photos_seen = _calibration(network, calibration or data, photos, reporter)
    integers, result = _compress(network, preset, photos_seen, data, settings, reporter)
    facts = {
        "provenance": {**network.provenance, "compressed": {"preset": preset}},
    }
    contents = SqzFile(network=integers, labels=network.labels, preprocessing=network.preprocessing, facts=facts)
    encoded = encode_sqz(contents)
    reference, compressed = FloatPredictor(network), _classifier(encoded)
    held_out = photos_seen.held_out
    report = compression_report(
        encoded,
        preset=preset,
        fidelity=measure_fidelity(reference, compressed, held_out) if len(held_out) else None,
        accuracy=_accuracies(reference, compressed, val) if val else None,
        layers_2016=result.layers if result else (),
        model=model,
        calibration_photos=0 if photos_seen.is_synthetic else len(photos_seen.pixels),
        is_data_free=photos_seen.is_synthetic,
    )
    with atomic_write(output) as stream:
        stream.write(encoded)
    with atomic_write(f"{output}.report.json") as stream:
        stream.write(json.dumps(report, indent=1).encode())
    if as_json:
        click.echo(json.dumps(report))
    else:
        _show(report, result, output)


def _check_folder(output: Path) -> None:
    # Minutes of work must not end in a folder that does not exist.
    if not output.parent.is_dir():
        raise click.UsageError(f"{output.parent}: no such folder; make it first")


def _calibration(model: SqueezeNet, data: tuple[str, ...], n_images: int, reporter: Reporter) -> Calibration:
    from ..compress.calibration import calibration_from_images, calibration_from_noise
    from ..compress.quantize import required_preprocessing
    from ..data import open_data

    preprocessing = required_preprocessing(model)
    if not data:
        reporter.say("no --calibration photos: scales are set on synthetic pictures, and fidelity is not measured")
        return calibration_from_noise(preprocessing)
    images = open_data(data, split="train", unlabelled=True)
    return calibration_from_images(images, preprocessing, n_images=n_images)


def _compress(
    model: SqueezeNet,
    preset: str,
    photos: Calibration,
    data: tuple[str, ...],
    settings: Any,
    reporter: Reporter,
) -> tuple[Network, DeepCompressionResult | None]:
    if preset == "int8":
        from ..compress.int8 import compress_int8

        with reporter.task("calibrating", len(photos.pixels)) as task:
            done = 0

            def watched() -> Any:
                nonlocal done
                for batch in photos.batches():
                    yield batch
                    done += len(batch)
                    task.update(done)

            return compress_int8(model, watched()), None
    from ..compress.deep_compression import deep_compress
    from ..compress.retrain import Retrainer
    from ..data import open_data

    images = open_data(data, split="train")
    if model.labels is not None:
        images = images.relabel(model.labels.match(images.classes), model.labels.names)
    retrainer = Retrainer(images, model, reporter)
    result = deep_compress(model, retrainer, photos.batches(), settings)
    return result.network, result


def _classifier(encoded: bytes) -> Any:
    """The encoded file, decoded again: what is reported is what a user of the file gets."""
    from ..classifier import Classifier
    from ..fileformat import decode_sqz

    return Classifier(decode_sqz(encoded))


def _accuracies(reference: Any, compressed: Any, val: tuple[str, ...]) -> tuple[Any, Any]:
    from ..data import open_data
    from ..evaluate.metrics import Accuracy
    from ..evaluate.predictor import collect_logits, match_classes

    images = open_data(val, split="val")
    scores = [collect_logits(predictor, match_classes(predictor, images)) for predictor in (reference, compressed)]
    before, after = (Accuracy.of(score.logits, score.labels) for score in scores)
    return before, after


def _show(report: dict[str, Any], result: DeepCompressionResult | None, output: Path) -> None:
    if result is not None:
        from ..compress.report import pruning_table, storage_table

        header = ("layer", "params", "kept", "params kept", "shared values")
        click.echo(table(header, pruning_table(result.layers)))
        click.echo()
        click.echo(table(("step", "bytes", "ratio"), storage_table(result.layers, report["file_bytes"])))
        click.echo()
    click.echo(
        f"{output}: {report['file_bytes']:,} bytes ({format_bytes(report['fp32_bytes'])} as float32,"
        f" {report['ratio_vs_fp32']:.1f}x smaller; {report['ratio_vs_alexnet']:.0f}x smaller than AlexNet)"
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
            f" (float {before['top5']:.2f} %) of {after['n_images']} images"
        )
    click.echo(f"report: {output}.report.json")
