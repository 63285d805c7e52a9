"""Calibration of a classifier's probabilities, and the threshold below which a prediction becomes "unknown"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Reliability", "UnknownThreshold", "cross_fitted", "fit_temperature", "probabilities", "reliability",
    "unknown_threshold",
]  # fmt: skip

N_BINS = 10
KEPT_SHARE = 0.95

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0
_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Accuracy of predictions by their confidence; one entry per bin of equal width, from 0 to 1."""

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    """Mean probability of the predictions in the bin; NaN if the bin is empty."""
    accuracy: NDArray[np.float64]
    """Share of the predictions in the bin that are correct, 0 to 1; NaN if the bin is empty."""

    @property
    def error(self) -> float:
        """Expected calibration error: mean difference between confidence and accuracy, weighted by counts, 0 to 1.

        Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
        """
        filled = self.counts > 0
        gaps = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float((gaps * self.counts[filled]).sum() / max(self.counts.sum(), 1))


@dataclass(frozen=True, kw_only=True)
class UnknownThreshold:
    """The probability below which a prediction becomes "unknown", and the effect of this."""

    unknown_below: float
    """0 to 1."""
    n_images: int
    right_kept: float
    """Percent of the correct predictions that are kept."""
    wrong_caught: float
    """Percent of the wrong predictions that become "unknown"."""


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over classes; shape (n, classes)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Find the temperature that calibrates probabilities: the one that maximises the likelihood of the labels.

    One more image, which could be any class, is added to the labels. Without it, no temperature would be the best if
    all predictions were correct.

    Args:
        logits: Logits of images that were not trained on, (n, classes).
        labels: True classes, (n,).

    Returns:
        0.05 to 20, four digits; 1 without images.

    Example:
        >>> logits = np.array([[4.0, 0.0]] * 4)  # 98 % sure, and right three times out of four
        >>> fit_temperature(logits, np.array([0, 0, 0, 1])) > 3
        True

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    if not len(labels):
        return 1.0
    z = logits.astype(np.float64)
    share = 1 / (len(labels) + 1)
    wanted = float(((1 - share) * np.take_along_axis(z, labels[:, None], axis=1)[:, 0] + share * z.mean(axis=1)).mean())
    low, high = np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE)
    for _ in range(_STEPS):  # the mean score under the probabilities falls as the temperature rises
        middle = (low + high) / 2
        is_too_sure = float((probabilities(z / np.exp(middle)) * z).sum(axis=1).mean()) >= wanted
        low, high = (middle, high) if is_too_sure else (low, middle)
    return float(f"{np.exp((low + high) / 2):.4g}")


def cross_fitted(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Divide the logits of each half of the images by a temperature that was fitted on the other half.

    The result of `reliability` for these logits is therefore valid for images that did not influence the temperature.
    Every second image of each class is in the first half; arguments are those of `reliability`.
    """
    order = np.argsort(labels, kind="stable")
    is_first = np.empty(len(labels), bool)
    is_first[order] = np.arange(len(labels)) % 2 == 0
    scaled = logits.astype(np.float64)
    for half in (is_first, ~is_first):
        scaled[half] /= fit_temperature(logits[~half], labels[~half])
    return scaled


def reliability(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Reliability:
    """Compare confidence and accuracy of top-1 predictions; `logits` of shape (n, classes), `labels` of shape (n,)."""
    best = probabilities(logits).max(axis=1)
    is_right = logits.argmax(axis=1) == labels
    bins = np.minimum((best * N_BINS).astype(np.int64), N_BINS - 1)
    counts = np.bincount(bins, minlength=N_BINS)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (np.bincount(bins, weights, N_BINS) / counts for weights in (best, is_right))
    return Reliability(counts=counts, confidence=confidence, accuracy=accuracy)


def unknown_threshold(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> UnknownThreshold:
    """Choose the threshold that keeps `KEPT_SHARE` of the correct predictions on images that were not trained on.

    Photos that show none of the classes tend to get low probabilities, like photos that are misclassified. The share
    of the latter that become unknown is measured; the share of the former is not. Arguments are those of
    `reliability`.
    """
    best = probabilities(logits).max(axis=1)
    is_right = logits.argmax(axis=1) == labels
    n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
    # The largest probability that loses no more than allowed; rounded down, so that rounding loses none either.
    position = int((1 - KEPT_SHARE) * n_right)
    threshold = float(np.floor(np.sort(best[is_right])[position] * 1e4) / 1e4) if n_right else 0.0
    return UnknownThreshold(
        unknown_below=threshold,
        n_images=len(labels),
        right_kept=100 * float((best[is_right] >= threshold).mean()) if n_right else 0.0,
        wrong_caught=100 * float((best[~is_right] < threshold).mean()) if n_wrong else 0.0,
    )
