"""Recognising training images: their fingerprint is stored with the weights, and compared with other sets later."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import ImageError
from .imageset import ImageSet

__all__ = ["HOLDOUT_SHARE", "TRAINED_ON", "KnownPart", "known_part", "moved_with_groups", "training_mark"]

HOLDOUT_SHARE = 0.1
"""Share of every class that is held out for validation if no validation images are given."""

TRAINED_ON = "trained_on"
"""Key of the fingerprint in a network's provenance."""

_N_READ = 16  # images whose bytes are looked at; of all others name and size
_MAX_DEPTH = 8  # weights that began as other weights


class KnownPart(NamedTuple):
    """Images selected by `known_part`, and what is known about the whole set."""

    images: ImageSet
    n_trained: int = 0
    """Number of images in the whole set that the network was trained on; 0 if this is another set."""
    n_held: int = 0
    """Number of images in it that training held out."""

    @property
    def note(self) -> str | None:
        """A remark for people; None if this is another set."""
        if self.n_held:
            known = f"trained on {self.n_trained} of these {self.n_trained + self.n_held} images"
            return f"{known}: only the {self.n_held} held-out ones are measured"
        if self.n_trained:
            return "WARNING: the network was trained on these images, so this accuracy is meaningless"
        return None


def moved_with_groups(images: ImageSet, groups: Iterable[Sequence[int]]) -> list[int]:
    """Find what has to change sides so that no group of images is divided by `ImageSet.split_holdout`.

    A group goes where most of its images are, to training where that is undecided. A class of which nothing would be
    left on one side stays as it is.

    Args:
        images: The whole set.
        groups: Positions of images of one picture; of those of several classes, each class for itself.

    Returns:
        Positions, ascending, for `split_holdout`'s `moved`.
    """
    held = images.holdout(HOLDOUT_SHARE)
    by_class: dict[int, tuple[set[int], set[int]]] = {}
    for index, label in enumerate(images.labels):
        by_class.setdefault(label, (set(), set()))[index in held].add(index)
    moved: set[int] = set()
    for group in groups:
        for label in {images.labels[index] for index in group}:
            members = {index for index in group if images.labels[index] == label}
            rest, aside = by_class[label]
            source, target = (rest, aside) if 2 * len(members & aside) > len(members) else (aside, rest)
            going = members & source
            if going and going < source:
                source -= going
                target |= going
                moved ^= going
    return sorted(moved)


def training_mark(images: ImageSet, moved: Sequence[int] = ()) -> str:
    """Compute a set's fingerprint from its classes, file names, sizes and the contents of a few files.

    Args:
        images: Those trained on.
        moved: As given to `ImageSet.split_holdout`, if that set others aside.

    Returns:
        The number of images and 16 hexadecimal digits, "162-0123456789abcdef", and what was moved: "+3,17".
    """
    names = [unicodedata.normalize("NFC", item.name.rsplit("/", 1)[-1]) for item in images.items]
    classes = [unicodedata.normalize("NFC", name) for name in images.classes]
    rows = sorted((classes[label], names[i], images.size_bytes(i), i) for i, label in enumerate(images.labels))
    digest = hashlib.sha256(repr([row[:3] for row in rows]).encode("utf-8", "backslashreplace"))
    for row in rows[:: max(1, len(rows) // _N_READ)]:
        try:
            digest.update(hashlib.sha256(images.read(row[3])).digest())
        except ImageError:
            digest.update(b"unreadable")
    return f"{len(rows)}-{digest.hexdigest()[:16]}" + ("+" + ",".join(map(str, moved)) if moved else "")


def known_part(images: ImageSet, provenance: object, *, is_trained: bool = False) -> KnownPart:
    """Select the held-out images of a set, if the network was trained on this set.

    Args:
        images: Labelled images, with the class names of their folders.
        provenance: Of the network; anything but a mapping is ignored.
        is_trained: Select the training images instead.

    Returns:
        All images if the network was trained on another set, or none were held out.
    """
    marks = set(_marks(provenance))

    def is_known(part: ImageSet, moved: Sequence[int] = ()) -> bool:
        is_as_large = any(mark.startswith(f"{len(part)}-") for mark in marks)
        return is_as_large and training_mark(part, moved) in marks

    for moved in sorted({_moved(mark) for mark in marks}):
        rest, held = images.split_holdout(HOLDOUT_SHARE, moved=moved)
        if is_known(rest, moved):
            return KnownPart(rest if is_trained else held, len(rest), len(held))
    return KnownPart(images, len(images) if is_known(images) else 0)


def _moved(mark: str) -> tuple[int, ...]:
    """Positions in a mark, which may be anything."""
    parts = mark.partition("+")[2].split(",")
    return tuple(int(part) for part in parts if part.isdecimal() and len(part) < 10)


def _marks(provenance: object, depth: int = 0) -> Iterator[str]:
    if isinstance(provenance, Mapping) and depth < _MAX_DEPTH:
        if isinstance(mark := provenance.get(TRAINED_ON), str):
            yield mark
        for name in ("init", "provenance"):
            yield from _marks(provenance.get(name), depth + 1)
