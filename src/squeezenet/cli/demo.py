"""`squeezenet demo`: the whole path on data that is already there."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..text import format_bytes, table


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="Folder for everything the demo writes.")  # fmt: skip
def command(output: Path) -> None:
    """Train on handwritten digits, compress, measure, predict and export a web page, in a minute on two cores."""
    from ..classifier import Classifier
    from ..compression.deep.deep_compression import DeepCompression, deep_compress
    from ..compression.retrain import Retrainer
    from ..data import open_data
    from ..evaluation.metrics import Accuracy
    from ..evaluation.predictor import FloatPredictor, collect_logits, match_classes
    from ..exports import export_web
    from ..fileformat import SqzFile, write_sqz
    from ..models import load_model
    from ..progress import reporter_for
    from ..training import train_model

    start = time.monotonic()
    reporter = reporter_for()
    click.echo("1/4  Training SqueezeNet on scikit-learn's 8x8 handwritten digits.")
    output.mkdir(parents=True, exist_ok=True)
    run = train_model("digits", run_dir=_fresh(output / "run"), progress=reporter)
    model = load_model(run.best).eval()

    click.echo("2/4  Squeezing it: prune, retrain, share weights, train the shared values.")
    val = open_data("digits", split="val")
    retrainer = Retrainer(open_data("digits", split="train"), model, reporter)
    settings = DeepCompression(density=0.3, index_bits=5, prune_epochs=2, share_epochs=2, lr=1e-3)
    result = deep_compress(model, retrainer, list(retrainer.calibration(250)), settings)
    file = output / "digits.sqz"
    facts = {"provenance": {**model.provenance, "compressed": {"preset": "deep-compression"}}}
    contents = SqzFile(network=result.network, labels=model.labels, preprocessing=model.preprocessing, facts=facts)
    file_bytes = write_sqz(file, contents)

    click.echo("3/4  Measuring both on images that neither has seen.")
    rows = []
    fp32_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    for name, predictor, size in (
        ("float", FloatPredictor(model), fp32_bytes),
        ("squeezed", Classifier(file), file_bytes),
    ):
        scores = collect_logits(predictor, match_classes(predictor, val))
        accuracy = Accuracy.of(scores.logits, scores.labels)
        low, high = accuracy.top1_interval
        rows.append(
            (name, f"{size:,}", f"{fp32_bytes / size:.1f}x", f"{accuracy.top1:.2f} %", f"{low:.1f} to {high:.1f}")
        )
    click.echo(table(("network", "bytes", "ratio", "top-1", "95 % interval"), rows))

    click.echo("4/4  Predicting one of them with the squeezed file alone, and exporting it as a web page.")
    image = output / "digit.png"
    image.write_bytes(val.read(0))
    best = Classifier(file).predict(image, top=1)[0][0]
    truth = val.classes[val.labels[0]]
    click.echo(f"{image}: a {best.label}, {100 * best.probability:.1f} % sure (it is a {truth})")
    page = file.with_suffix(".html")
    page_bytes = export_web(file, page).page_bytes
    click.echo(
        f"\nDone in {time.monotonic() - start:.0f} s.\n\n"
        f"Open {page} in a browser ({format_bytes(page_bytes)}, works offline) and drop {image} on it.\n"
        f"The model is {file} ({format_bytes(file_bytes)}); the float network, {run.best}.\n\n"
        f"Next:\n"
        f"  squeezenet info {file}\n"
        f"  squeezenet predict {image} --model {file}\n"
        f"  squeezenet train YOUR_PHOTOS/ -o run/"
    )


def _fresh(run_dir: Path) -> Path:
    """A folder name that no earlier demo has used, since a run is never overwritten."""
    number = 1
    fresh = run_dir
    while fresh.exists():
        number += 1
        fresh = run_dir.with_name(f"{run_dir.name}-{number}")
    return fresh
