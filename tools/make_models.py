"""Make the networks that come with the package: train by a committed recipe, compress, judge.

    python tools/make_models.py cifar10 [--run RUN/ [--compressed FILE.sqz] | --again]

Needs the data in ../shared; an hour of training and half an hour of compression on two cores. Writes
src/squeezenet/bundled/NAME.sqz, and report and model card into docs/models/. With `--run`, a finished run of that
recipe is taken instead of training one, with `--compressed` the file that the command below made of it; with `--again`
the file that is there and the facts of its card: only its temperature, its unknown rule and the pages are made anew.

The weights are those of the last epoch, so that the images that the card judges on choose nothing but these two. The
rule's vectors are of the images trained on, its threshold keeps 95 % of the right answers to the others; photos of
rubbish, which had no part in it, say what it catches.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared/data"
FOREIGN = DATA / "trash-360.zip"
MAX_EXAMPLES = 5000


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
    "imagenette": Made("small-photos", ("imagenette-train.zip",), "imagenette-val.zip", 118_000, 6),
}


def squeezenet(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "squeezenet", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--run", type=Path, help="a finished run to take")
    parser.add_argument("--compressed", type=Path, help="the file that was made of the run")
    parser.add_argument("--again", action="store_true", help="keep the network, measure and write the pages anew")
    arguments = parser.parse_args()
    made = MODELS[arguments.name]
    file = ROOT / f"src/squeezenet/bundled/{arguments.name}.sqz"
    if arguments.again:
        write_pages(arguments.name, file, made, facts_of_card(arguments.name))
        return
    train, val = [DATA / name for name in made.train], DATA / made.val
    run = arguments.run or ROOT / "runs" / arguments.name
    if arguments.run is None:
        squeezenet("train", *train, "--val", val, "--recipe", made.recipe, "--resume", "-o", run)
    facts = json.loads((run / "run.json").read_text())
    if facts["recipe"]["name"] != made.recipe:
        sys.exit(f"{run}: expected a run of the recipe {made.recipe}, got one of {facts['recipe']['name']}")
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
    from squeezenet.training.run_report import shown_facts

    float_top1 = ("float top-1 after the last epoch, on the same images", f"{float(last['top1']):.2f} %")
    write_pages(arguments.name, file, made, [float_top1, *_own(shown_facts(facts))])


def _own(facts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Facts that say something of the file: the command line holds folders, and the best epoch is not taken."""
    return [fact for fact in facts if fact[0] not in ("command", "best epoch")]


def facts_of_card(name: str) -> list[tuple[str, str]]:
    """What the present card says of how the network was made."""
    text = (ROOT / f"docs/models/{name}.md").read_text(encoding="utf-8").partition("## How it was made")[2]
    facts = re.findall(r"^\* (.+?): (.+)$", re.sub(r"\\(\W|_)", r"\1", text), re.MULTILINE)
    return [fact for fact in facts if fact[0] != "file"]


def write_pages(name: str, file: Path, made: Made, facts: list[tuple[str, str]]) -> None:
    from squeezenet import evaluate, open_data, store_confidence
    from squeezenet.evaluation.confidence import measure_confidence
    from squeezenet.evaluation.predictor import collect_logits, match_classes
    from squeezenet.reports.network_page import build_report, render_card, render_html

    plain = evaluate(file, DATA / made.val)
    examples = open_data([DATA / name for name in made.train]).sample(MAX_EXAMPLES)
    examples = collect_logits(plain.predictor, match_classes(plain.predictor, examples))
    confidence = measure_confidence(plain.scores, examples=examples)
    store_confidence(file, confidence)
    result = evaluate(file, DATA / made.val, foreign=FOREIGN)
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
            (
                "temperature",
                f"{confidence.temperature:g}; calibration error without it {100 * confidence.error_without:.2f} %",
            ),
            *(fact for fact in facts if fact[0] not in ("temperature", "calibration error without it")),
        ],
        foreign=result.foreign,
        is_fitted=True,
    )
    folder = ROOT / "docs/models"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.html").write_text(render_html(page), encoding="utf-8")
    card = render_card(page).replace("`report.html`", f"`{name}.html`")
    (folder / f"{name}.md").write_text(card, encoding="utf-8")
    print(f"{file}: {file.stat().st_size:,} bytes; docs/models/{name}.html and {name}.md")


if __name__ == "__main__":
    main()
