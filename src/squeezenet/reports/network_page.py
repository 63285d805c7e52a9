"""One page about a network, and its model card: accuracy, curves, confusions, calibration, worst mistakes, layers.

The page is a single HTML file that loads nothing. Every text from files goes through the template's escaping.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..accounting import network_cost
from ..classifier import Predictor
from ..data import ImageSet
from ..errors import ImageError
from ..evaluation.confidence import unknown_in_words
from ..evaluation.evaluate import Evaluation
from ..evaluation.metrics import Accuracy, confusion_matrix
from ..evaluation.predictor import Scores
from ..evaluation.reliability import Reliability, cross_fitted, probabilities, reliability
from ..files import atomic_write
from ..memory import chip_ram_bytes
from ..native_library import load_library
from .charts import Chart, line_chart
from .pages import render

__all__ = ["Report", "build_report", "render_card", "render_html", "write_evaluation_page"]

MAX_MISTAKES = 12
MAX_MATRIX_CLASSES = 30
MAX_CONFUSIONS = 12
_THUMBNAIL = 224
_HEAT = (255, 96, 32)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Contents of the page and the card; further fields are the arguments of `build_report`."""

    title: str
    subtitle: str
    data_name: str
    accuracy: Accuracy
    classes: tuple[dict[str, Any], ...]
    """Figures of each class, shares in percent; see `_class_row`."""
    matrix: tuple[tuple[str, tuple[int, ...]], ...]
    """Name of each true class and counts of the predictions, in the order of `classes`; empty if there are too
    many."""
    confusions: tuple[tuple[str, str, int], ...]
    """The most frequent confusions: true class, predicted class, images."""
    calibration_error: float
    """0 to 1."""
    bins: tuple[dict[str, float], ...]
    """Filled bins of the reliability diagram: index, count, confidence, accuracy."""
    unknown: str
    """Sentence about the treatment of unknown photos."""
    mistakes: tuple[dict[str, Any], ...]
    """Names, classes, shares in percent, and data URLs of the worst ones; see `_worst_mistakes`."""
    n_mistakes: int
    n_unreadable: int
    charts: tuple[Chart, ...]
    best_epoch: int | None
    cost: Any
    ram_bytes: int | None
    """On a microcontroller, with weights in flash memory; None without the native engine, which computes it."""
    spec: Any
    preprocessing: Any
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def build_report(
    predictor: Predictor,
    images: ImageSet,
    scores: Scores,
    *,
    title: str,
    subtitle: str = "",
    history: Sequence[Mapping[str, float]] = (),
    warnings: Sequence[str] = (),
    train_counts: Mapping[str, int] | None = None,
    facts: Sequence[tuple[str, str]] = (),
    foreign: NDArray[np.int64] | None = None,
    is_fitted: bool = False,
) -> Report:
    """Compute everything that the page shows.

    Args:
        predictor: The network; its activation maps of the worst mistakes are computed here.
        images: The images of `scores`, with classes numbered as in the network.
        scores: From `collect_logits`.
        title: What the network is called.
        subtitle: A line below it.
        history: Rows of a run's log, one per epoch.
        warnings: Of the check of the data, or of an alarm.
        train_counts: Images trained on, by class name.
        facts: Further names and values: size, timing, recipe, versions.
        foreign: Features of photos that show none of the classes, (M, channels).
        is_fitted: Whether the network's temperature was fitted on these images. The calibration error of each half is
            then measured with the temperature of the other half.
    """
    names = images.classes
    predicted = scores.logits.argmax(axis=1)
    matrix = confusion_matrix(predicted, scores.labels, len(names))
    seen = np.flatnonzero(matrix.sum(axis=1) + matrix.sum(axis=0))
    is_shown_whole = len(seen) <= MAX_MATRIX_CLASSES
    logits = cross_fitted(scores.logits, scores.labels) if is_fitted else scores.logits / predictor.temperature
    counted = reliability(logits, scores.labels)
    best = max(history, key=lambda row: row["top1"])["epoch"] if history else None
    return Report(
        title=title, subtitle=subtitle, warnings=tuple(warnings), facts=tuple(facts),
        data_name=" + ".join(part.rsplit("/", 1)[-1] for part in images.name.split(" + ")),
        accuracy=Accuracy.of(scores.logits, scores.labels),
        classes=tuple(_class_row(matrix, int(i), names[i], train_counts or {}) for i in seen),
        matrix=tuple((names[i], tuple(matrix[i, seen].tolist())) for i in seen) if is_shown_whole else (),
        confusions=_confusions(matrix, names),
        calibration_error=counted.error, bins=_filled_bins(counted),
        unknown=unknown_in_words(predictor, scores, foreign),
        mistakes=_worst_mistakes(predictor, images, scores), n_mistakes=int((predicted != scores.labels).sum()),
        n_unreadable=len(scores.unreadable),
        charts=_charts(history, best), best_epoch=None if best is None else int(best),
        cost=network_cost(predictor.spec), spec=predictor.spec,
        ram_bytes=chip_ram_bytes(predictor.spec) if load_library() else None, preprocessing=predictor.preprocessing,
    )  # fmt: skip


