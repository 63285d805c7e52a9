"""Make the networks that come with the package: train by a committed recipe, compress, judge.

    python tools/make_models.py cifar10 [--run RUN/ [--compressed FILE.sqz]]

Needs the data in ../shared; an hour of training and half an hour of compression on two cores. Writes
src/squeezenet/bundled/NAME.sqz, and report and model card into docs/models/. With `--run`, a finished run of that
recipe is taken instead of training one, with `--compressed` the file that the command below made of it. The weights are
those of the last epoch, so that the images that the card judges on choose nothing but the probability of "unknown".
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data"


@dataclass(frozen=True)
class Made:
    """What a bundled network is made of."""

    recipe: str
    train: tuple[str, ...]
    val: str
    max_bytes: int
    epochs: int
    """Of training the integers."""


MODELS = {
    "cifar10": Made("cifar10", ("cifar10-train-0.zip", "cifar10-train-1.zip"), "cifar10-val.zip", 96_000, 6),
    "imagenette": Made("small-photos", ("imagenette-train.zip",), "imagenette-val.zip", 150_000, 6),
}


def squeezenet(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "squeezenet", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--run", type=Path, help="a finished run to take")
    parser.add_argument("--compressed", type=Path, help="the file that was made of the run")
    arguments = parser.parse_args()
    made = MODELS[arguments.name]
    train, val = [DATA / name for name in made.train], DATA / made.val
    run = arguments.run or ROOT / "runs" / arguments.name
    if arguments.run is None:
        squeezenet("train", *train, "--val", val, "--recipe", made.recipe, "--resume", "-o", run)
    facts = json.loads((run / "run.json").read_text())
    if facts["recipe"]["name"] != made.recipe:
        sys.exit(f"{run}: expected a run of the recipe {made.recipe}, got one of {facts['recipe']['name']}")
    file = ROOT / f"src/squeezenet/bundled/{arguments.name}.sqz"
    if arguments.compressed:
        shutil.copyfile(arguments.compressed, file)
    else:
        squeezenet(
            "compress", run / "last.safetensors", "-o", file, "--max-bytes", made.max_bytes, "--photos", 1000,
            "--epochs", made.epochs, "--val", val, *(option for path in train for option in ("--data", path)),
        )  # fmt: skip
        for extra in ("json", "svg"):  # their facts are in the card
            Path(f"{file}.report.{extra}").unlink()
    with (run / "log.csv").open(newline="") as stream:
        last = list(csv.DictReader(stream))[-1]
    write_pages(arguments.name, file, val, facts, float(last["top1"]))


def _own(facts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Facts that say something of the file: the command line holds folders, and the best epoch is not taken."""
    return [fact for fact in facts if fact[0] not in ("command", "best epoch")]


def write_pages(name: str, file: Path, val: Path, facts: dict[str, object], float_top1: float) -> None:
    from squeezenet import evaluate
    from squeezenet.reports.network_page import build_report, render_card, render_html
    from squeezenet.training.run_report import shown_facts

    result = evaluate(file, val)
    spec = result.predictor.spec
    page = build_report(
        result.predictor,
        result.images,
        result.scores,
        title=f"{name}.sqz",
        subtitle=f"{spec.name}, {spec.num_classes} classes, {file.stat().st_size:,} bytes",
        warnings=[],
        facts=[
            ("file", f"{file.stat().st_size:,} bytes"),
            ("float top-1 after the last epoch, on the same images", f"{float_top1:.2f} %"),
            *_own(shown_facts(facts)),
        ],
    )
    folder = ROOT / "docs/models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.html").write_text(render_html(page), encoding="utf-8")
    card = render_card(page).replace("`report.html`", f"`{name}.html`")
    (folder / f"{name}.md").write_text(card, encoding="utf-8")
    print(f"{file}: {file.stat().st_size:,} bytes; docs/models/{name}.html and {name}.md")


if __name__ == "__main__":
    main()
