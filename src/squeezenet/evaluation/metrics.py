"""Accuracy with intervals, agreement and confusion. Plain NumPy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Accuracy", "confusion_matrix", "kl_divergence", "label_ranks", "top_k_correct", "wilson_interval"]

_Z_95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Counts of images that a classifier predicted correctly."""

    n_images: int
    top1_correct: int
    top5_correct: int

    @classmethod
    def of(cls, logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
        """Count; `logits` of shape (n, classes), `labels` of shape (n,)."""
        ranks = label_ranks(logits, labels)
        return cls(n_images=len(ranks), top1_correct=int((ranks < 1).sum()), top5_correct=int((ranks < 5).sum()))

    def __add__(self, other: Accuracy) -> Accuracy:
        """Join the counts of two batches."""
        return Accuracy(
            n_images=self.n_images + other.n_images,
            top1_correct=self.top1_correct + other.top1_correct,
            top5_correct=self.top5_correct + other.top5_correct,
        )

    @property
    def top1(self) -> float:
        """Percent of images for which the most probable class is correct; 0 without images."""
        return 100 * self.top1_correct / max(self.n_images, 1)

    @property
    def top5(self) -> float:
        """Percent of images for which the true class is among the five most probable; 0 without images."""
        return 100 * self.top5_correct / max(self.n_images, 1)

    @property
    def top1_interval(self) -> tuple[float, float]:
        """Bounds of `top1` at 95 % confidence, percent."""
        return wilson_interval(self.top1_correct, self.n_images)

    @property
    def top5_interval(self) -> tuple[float, float]:
        """Bounds of `top5` at 95 % confidence, percent."""
        return wilson_interval(self.top5_correct, self.n_images)

    def to_dict(self) -> dict[str, Any]:
        """Percentages, intervals and counts as plain data for JSON."""
        return {
            **dataclasses.asdict(self), "top1": self.top1, "top5": self.top5,
            "top1_interval": list(self.top1_interval), "top5_interval": list(self.top5_interval),
        }  # fmt: skip


def label_ranks(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Find the rank of the true class in each image's predictions.

    Among equal logits, the class with the lower number comes first, as in `argmax`. NaN ranks last.

    Args:
        logits: Shape (n, classes).
        labels: True classes, shape (n,), 0 to classes - 1.

    Returns:
        Ranks from 0 (a correct prediction), shape (n,).

    Example:
        >>> label_ranks(np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.5]]), np.array([2, 1]))
        array([1, 1])
    """
    scores = np.where(np.isnan(logits), -np.inf, logits)
    labels = np.asarray(labels, dtype=np.int64)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    is_lower_class = np.arange(scores.shape[1]) < labels[:, None]
    before = (scores > own) | ((scores == own) & is_lower_class)
    ranks: NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
    # An image without a single usable logit is wrong, whatever its class.
    ranks[np.isnan(np.take_along_axis(np.asarray(logits), labels[:, None], axis=1))[:, 0]] = scores.shape[1]
    return ranks


def top_k_correct(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int = 1) -> NDArray[np.bool_]:
    """Return for each image whether the true class is among the `k` most probable; see `label_ranks`."""
    return label_ranks(logits, labels) < k


def wilson_interval(correct: int, n_images: int) -> tuple[float, float]:
    """Wilson interval at 95 % confidence of a percentage that was measured on a sample; 0 to 100 without images.

    Example:
        >>> [round(bound, 2) for bound in wilson_interval(95, 100)]
        [88.82, 97.85]

    Source: Wilson 1927.
    """
    if n_images == 0:
        return 0.0, 100.0
    share, z = correct / n_images, _Z_95
    center = share + z * z / (2 * n_images)
    margin = z * math.sqrt(share * (1 - share) / n_images + z * z / (4 * n_images**2))
    scale = 100 / (1 + z * z / n_images)
    return max(0.0, scale * (center - margin)), min(100.0, scale * (center + margin))


def confusion_matrix(
    predicted: NDArray[np.integer], labels: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    """Count predictions by true class (rows) and predicted class (columns), shape (num_classes, num_classes)."""
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(predicted, dtype=np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def kl_divergence(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean over images of KL(reference || other) between the softmaxes of two sets of logits (n, classes), in nats."""
    shifted = [x.astype(np.float64) - x.max(axis=1, keepdims=True) for x in (reference, other)]
    p, q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in shifted)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())
