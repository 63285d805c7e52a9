"""`squeezenet.check`: find problems in photos before training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..classifier import Classifier
from ..data import ImageSet, Unreadable, open_data
from ..data.decode import thread_pool
from ..data.imageset import open_train_and_val, summed_up
from ..errors import DataError, ImageError
from ..evaluation.metrics import wilson_interval
from ..fileformat import SqzFile
from ..preprocess import Preprocessing, load_image
from ..progress import Reporter, reporter_of
from ..text import match_key
from ..zoo import default_model
from .duplicates import groups_of, near_duplicates
from .labels import leave_one_out
from .looks import Look, look_at

__all__ = ["DuplicateGroup", "PhotoCheck", "Suspect", "check", "duplicate_groups"]

Photos = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

BLANK_CONTRAST = 6.0
"""Photos with a lower contrast (standard deviation of greys) are blank."""

BLURRED_SHARE = 0.01
"""Photos are blurred if their sharpness divided by their squared contrast is below this."""

LOST_SHARE = 0.4
"""A photo counts as cut if at least this share of its pixels is cropped away."""

LEAST_ACCURACY = 70.0
"""Percent of the photos whose labels must agree with the others; below this, suspects are unreliable."""

_BATCH = 64


class DuplicateGroup(NamedTuple):
    """Photos that show the same picture."""

    photos: tuple[int, ...]
    """Positions in `PhotoCheck.names`."""
    is_leak: bool
    """Whether the group has photos in both `train` and `val`."""
    is_contradiction: bool
    """Whether the photos have different labels."""


class Suspect(NamedTuple):
    """A photo whose features suggest another class than its label."""

    photo: int
    """Position in `PhotoCheck.names`."""
    looks_like: str
    margin: float
    """How much higher the score of the other class is; about 1 if the label is clearly wrong."""


@dataclass(frozen=True, kw_only=True)
class PhotoCheck:
    """Results of checking a set of photos."""

    data: str
    model: str
    """The network whose features were compared."""
    images: ImageSet
    """The readable photos; positions below refer to these."""
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    """Class folder of each photo; None without class folders."""
    splits: tuple[str | None, ...]
    """`train` or `val` for each photo; None if the data are not split."""
    untrained: tuple[str, ...]
    """Classes of `val` that have no photo in `train`."""
    unreadable: tuple[Unreadable, ...]
    duplicates: tuple[DuplicateGroup, ...]
    suspects: tuple[Suspect, ...]
    """The clearest first."""
    accuracy: float | None
    """Leave-one-out accuracy: percent of photos whose label is predicted from all other photos; None without
    labels."""
    accuracy_interval: tuple[float, float] | None
    """Bounds of `accuracy` at 95 % confidence, percent."""
    blank: tuple[int, ...]
    blurred: tuple[int, ...]
    """Least sharp first."""
    seen: tuple[float, ...]
    """Share of each photo's pixels that the network sees, 0 to 1."""
    seen_squashed: float
    """The same if photos were squashed to a square first."""
    preprocessing: Preprocessing

    @property
    def leaks(self) -> tuple[DuplicateGroup, ...]:
        """Groups of duplicates with photos in both `train` and `val`."""
        return tuple(group for group in self.duplicates if group.is_leak)

    @property
    def contradictions(self) -> tuple[DuplicateGroup, ...]:
        """Duplicates with different labels."""
        return tuple(group for group in self.duplicates if group.is_contradiction)

    @property
    def has_errors(self) -> bool:
        """Whether there are problems that matter for every use of the photos.

        These are unreadable or blank photos, leaks, contradictions, and classes of `val` that `train` lacks.
        """
        return bool(self.unreadable or self.blank or self.leaks or self.contradictions or self.untrained)

    @property
    def has_findings(self) -> bool:
        """Whether there is anything to look at, including suspects and duplicates within a split."""
        return self.has_errors or bool(self.duplicates or self.suspects or self.blurred or self.would_squash)

    @property
    def cut(self) -> tuple[int, ...]:
        """Photos that lose a large share of their pixels to the crop, the largest share first."""
        order = sorted(range(len(self.seen)), key=lambda photo: (self.seen[photo], photo))
        return tuple(photo for photo in order if self.seen[photo] < 1 - LOST_SHARE)

    @property
    def would_squash(self) -> bool:
        """Whether photos should be squashed to a square rather than cropped: at least a fifth of them are `cut`."""
        return self.preprocessing.resize_mode != "squash" and 5 * len(self.cut) > len(self.seen)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; photos by name."""
        names = self.names
        groups = [
            {
                "photos": [names[i] for i in group.photos], "is_leak": group.is_leak,
                "is_contradiction": group.is_contradiction,
            }
            for group in self.duplicates
        ]  # fmt: skip
        return {
            "data": self.data, "model": self.model, "n_photos": len(names),
            "untrained": list(self.untrained), "unreadable": [list(entry) for entry in self.unreadable],
            "duplicates": groups,
            "suspects": [
                {"photo": names[s.photo], "label": self.labels[s.photo], "looks_like": s.looks_like, "margin": s.margin}
                for s in self.suspects
            ],
            "accuracy": self.accuracy, "accuracy_interval": self.accuracy_interval,
            "blank": [names[i] for i in self.blank], "blurred": [names[i] for i in self.blurred],
            "cut": [{"photo": names[i], "seen": self.seen[i]} for i in self.cut],
            "seen": float(np.mean(self.seen)) if self.seen else None, "seen_squashed": self.seen_squashed,
            "would_squash": self.would_squash,
        }  # fmt: skip

    def summary(self) -> list[str]:
        """List the findings as lines of text, the worst first."""
        n_more = sum(len(group.photos) - 1 for group in self.duplicates)
        lines = [f"photos: {len(self.names)}, compared by features of {self.model}"]
        lines += summed_up("classes of val that are missing in train", [repr(name) for name in self.untrained])
        for found, text in (
            (self.unreadable, "unreadable"),
            (self.leaks, "pictures that are in both train and val"),
            (self.contradictions, "pictures with more than one label"),
            (self.blank, "blank"),
            (self.blurred, "blurred"),
        ):
            lines += [f"{text}: {len(found)}"] if found else []
        if self.duplicates:
            lines.append(f"near-duplicates: {len(self.duplicates)} groups; {n_more} photos could be removed")
        if self.accuracy is not None and self.accuracy_interval is not None:
            low, high = self.accuracy_interval
            lines.append(
                f"labels: {self.accuracy:.1f} % agree with the other photos (95 % interval {low:.1f} to {high:.1f});"
                f" suspects: {len(self.suspects)}"
            )
            if self.accuracy < LEAST_ACCURACY:
                lines.append(
                    "these features hardly separate the classes, so suspects are unreliable: try another network (--on)"
                )
        if self.seen:
            lines.append(f"crop: removes {100 * (1 - float(np.mean(self.seen))):.0f} % of the average photo")
        if self.would_squash:
            lines.append(
                f'{len(self.cut)} photos lose more than {100 * LOST_SHARE:.0f} %; with `resize_mode = "squash"`, each'
                f" would lose {100 * (1 - self.seen_squashed):.0f} %"
            )
        return lines


def check(
    photos: Photos | ImageSet, *, on: str | os.PathLike[str] | SqzFile | Classifier | None = None,
    progress: Reporter | bool = False,
) -> PhotoCheck:  # fmt: skip
    """Find duplicates, leaks between splits, doubtful labels, blank and blurred photos, and content lost to the crop.

    Args:
        photos: A folder of class folders, with or without train and val, a zip of one, or several of these. Labels of
            photos without class folders are not checked. An open set is accepted too.
        on: The compressed network whose features are compared; by default one that ships with the package. `imagenet`
            distinguishes most kinds of objects.
        progress: Whether to show progress.

    Raises:
        DataError: If there are no photos, or none can be read.
        ModelNotFoundError: If no network has this name or path.

    Example:
        >>> from squeezenet import open_data
        >>> found = check(open_data("digits", split="val").sample(20))
        >>> len(found.names), found.leaks
        (20, ())
    """
    classifier = on if isinstance(on, Classifier) else Classifier(on if on is not None else default_model() or "")
    images, splits, untrained = _open(photos)
    reporter = reporter_of(progress)
    for remark in images.remarks():
        reporter.say(remark)
    looks, features, readable, unreadable = _look(images, classifier, reporter)
    images, splits = images.subset(readable), [splits[i] for i in readable]
    names = tuple(item.name for item in images.items)
    known = [item.label for item in images.items]
    labels = tuple(None if label is None else images.classes[label] for label in known)
    groups = [
        DuplicateGroup(
            tuple(group), len({splits[i] for i in group}) > 1, len({labels[i] for i in group}) > 1
        )
        for group in groups_of(near_duplicates(features, np.stack([look.grey for look in looks]), reporter))
    ]  # fmt: skip
    suspects, right = _suspects(features, images) if None not in known else ((), None)
    blank = [i for i, look in enumerate(looks) if look.contrast < BLANK_CONTRAST]
    blurred = sorted(
        (look.sharpness / look.contrast**2, i)
        for i, look in enumerate(looks)
        if look.contrast >= BLANK_CONTRAST and look.sharpness < BLURRED_SHARE * look.contrast**2
    )
    how = classifier.preprocessing
    return PhotoCheck(
        data=images.name, model=_name_of(on), images=images, names=names, labels=labels, splits=tuple(splits),
        untrained=untrained, unreadable=tuple(unreadable), duplicates=tuple(groups), suspects=suspects,
        accuracy=None if right is None else 100 * right[0] / right[1],
        accuracy_interval=None if right is None else wilson_interval(*right),
        blank=tuple(blank), blurred=tuple(i for _, i in blurred),
        seen=tuple(_seen(how, look.width, look.height) for look in looks),
        seen_squashed=min(1.0, (how.crop_size / how.resize_size) ** 2), preprocessing=how,
    )  # fmt: skip


def duplicate_groups(images: ImageSet, classifier: Classifier, reporter: Reporter) -> list[list[int]]:
    """Find groups of images that show the same picture: sorted positions; unreadable images are in no group."""
    try:
        looks, features, readable, _ = _look(images, classifier, reporter)
    except DataError:  # not one can be read
        return []
    pairs = near_duplicates(features, np.stack([look.grey for look in looks]), reporter)
    return [[readable[photo] for photo in group] for group in groups_of(pairs)]


def _name_of(on: object) -> str:
    if on is None:
        return default_model() or ""
    return os.fspath(on) if isinstance(on, (str, os.PathLike)) else "a network"


def _open(photos: Photos | ImageSet) -> tuple[ImageSet, list[str | None], tuple[str, ...]]:
    """Photos of all splits, the split of each, and classes that only `val` has."""
    if isinstance(photos, ImageSet):
        return photos, [None] * len(photos), ()
    try:
        train, val = open_train_and_val(photos)
    except DataError:
        images = open_data(photos, unlabelled=True)
        return images, [None] * len(images), ()
    if val is None:
        return train, [None] * len(train), ()
    known = set(map(match_key, train.classes))
    untrained = tuple(name for name in val.classes if match_key(name) not in known)
    wider = train.relabel({name: i for i, name in enumerate(train.classes)}, (*train.classes, *untrained))
    return wider.joined(val), [*["train"] * len(train), *["val"] * len(val)], untrained


def _look(
    images: ImageSet, classifier: Classifier, reporter: Reporter
) -> tuple[list[Look], NDArray[np.int64], list[int], list[Unreadable]]:
    """Decode every photo once: measures, features, positions of the readable ones, and the others."""
    looks, features, readable, unreadable = [], [], list[int](), list[Unreadable]()

    def view(index: int) -> tuple[Look, NDArray[np.uint8]] | Unreadable:
        try:
            image = load_image(images.read(index))
            return look_at(image), classifier.preprocessing(image)
        except ImageError as error:
            return Unreadable(images.items[index].name, error.reason)

    with thread_pool() as pool, reporter.task("photos", len(images)) as task:
        for first in range(0, len(images), _BATCH):
            batch = range(first, min(first + _BATCH, len(images)))
            pixels = []
            for index, found in zip(batch, pool.map(view, batch), strict=True):
                if isinstance(found, Unreadable):
                    unreadable.append(found)
                    continue
                looks.append(found[0])
                pixels.append(found[1])
                readable.append(index)
            if pixels:
                features.append(classifier.engine.features(np.stack(pixels)))
            task.update(batch.stop)
    if not features:
        raise DataError(f"{images.name}: none of {len(images)} photos can be read, such as {unreadable[0].name}")
    return looks, np.concatenate(features), readable, unreadable


def _suspects(features: NDArray[np.int64], images: ImageSet) -> tuple[tuple[Suspect, ...], tuple[int, int] | None]:
    """Photos that all others contradict, and how many of how many they agree with."""
    labels, counts = np.array(images.labels), list(images.class_counts().values())
    if sum(count > 1 for count in counts) < 2:
        return (), None
    scores = leave_one_out(features, labels, len(images.classes))
    rows = np.arange(len(labels))
    own = scores[rows, labels].copy()
    scores[rows, labels] = -np.inf
    margins = scores.max(axis=1) - own
    is_judged = np.array(counts)[labels] > 1
    doubtful = np.flatnonzero(is_judged & (margins > 0))
    order = doubtful[np.argsort(-margins[doubtful], kind="stable")]
    suspects = [
        Suspect(int(i), images.classes[int(scores[i].argmax())], round(float(margins[i]), 4)) for i in order
    ]  # fmt: skip
    return tuple(suspects), (int((is_judged & (margins <= 0)).sum()), int(is_judged.sum()))


def _seen(how: Preprocessing, width: int, height: int) -> float:
    wide, high = how.resized_size(width, height)
    return min(1.0, how.crop_size**2 / (wide * high))