def _worst_mistakes(predictor: Predictor, images: ImageSet, scores: Scores) -> tuple[dict[str, Any], ...]:
    """Show the images whose true class has the lowest probability, the worst first, at most `MAX_MISTAKES`."""
    shares = probabilities(scores.logits / predictor.temperature)
    own = np.take_along_axis(shares, scores.labels[:, None], axis=1)[:, 0]
    predicted = scores.logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != scores.labels)
    mistakes = []
    for row in wrong[np.argsort(own[wrong], kind="stable")][:MAX_MISTAKES]:
        index = int(scores.indices[row])
        try:
            pixels = np.array(predictor.preprocessing(images.read(index)))  # Pillow's is read-only
        except ImageError:  # gone since it was classified
            continue
        maps = predictor.activation_maps(pixels[None])[0]
        said, right = int(predicted[row]), int(scores.labels[row])
        top = float(max(maps[:, :, said].max(), maps[:, :, right].max(), 1e-12))
        mistakes.append({
            "name": images.items[index].name.rsplit("/", 1)[-1],
            "predicted": images.classes[said], "predicted_share": 100 * float(shares[row, said]),
            "label": images.classes[right], "label_share": 100 * float(own[row]),
            "photo": _photo_url(pixels),
            "predicted_map": _map_url(maps[:, :, said] / top), "label_map": _map_url(maps[:, :, right] / top),
        })  # fmt: skip
    return tuple(mistakes)


def render_html(report: Report) -> str:
    """Write the page; see `render`."""
    return render("network.html", report=report)


def render_card(report: Report) -> str:
    """Write the model card, in Markdown; see `render`."""
    return render("card.md", report=report)


def _class_row(matrix: NDArray[np.int64], index: int, name: str, n_train: Mapping[str, int]) -> dict[str, Any]:
    n_images, n_predicted, n_right = (
        int(part.sum()) for part in (matrix[index], matrix[:, index], matrix[index, index])
    )
    return {
        "name": name, "n_images": n_images, "n_right": n_right, "n_predicted": n_predicted,
        "recall": 100 * n_right / max(n_images, 1), "precision": 100 * n_right / max(n_predicted, 1),
        "n_train": n_train.get(name),
    }  # fmt: skip


def _confusions(matrix: NDArray[np.int64], names: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    wrong = np.argwhere((matrix > 0) & ~np.eye(len(names), dtype=bool))
    pairs = ((names[i], names[j], int(matrix[i, j])) for i, j in wrong)
    return tuple(sorted(pairs, key=lambda pair: -pair[2])[:MAX_CONFUSIONS])


def _filled_bins(counted: Reliability) -> tuple[dict[str, float], ...]:
    return tuple(
        {"bin": i, "count": n, "confidence": counted.confidence[i], "accuracy": counted.accuracy[i]}
        for i, n in enumerate(counted.counts.tolist())
        if n
    )


_CHARTS: tuple[
    tuple[str, dict[str, str], bool], ...
] = (  # title, columns of the log by name, whether the best is marked
    ("Loss, nats", {"training": "train_loss", "validation": "val_loss"}, True),
    ("Accuracy, %", {"top-1": "top1", "top-5": "top5"}, True),
    ("Learning rate at the end of the epoch", {"lr": "lr"}, False),
    ("Speed, images per second", {"training": "img_per_s"}, False),
)


def _charts(history: Sequence[Mapping[str, float]], best: float | None) -> tuple[Chart, ...]:
    return tuple(
        line_chart(
            title, [row["epoch"] for row in history],
            [(name, [row[column] for row in history]) for name, column in columns.items()],
            from_zero=not marked, mark=best if marked else None, mark_text=f"best: epoch {best:g}" if marked else "",
        )
        for title, columns, marked in _CHARTS if history
    )  # fmt: skip


def _photo_url(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    if image.width > _THUMBNAIL:
        image = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    return _data_url(image, "PNG" if image.width <= 64 else "JPEG")  # small images stay exact


def _map_url(shares: NDArray[np.float64]) -> str:
    rgba = np.empty((*shares.shape, 4), np.uint8)
    rgba[..., :3] = _HEAT
    rgba[..., 3] = (shares.clip(0, 1) * 200).round()
    return _data_url(Image.fromarray(rgba), "PNG")


def _data_url(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def write_evaluation_page(
    evaluation: Evaluation,
    path: Path,
    *,
    history: Sequence[Mapping[str, float]] = (),
    facts: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a page about a network that was evaluated.

    Args:
        evaluation: The result of `evaluate`.
        path: The HTML file.
        history: Rows of the log of the run that made the network, if it is known.
        facts: Further names and values.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
        OSError: If the page cannot be written.
    """
    model, spec = Path(evaluation.model), evaluation.predictor.spec
    time = f"{evaluation.ms_per_image:.1f} ms per image, including reading and decoding"
    size = [("file", f"{model.stat().st_size:,} bytes")] if model.is_file() else []
    report = build_report(
        evaluation.predictor, evaluation.images, evaluation.scores, title=model.name or evaluation.model,
        subtitle=f"{spec.name}, {spec.num_classes} classes", history=history,
        facts=[("model", evaluation.model), ("time", time), *size, *facts], foreign=evaluation.foreign,
    )  # fmt: skip
    with atomic_write(path) as stream:
        stream.write(render_html(report).encode("utf-8", "backslashreplace"))
