"""What a classifier's scores say about it: accuracy with its uncertainty, agreement, confusion. NumPy alone.

Percentages are 0 to 100; every one comes with the number of images it was measured on.

Use this when you have class scores and the true classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Accuracy", "confusion_matrix", "kl_divergence", "measure_accuracy", "top_k_correct", "wilson_interval"]

_Z_95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Top-1 and top-5 accuracy with 95 % intervals."""

    n_images: int
    top1: float
    top5: float
    top1_low: float
    top1_high: float
    top5_low: float
    top5_high: float


def top_k_correct(logits: NDArray[np.floating], labels: NDArray[np.integer], k: int) -> NDArray[np.bool_]:
    """Say for each image whether its class is among the k best; equal scores count in output order.

    Args:
        logits: Class scores, shape (N, classes).
        labels: True classes, shape (N,).
        k: How many of the best classes count; all of them if there are fewer.
    """
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    correct: NDArray[np.bool_] = (best == labels[:, None]).any(axis=1)
    return correct


def wilson_interval(correct: int, n_images: int) -> tuple[float, float]:
    """95 % interval of an accuracy, in percent; (0, 100) for no images.

    Example:
        >>> [round(bound, 1) for bound in wilson_interval(90, 100)]
        [82.6, 94.5]

    Source: Wilson 1927.
    """
    if n_images == 0:
        return 0.0, 100.0
    share = correct / n_images
    z2 = _Z_95**2 / n_images
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def measure_accuracy(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy:
    """Compute top-1 and top-5 of class scores (N, classes) against true classes (N,); N at least 1."""
    n_images = len(labels)
    top1, top5 = (int(top_k_correct(logits, labels, k).sum()) for k in (1, 5))
    (top1_low, top1_high), (top5_low, top5_high) = wilson_interval(top1, n_images), wilson_interval(top5, n_images)
    return Accuracy(
        n_images=n_images,
        top1=100 * top1 / n_images,
        top5=100 * top5 / n_images,
        top1_low=top1_low,
        top1_high=top1_high,
        top5_low=top5_low,
        top5_high=top5_high,
    )


def confusion_matrix(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count images by true class (rows) and predicted class (columns), shape (classes, classes)."""
    counts = np.zeros((logits.shape[1],) * 2, np.int64)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    return counts


def kl_divergence(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Mean over images of KL(reference || other) between the softmaxes of two sets of scores (N, classes), in nats."""
    p, q = _log_softmax(reference), _log_softmax(other)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
