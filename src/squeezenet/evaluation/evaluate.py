"""Accuracy of any network on labelled images, and the calibration of its probabilities."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..classifier import Predictor
from ..data import ImageSet, Split, open_data
from ..data.holdout import known_part
from ..text import html_table
from .confidence import Confidence, measure_confidence
from .metrics import Accuracy
from .predictor import Model, Scores, collect_logits, match_classes, open_model, predict_batches
from .reliability import Reliability, reliability

__all__ = ["Data", "Evaluation", "evaluate"]

Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | ImageSet
"""Images: a folder of class folders, a zip of one, `digits`, several of these, or an `ImageSet`."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of a network on a set of labelled images."""

    model: str
    """The MODEL as it was given."""
    accuracy: Accuracy
    scores: Scores
    """Class scores of every readable image, and the images that could not be read."""
    predictor: Predictor
    images: ImageSet
    """The images, with classes numbered as in the network."""
    ms_per_image: float
    """Milliseconds per image, including reading and decoding."""
    foreign: NDArray[np.int64] | None = None
    """Features of photos that show none of the classes, (M, channels); None if there are none."""
    note: str | None = None
    """A remark if the network was trained on the images, or on some of them."""
    is_of_trained_images: bool = False
    """Whether the network was trained on these images, so that the results do not apply to other images."""

    @property
    def reliability(self) -> Reliability:
        """Accuracy of predictions as a function of their confidence."""
        return reliability(self.scores.logits / self.predictor.temperature, self.scores.labels)

    @property
    def confidence(self) -> Confidence:
        """Temperature and rule for unknown photos; `store_confidence` puts them into a file."""
        return measure_confidence(self.scores, foreign=self.foreign)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "model": self.model, "data": self.images.name, **self.accuracy.to_dict(),
            "n_unreadable": len(self.scores.unreadable), "ms_per_image": self.ms_per_image,
            **({"note": self.note} if self.note else {}),
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Rows of a table: measure, percent, correct of all, 95 % interval."""
        found = []
        for name in ("top1", "top5"):
            low, high = getattr(self.accuracy, f"{name}_interval")
            percent, correct = getattr(self.accuracy, name), getattr(self.accuracy, f"{name}_correct")
            right = f"{correct} of {self.accuracy.n_images}"
            found.append((name, f"{percent:.2f} %", right, f"{low:.2f} to {high:.2f}"))
        return found

    def _repr_html_(self) -> str:
        return html_table(("", self.model, "right", "95 % interval"), self.rows())


def evaluate(model: Model, data: Data, *, split: Split = "val", foreign: Data | None = None) -> Evaluation:
    """Measure top-1 and top-5 accuracy; if the model was trained on part of `data`, only on the images held out.

    Args:
        model: See `open_model`.
        data: Labelled images. Class folders are matched to the classes of the model by id (wnid) or name, never by
            position.
        split: The split to measure if the data have train and val folders: `val` or `train`.
        foreign: Photos that show none of the classes, labelled or not, to measure how many count as unknown.

    Raises:
        ModelNotFoundError: If there is no such model; see `open_model` for the others.
        DataError: If the data cannot be used, or their classes are not those of the network.

    Example:
        >>> from squeezenet import Labels, create_model
        >>> model = create_model("squeezenet1_1", num_classes=10, input_size=32)
        >>> model.labels = Labels(tuple("0123456789"))
        >>> evaluate(model, "digits").accuracy.n_images
        355
    """
    predictor = open_model(model)
    opened = data if isinstance(data, ImageSet) else open_data(data, split=split)
    is_train = split == "train"
    part = known_part(opened, predictor.provenance, is_trained=is_train)
    images = match_classes(predictor, part.images)
    start = time.perf_counter()
    scores = collect_logits(predictor, images)
    ms_per_image = 1000 * (time.perf_counter() - start) / len(scores.labels)
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else type(model).__name__
    accuracy = Accuracy.of(scores.logits, scores.labels)
    return Evaluation(
        model=name, accuracy=accuracy, scores=scores, predictor=predictor, images=images, ms_per_image=ms_per_image,
        foreign=None if foreign is None else _features(predictor, foreign),
        note=(None if is_train else part.note) or _taught_note(predictor.provenance),
        is_of_trained_images=part.n_trained > 0 and (is_train or not part.n_held),
    )  # fmt: skip


def _taught_note(provenance: object) -> str | None:
    """Warn that photos may be those that a head was taught from: a file states only their number."""
    taught = provenance.get("taught") if isinstance(provenance, Mapping) else None
    counts = taught.get("photos") if isinstance(taught, Mapping) else None
    if not isinstance(counts, list) or not counts or not all(type(count) is int and count > 0 for count in counts):
        return None
    return f"the head was taught from {sum(counts)} photos: measured on these same photos, accuracy is meaningless"


def _features(predictor: Predictor, data: Data) -> NDArray[np.int64] | None:
    """Features of photos of any kind; None from a network of floats."""
    images = data if isinstance(data, ImageSet) else open_data(data, unlabelled=True)
    found = [outputs.features for _, outputs in predict_batches(predictor, images)]
    return np.concatenate([rows for rows in found if rows is not None]) if found[0] is not None else None
