"""What a head of `trash-360` takes for unknown: photos of other things, by their features and by the probability.

python benchmarks/unknown.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from check import published
from environment import SHARED, describe_run, write_results
from numpy.typing import NDArray

from squeezenet import Classifier, open_data
from squeezenet.checking.labels import leave_one_out
from squeezenet.data import decode_batches
from squeezenet.unknown import UnknownRule, fit_unknown, squared_cosines

N_DRAWS = 10
PER_CLASS = (10, 25, 50)
ANIMALS = slice(151, 294)  # ImageNet's dogs, wolves, foxes and cats
FOREIGN = ("imagenette-val", "cats and dogs")


def look(classifier: Classifier, path: Path, *, unlabelled: bool = False) -> tuple[NDArray[Any], ...]:
    """Features, logits and labels of a set."""
    images = open_data(path, unlabelled=unlabelled)
    parts = [(*classifier.outputs(b.pixels), b.indices) for b in decode_batches(images, classifier.preprocessing)]
    logits, features, indices = (np.concatenate(part) for part in zip(*parts, strict=True))
    return features, logits, np.zeros(len(indices), int) if unlabelled else np.array(images.labels)[indices]


def auroc(own: NDArray[Any], foreign: NDArray[Any]) -> float:
    """Probability that a photo of a class scores higher than a foreign one."""
    below = np.searchsorted(np.sort(foreign), own, side="left") + np.searchsorted(np.sort(foreign), own, side="right")
    return float(below.mean() / 2 / len(foreign))


def caught_at_95(own: NDArray[Any], foreign: NDArray[Any]) -> float:
    """Percent of foreign photos below the score that 95 % of the others reach."""
    return 100 * float((foreign < np.sort(own)[len(own) * 5 // 100]).mean())


def nearest(rule: UnknownRule, features: NDArray[Any]) -> NDArray[Any]:
    return squared_cosines(features, rule.vectors).max(axis=1)


def draw(seed: int, per_class: int, own: NDArray[Any], labels: NDArray[Any], foreign: dict[str, Any]) -> dict[str, Any]:
    """Make a rule of some photos of each class, judge it by the others and by foreign ones."""
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == k))[:per_class] for k in np.unique(labels)])
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    right = leave_one_out(own[chosen], labels[chosen], int(labels.max()) + 1).argmax(axis=1) == labels[chosen]
    rule = fit_unknown(own[chosen], labels[chosen], counts=right).rule
    scores = nearest(rule, own[rest])
    found: dict[str, Any] = {"kept": 100 * float((scores >= rule.threshold).mean())}
    for name, features in foreign.items():
        others = nearest(rule, features)
        found[name] = {
            "auroc": auroc(scores, others), "caught_at_95": caught_at_95(scores, others),
            "caught": 100 * float((others < rule.threshold).mean()),
        }  # fmt: skip
    return found


def mean(draws: list[dict[str, Any]]) -> dict[str, Any]:
    first = draws[0]
    return {
        key: mean([found[key] for found in draws]) if isinstance(first[key], dict)
        else round(float(np.mean([found[key] for found in draws])), 4)
        for key in first
    }  # fmt: skip


def main() -> None:
    classifier = Classifier(published())
    own, _, labels = look(classifier, SHARED / "data/trash-360.zip")
    imagenette, _, _ = look(classifier, SHARED / "data/imagenette-val.zip")
    photos, logits, _ = look(classifier, SHARED / "data/photos-2400.zip", unlabelled=True)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    is_animal = shares[:, ANIMALS].sum(axis=1) > 0.1 * shares.sum(axis=1)
    foreign = {FOREIGN[0]: imagenette, FOREIGN[1]: photos[is_animal]}
    foreign["both"] = np.concatenate(list(foreign.values()))
    results: dict[str, Any] = {
        "run": describe_run(), "n_draws": N_DRAWS, "n_foreign": {name: len(rows) for name, rows in foreign.items()},
        "cats_and_dogs": "those of photos-2400 to which 1.1 gives ImageNet's dogs and cats 10 % or more together",
    }  # fmt: skip
    for count in PER_CLASS:
        results[f"{count} per class"] = mean([draw(seed, count, own, labels, foreign) for seed in range(N_DRAWS)])
        print(count, results[f"{count} per class"], flush=True)
    right = leave_one_out(own, labels, int(labels.max()) + 1).argmax(axis=1) == labels
    fit = fit_unknown(own, labels, counts=right)
    results["all 60, left out one by one"] = {
        "kept": fit.kept,
        **{name: {"caught": 100 * float(fit.rule.is_unknown(rows).mean())} for name, rows in foreign.items()},
    }  # fmt: skip
    print(results["all 60, left out one by one"])
    write_results("unknown", results)


if __name__ == "__main__":
    main()
