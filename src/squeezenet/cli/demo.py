"""`squeezenet demo`: the whole path on data that is already there."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..text import format_bytes, table


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True,
              help="Folder for all files of the demo.")  # fmt: skip
def command(output: Path) -> None:
    """Train on handwritten digits, compress, measure, predict and export a web page, in a minute on two cores."""
    from .. import DeepCompression, compress, evaluate, export, open_data, predict, train

    start = time.monotonic()
    click.echo("1/4  Training SqueezeNet on scikit-learn's 8x8 handwritten digits.")
    output.mkdir(parents=True, exist_ok=True)
    run = train("digits", run_dir=_fresh(output / "run"))

    click.echo("2/4  Compressing it: prune, retrain, share weights, train the shared values.")
    file = output / "digits.sqz"
    method = DeepCompression(density=0.3, index_bits=5, prune_epochs=2, share_epochs=2, lr=1e-3)
    small = compress(run.best, file, method=method, data="digits")

    click.echo("3/4  Measuring both on images that neither has seen.")
    fp32_bytes = small.report.file.fp32_bytes
    rows = []
    for name, model, size in (("float", run.best, fp32_bytes), ("compressed", file, small.file_bytes)):
        accuracy = evaluate(model, "digits").accuracy
        low, high = accuracy.top1_interval
        ratio = f"{fp32_bytes / size:.1f}x"
        rows.append((name, f"{size:,}", ratio, f"{accuracy.top1:.2f} %", f"{low:.1f} to {high:.1f}"))
    click.echo(table(("network", "bytes", "ratio", "top-1", "95 % interval"), rows))

    click.echo("4/4  Classifying one of them with the compressed file, and exporting the file as a web page.")
    val = open_data("digits", split="val")
    image = output / "digit.png"
    image.write_bytes(val.read(0))
    best = next(predict(file, image, top=1)).predictions[0]
    click.echo(f"{image}: {best.label} ({100 * best.probability:.1f} %); its label is {val.classes[val.labels[0]]}")
    page = export(file, file.with_suffix(".html")).files[0]
    click.echo(
        f"\nDone in {time.monotonic() - start:.0f} s.\n\n"
        f"Open {page} in a browser ({format_bytes(page.stat().st_size)}, works offline) and drop {image} on it.\n"
        f"The model is {file} ({format_bytes(small.file_bytes)}); the float network, {run.best}.\n\n"
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
