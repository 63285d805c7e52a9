"""Facts about the confidence of predictions that a file stores: a temperature, and a rule for unknown photos."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classifier import Predictor
from ..errors import FormatError
from ..fileformat import read_bytes, with_facts
from ..files import atomic_write
from ..spec import ArchSpec
from ..unknown import MAX_VECTORS, UnknownFit, fit_unknown
from .predictor import Scores
from .reliability import UnknownThreshold, cross_fitted, fit_temperature, reliability, unknown_threshold

__all__ = ["Confidence", "measure_confidence", "store_confidence", "stored_bytes", "unknown_in_words"]

_FACTS_BYTES = 48  # temperature and `unknown_below` in META
_CHUNK_BYTES = 15  # of `unkn` around the vectors


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How far to trust a network's predictions, measured on labelled images that it was not trained on."""

    temperature: float
    """Number by which logits should be divided before they are converted to probabilities."""
    error: float
    """Expected calibration error, 0 to 1; for each half of the images, the temperature is fitted on the other half."""
    error_without: float
    """Expected calibration error without a temperature."""
    threshold: UnknownThreshold
    """For networks without a rule: the probability below which a photo counts as unknown."""
    unknown: UnknownFit | None
    """The rule for unknown photos; None for float networks, and if there are more classes than a rule can hold."""

    def stored_in(self, data: bytes) -> bytes:
        """Store temperature and rule in an encoded `.sqz` file, and return the new file.

        Raises:
            FormatError: If the file is damaged.
        """
        below = None if self.unknown else self.threshold.unknown_below
        rule = self.unknown.rule if self.unknown else None
        return with_facts(data, unknown=rule, temperature=self.temperature, unknown_below=below)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; shares in percent."""
        data: dict[str, Any] = {
            "temperature": self.temperature, "calibration_error": 100 * self.error,
            "calibration_error_without": 100 * self.error_without,
        }  # fmt: skip
        if self.unknown is None:
            return data | {
                "unknown_below": self.threshold.unknown_below, "right_kept": self.threshold.right_kept,
                "wrong_caught": self.threshold.wrong_caught,
            }  # fmt: skip
        caught = {} if self.unknown.foreign_caught is None else {"foreign_caught": self.unknown.foreign_caught}
        return data | {"right_kept": self.unknown.kept, "n_foreign": self.unknown.n_foreign, **caught}

    def lines(self) -> list[str]:
        """Describe the result in lines of text."""
        lines = [
            f"temperature {self.temperature:g}: calibration error {100 * self.error:.1f} %, without it"
            f" {100 * self.error_without:.1f} %"
            if self.temperature != 1
            else f"no temperature improves the probabilities: calibration error {100 * self.error:.1f} %"
        ]
        if self.unknown is None:
            found = self.threshold
            return [
                *lines,
                f"unknown below {100 * found.unknown_below:.1f} %: keeps {found.right_kept:.1f} % of the correct"
                f" predictions and rejects {found.wrong_caught:.1f} % of the wrong ones",
            ]
        fit = self.unknown
        foreign = (
            "not tested on photos of something else (--not)"
            if fit.foreign_caught is None
            else f"rejects {fit.foreign_caught:.1f} % of {fit.n_foreign} photos of something else"
        )
        return [*lines, f"rule for unknown photos: keeps {fit.kept:.1f} % of the correct predictions; {foreign}"]


def measure_confidence(
    scores: Scores, *, examples: Scores | None = None, foreign: NDArray[np.integer] | None = None
) -> Confidence:
    """Fit a temperature and a rule for unknown photos.

    Args:
        scores: Scores of labelled images that the network was not trained on.
        examples: Scores of other images of the classes, from which the rule's vectors are made. The network may have
            been trained on them. By default the vectors are made from `scores`, and each image is compared with
            vectors that are made without it.
        foreign: Features of photos that show none of the classes, (M, channels).
    """
    logits, labels = scores.logits, scores.labels
    temperature = fit_temperature(logits, labels)
    error, error_without = (reliability(of, labels).error for of in (cross_fitted(logits, labels), logits))
    if error >= error_without:  # on images that it was not fitted to: these are too few, or need none
        temperature, error = 1.0, error_without
    fit = None
    if scores.features is not None:
        counts = logits.argmax(axis=1) == labels
        if examples is not None and examples.features is not None:
            fit = fit_unknown(
                examples.features, examples.labels, judged=scores.features, counts=counts, foreign=foreign
            )
        else:
            fit = fit_unknown(scores.features, labels, counts=counts, foreign=foreign)
    return Confidence(
        temperature=temperature,
        error=error,
        error_without=error_without,
        threshold=unknown_threshold(logits / temperature, labels),
        unknown=fit,
    )


def unknown_in_words(predictor: Predictor, scores: Scores, foreign: NDArray[np.integer] | None = None) -> str:
    """Describe in one sentence which photos count as unknown, and the effect on labelled images.

    Args:
        predictor: The network, with or without a rule.
        scores: Scores of labelled images.
        foreign: Features of photos that show none of the classes, (M, channels).
    """
    right = scores.logits.argmax(axis=1) == scores.labels
    rule = predictor.unknown
    if rule is None or scores.features is None:
        found = unknown_threshold(scores.logits / predictor.temperature, scores.labels)
        return (
            f"Treat predictions below {100 * found.unknown_below:.0f} % as unknown. This keeps {found.right_kept:.1f} %"
            f" of the correct predictions and rejects {found.wrong_caught:.1f} % of the wrong ones."
        )
    unknown = rule.is_unknown(scores.features)
    kept = 100 * float((~unknown[right]).mean()) if right.any() else 0.0
    text = (
        "A photo is reported as unknown if its features differ too much from those of all classes. This keeps"
        f" {kept:.1f} % of the correct predictions"
    )
    if foreign is None or not len(foreign):
        return f"{text}; it was not tested on photos of something else."
    caught = 100 * float(rule.is_unknown(foreign).mean())
    return f"{text} and rejects {caught:.1f} % of {len(foreign):,} photos of something else."


def stored_bytes(spec: ArchSpec) -> int:
    """Largest number of bytes that the results of `measure_confidence` take in a file."""
    has_rule = spec.num_classes <= MAX_VECTORS
    return _FACTS_BYTES + (_CHUNK_BYTES + spec.num_classes * ((spec.num_features + 1) // 2) if has_rule else 0)


def store_confidence(path: str | os.PathLike[str], confidence: Confidence) -> None:
    """Store a temperature and a rule for unknown photos in a `.sqz` file; the weights are not changed.

    Args:
        path: The file.
        confidence: Measured on the network of this file: `Evaluation.confidence`.

    Raises:
        FormatError: If the file is damaged.
        OSError: If it cannot be read or written; it is then unchanged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from squeezenet import find_model, read_sqz
        >>> rows = np.arange(10)
        >>> measured = measure_confidence(Scores(logits=np.eye(10), labels=rows, indices=rows, unreadable=()))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "copy.sqz")
        ...     _ = path.write_bytes(find_model("cifar10").path.read_bytes())
        ...     store_confidence(path, measured)
        ...     read_sqz(path).temperature == measured.temperature
        True
    """
    try:
        data = confidence.stored_in(read_bytes(path))
    except FormatError as error:
        raise error.at(path) from None
    with atomic_write(path) as stream:
        stream.write(data)
