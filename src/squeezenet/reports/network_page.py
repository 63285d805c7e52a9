"""One page about a network: accuracy, curves, confusions, calibration, worst mistakes, data, layers, timing.

The page is a single HTML file that loads nothing from anywhere, in light or dark as the reader's system is. Every text
that comes from files goes through the template's escaping. A model card in Markdown is filled from the same facts.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..accounting import network_cost
from ..classifier import Predictor
from ..data import ImageSet
from ..errors import ImageError
from ..evaluation.metrics import Accuracy, confusion_matrix
from ..evaluation.predictor import Scores
from ..evaluation.reliability import Reliability, probabilities, reliability, unknown_threshold
from .charts import Chart, line_chart
from .pages import render

__all__ = [
    "ClassRow",
    "Mistake",
    "Report",
    "build_report",
    "render_card",
    "render_html",
    "worst_mistakes",
]

MAX_MISTAKES = 12
MAX_MATRIX_CLASSES = 30
MAX_CONFUSIONS = 12
_THUMBNAIL = 224
_HEAT = (255, 96, 32)


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class's figures; shares are percent."""

    name: str
    n_images: int
    n_right: int
    n_predicted: int
    recall: float
    precision: float
    n_train: int | None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image that the network gets wrong."""

    name: str
    predicted: str
    predicted_share: float
    """Percent."""
    label: str
    label_share: float
    photo: str
    """Data URL of what the network sees."""
    predicted_map: str
    """Data URL of the class activation map, one pixel a position, opaque where the class is seen."""
    label_map: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page and the card show."""

    title: str
    subtitle: str
    data_name: str
    accuracy: Accuracy
    classes: tuple[ClassRow, ...]
    matrix: tuple[tuple[str, tuple[int, ...]], ...]
    """Name of the right class and counts of the answers, in the order of `classes`; empty for more than
    `MAX_MATRIX_CLASSES`."""
    confusions: tuple[tuple[str, str, int], ...]
    """The most frequent pairs: right class, predicted class, images."""
    calibration_error: float
    """0 to 1."""
    bins: tuple[dict[str, float], ...]
    """Filled bins of the reliability diagram: index, count, confidence, accuracy."""
    unknown: Any
    mistakes: tuple[Mistake, ...]
    n_mistakes: int
    n_unreadable: int
    charts: tuple[Chart, ...]
    best_epoch: int | None
    cost: Any
    spec: Any
    preprocessing: Any
    warnings: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """Further name and value pairs: size, timing, recipe, versions."""


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
) -> Report:
    """Work out everything that the page shows.

    Args:
        predictor: The network; its activation maps of the worst mistakes are computed here.
        images: The images that `scores` are about, numbered as the network's classes.
        scores: From `collect_logits`.
        title: What the network is called.
        subtitle: A line below it.
        history: Rows of a run's log, an epoch each.
        warnings: What the check of the data or an alarm said.
        train_counts: Images trained on, by class name.
        facts: Further names and values.
    """
    names = images.classes
    predicted = scores.logits.argmax(axis=1)
    matrix = confusion_matrix(predicted, scores.labels, len(names))
    seen = np.flatnonzero(matrix.sum(axis=1) + matrix.sum(axis=0))
    is_shown_whole = len(seen) <= MAX_MATRIX_CLASSES
    counted = reliability(scores.logits, scores.labels)
    best = max(history, key=lambda row: row["top1"])["epoch"] if history else None
    return Report(
        title=title,
        subtitle=subtitle,
        data_name=" + ".join(part.rsplit("/", 1)[-1] for part in images.name.split(" + ")),
        accuracy=Accuracy.of(scores.logits, scores.labels),
        classes=tuple(_class_row(matrix, int(i), names[i], train_counts) for i in seen),
        matrix=tuple((names[i], tuple(matrix[i, seen].tolist())) for i in seen) if is_shown_whole else (),
        confusions=_confusions(matrix, names),
        calibration_error=counted.error,
        bins=_filled_bins(counted),
        unknown=unknown_threshold(scores.logits, scores.labels),
        mistakes=worst_mistakes(predictor, images, scores),
        n_mistakes=int((predicted != scores.labels).sum()),
        n_unreadable=len(scores.unreadable),
        charts=_charts(history, best),
        best_epoch=None if best is None else int(best),
        cost=network_cost(predictor.spec),
        spec=predictor.spec,
        preprocessing=predictor.preprocessing,
        warnings=tuple(warnings),
        facts=tuple(facts),
    )


def worst_mistakes(predictor: Predictor, images: ImageSet, scores: Scores) -> tuple[Mistake, ...]:
    """Show the images whose right class has the lowest probability, the worst first, at most `MAX_MISTAKES`."""
    shares = probabilities(scores.logits)
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
        mistakes.append(
            Mistake(
                name=images.items[index].name.rsplit("/", 1)[-1],
                predicted=images.classes[said],
                predicted_share=100 * float(shares[row, said]),
                label=images.classes[right],
                label_share=100 * float(own[row]),
                photo=_photo_url(pixels),
                predicted_map=_map_url(maps[:, :, said] / top),
                label_map=_map_url(maps[:, :, right] / top),
            )
        )
    return tuple(mistakes)


def render_html(report: Report) -> str:
    """Write the page.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
    """
    return render("network.html", report=report)


def render_card(report: Report) -> str:
    """Write the model card, in Markdown.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
    """
    return render("card.md", report=report)


def _class_row(matrix: NDArray[np.int64], index: int, name: str, train_counts: Mapping[str, int] | None) -> ClassRow:
    n_images, n_predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
    n_right = int(matrix[index, index])
    return ClassRow(
        name=name,
        n_images=n_images,
        n_right=n_right,
        n_predicted=n_predicted,
        recall=100 * n_right / max(n_images, 1),
        precision=100 * n_right / max(n_predicted, 1),
        n_train=train_counts.get(name) if train_counts else None,
    )


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


def _charts(history: Sequence[Mapping[str, float]], best: float | None) -> tuple[Chart, ...]:
    if not history:
        return ()
    x = [row["epoch"] for row in history]

    def column(name: str) -> list[float]:
        return [row[name] for row in history]

    mark = f"best: epoch {best:g}"
    charts = [
        line_chart(
            "Loss, nats", x, [("training", column("train_loss")), ("validation", column("val_loss"))],
            mark=best, mark_text=mark,
        ),
        line_chart("Accuracy, %", x, [("top-1", column("top1")), ("top-5", column("top5"))], mark=best, mark_text=mark),
        line_chart("Learning rate at the end of the epoch", x, [("lr", column("lr"))], from_zero=True),
        line_chart("Speed, images per second", x, [("training", column("img_per_s"))], from_zero=True),
    ]  # fmt: skip
    return tuple(charts)


def _photo_url(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    if image.width > _THUMBNAIL:
        image = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Small images stay exact; large ones are thumbnails.
    if image.width <= 64:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=85)
    return _data_url(buffer, "image/png" if image.width <= 64 else "image/jpeg")


def _map_url(shares: NDArray[np.float64]) -> str:
    rgba = np.empty((*shares.shape, 4), np.uint8)
    rgba[..., :3] = _HEAT
    rgba[..., 3] = (shares.clip(0, 1) * 200).round()
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return _data_url(buffer, "image/png")


def _data_url(buffer: io.BytesIO, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
