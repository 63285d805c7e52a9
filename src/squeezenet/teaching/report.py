"""The leave-one-out accuracy of a taught head: each photo is classified by a head made from all the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data import Unreadable
from ..evaluation.evaluate import Evaluation
from ..evaluation.metrics import Accuracy, wilson_interval
from ..text import html_table
from ..unknown import UnknownFit
from .adding import Repeated
from .solver import Fit
from .taught import Lesson

__all__ = ["Suspect", "TeachResult", "judge"]

_SUSPICIOUS = 0.5  # how far another class's score is above that of a photo's own


class Suspect(NamedTuple):
    """A photo whose label looks wrong."""

    name: str
    label: str
    looks_like: str
    margin: float
    """How much higher the score of the other class is; scores are about 1 for a photo's class and 0 for others."""


def judge(lesson: Lesson, fit: Fit) -> Accuracy:
    """Count correct leave-one-out predictions; classes with only one photo do not count."""
    counted = _judged(lesson)
    return Accuracy.of(fit.scores[counted], lesson.labels[counted])


def _judged(lesson: Lesson) -> NDArray[np.bool_]:
    """Mask of the photos whose class has another photo, so that they can be judged; (n,)."""
    return np.greater(np.bincount(lesson.labels)[lesson.labels], 1)


@dataclass(frozen=True, kw_only=True)
class TeachResult:
    """A taught head and its accuracy."""

    path: Path
    """The `.sqz` file; its `.taught` file is in the same folder."""
    file_bytes: int
    lesson: Lesson
    fit: Fit
    unknown: UnknownFit | None
    """The rule for unknown photos; None if classes are kept, or if there are more classes than a rule can hold."""
    accuracy: Accuracy
    """Leave-one-out accuracy; classes with only one photo are not counted."""
    unreadable: tuple[Unreadable, ...]
    repeated: tuple[Repeated, ...]
    """Photos that were skipped, because their class already has the same photo under another name."""
    shared: tuple[tuple[str, ...], ...]
    """Names of photos that are in several classes, or in a class and among the photos of none."""
    evaluation: Evaluation | None
    """Evaluation on `val`, if it was given."""
    fit_seconds: float
    seconds: float
    """Duration of the call."""

    @property
    def suspects(self) -> list[Suspect]:
        """Photos whose label looks wrong, the most suspicious first."""
        names, labels, scores = self.lesson.classes, self.lesson.labels, self.fit.scores
        answers, margins = scores.argmax(axis=1), scores.max(axis=1) - scores[np.arange(len(scores)), labels]
        judged = _judged(self.lesson)
        return [
            Suspect(self.lesson.names[i], names[labels[i]], names[answers[i]], float(margins[i]))
            for i in np.argsort(-margins, kind="stable")
            if judged[i] and margins[i] >= _SUSPICIOUS
        ]

    @property
    def confusions(self) -> list[tuple[str, str, int]]:
        """Triples of true class, predicted class and count; the most frequent first."""
        pairs: dict[tuple[int, int], int] = {}
        judged = _judged(self.lesson)
        answers = self.fit.scores.argmax(axis=1)
        for label, answer in zip(self.lesson.labels[judged].tolist(), answers[judged].tolist(), strict=True):
            if label != answer:
                pairs[label, answer] = pairs.get((label, answer), 0) + 1
        names = self.lesson.classes
        return [(names[a], names[b], n) for (a, b), n in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))]

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Rows of a table: class, photos, correct when left out, 95 % interval."""
        found = []
        right = self.fit.scores.argmax(axis=1) == self.lesson.labels
        for index, name in enumerate(self.lesson.classes):
            of_class = right[self.lesson.labels == index]
            if len(of_class) < 2:
                found.append((name, str(len(of_class)), "-", "-"))
                continue
            low, high = wilson_interval(int(of_class.sum()), len(of_class))
            found.append((name, str(len(of_class)), str(int(of_class.sum())), f"{low:.0f} to {high:.0f} %"))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": str(self.path), "file_bytes": self.file_bytes, "classes": list(self.lesson.classes),
            "kept": self.lesson.kept, "n_photos": len(self.lesson.names), "left_out": self.accuracy.to_dict(),
            "confusions": [list(pair) for pair in self.confusions],
            "suspects": [suspect._asdict() for suspect in self.suspects],
            "unreadable": [list(entry) for entry in self.unreadable],
            "repeated": [list(entry) for entry in self.repeated], "shared": [list(names) for names in self.shared],
            **({"val": self.evaluation.to_dict()} if self.evaluation else {}),
            **({"foreign_caught": self.unknown.foreign_caught} if self.unknown else {}),
            "fit_seconds": self.fit_seconds, "seconds": self.seconds,
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return html_table(("class", "photos", "correct, left out", "95 % interval"), self.rows())
