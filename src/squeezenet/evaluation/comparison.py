"""A compressed network against the float network it came from, on the same labelled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ..classifier import Predictor
from ..data import ImageSet
from .metrics import Accuracy, top_k_correct
from .predictor import Scores, collect_logits, match_classes

__all__ = ["AccuracyComparer", "Comparison"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The scores of both networks for the same images."""

    reference_logits: NDArray[np.float64]
    """(N, classes)"""
    compressed: Scores
    """Scores of the compressed network for the same images, in the same order."""
    class_names: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,)"""
        return self.compressed.labels

    @property
    def compressed_logits(self) -> NDArray[np.float64]:
        """(N, classes)"""
        return self.compressed.logits

    @property
    def accuracies(self) -> tuple[Accuracy, Accuracy]:
        """Accuracy of the float network and of the compressed network."""
        return Accuracy.of(self.reference_logits, self.labels), Accuracy.of(self.compressed_logits, self.labels)

    @property
    def points_lost(self) -> float:
        """Top-1 of the float network minus that of the compressed network, percentage points."""
        before, after = self.accuracies
        return before.top1 - after.top1

    @property
    def mcnemar_p(self) -> float:
        """The p-value of McNemar's exact test, two-sided: the probability of such a difference between equal networks.

        Source: McNemar 1947.
        """
        before, after = self._correct()
        lost, won = int((before & ~after).sum()), int((after & ~before).sum())
        return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0

    def losses_by_class(self) -> list[dict[str, Any]]:
        """Correct predictions of both networks by class, the class that lost most first; only classes with images.

        Keys: `class`, `n_images`, `float_correct`, `compressed_correct`.
        """
        counts = np.array([np.bincount(self.labels, w, len(self.class_names)) for w in (None, *self._correct())], int)
        keys = ("n_images", "float_correct", "compressed_correct")
        order = np.argsort(counts[2] - counts[1], kind="stable").tolist()
        return [
            {"class": self.class_names[index], **dict(zip(keys, counts[:, index].tolist(), strict=True))}
            for index in order
            if counts[0, index]
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        before, after = self.accuracies
        return {
            "float": before.to_dict(), "compressed": after.to_dict(), "points_lost": self.points_lost,
            "mcnemar_p": self.mcnemar_p, "classes": self.losses_by_class(),
        }  # fmt: skip

    def _correct(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return top_k_correct(self.reference_logits, self.labels), top_k_correct(self.compressed_logits, self.labels)


class AccuracyComparer:
    """Labelled images with the float network's scores, to compare any number of compressed networks with it."""

    def __init__(self, reference: Predictor, images: ImageSet) -> None:
        """Classify the images once.

        Raises:
            DataError: If none can be read, or none of their classes is one of the network's.
        """
        self._images = match_classes(reference, images)
        self._scores = collect_logits(reference, self._images)
        self.unreadable = self._scores.unreadable

    def __call__(self, compressed: Predictor) -> Comparison:
        """Classify the images with another network of the same classes."""
        return Comparison(
            reference_logits=self._scores.logits,
            compressed=collect_logits(compressed, self._images),
            class_names=tuple(self._images.classes),
        )
