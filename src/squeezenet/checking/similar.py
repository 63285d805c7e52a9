"""`squeezenet.similar`: the photos that are most similar to one photo."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from ..classifier import Classifier
from ..data import ImageSet, decode_batches
from ..data.imageset import open_everything
from ..errors import DataError
from ..fileformat import SqzFile
from ..images import ImageSource
from ..progress import Reporter, reporter_of
from ..zoo import default_model
from .duplicates import neighbours

__all__ = ["Similar", "similar"]


class Similar(NamedTuple):
    """A photo that is similar to the one that was searched for."""

    name: str
    """Path or name of the photo."""
    cosine: float
    """Cosine between the features of both photos; 1 if they have the same direction."""


def similar(
    photo: ImageSource, photos: str | os.PathLike[str] | list[str] | ImageSet, *,
    on: str | os.PathLike[str] | SqzFile | Classifier | None = None, top: int = 10, progress: Reporter | bool = False,
) -> list[Similar]:  # fmt: skip
    """Find the photos that are most similar to one photo, by the cosine of their features.

    Args:
        photo: The photo to compare with.
        photos: Where to search: folders, zips, files, labelled or not. Unreadable photos and `photo` itself are
            skipped; copies of `photo` are not.
        on: The compressed network whose features are compared; by default one that ships with the package.
        top: Number of photos to find.
        progress: Whether to show progress.

    Returns:
        The most similar photos first; equally similar ones in the order of their names.

    Raises:
        ImageError: If `photo` cannot be read.
        DataError: If there are no photos, or none can be read.
        ModelNotFoundError: If no network has this name or path.

    Example:
        >>> import numpy as np
        >>> black = np.zeros((8, 8, 3), np.uint8)
        >>> [round(found.cosine, 1) <= 1 for found in similar(black, "digits", top=2)]
        [True, True]
    """
    if top < 1:
        raise ValueError(f"expected `top` of at least 1, got {top}")
    classifier = on if isinstance(on, Classifier) else Classifier(on if on is not None else default_model() or "")
    wanted = classifier.features(photo)
    images = photos if isinstance(photos, ImageSet) else open_everything(_listed(photos))
    features, names = [], []
    with reporter_of(progress).task("photos", len(images)) as task:
        for batch in decode_batches(images, classifier.preprocessing):
            if len(batch.indices):
                features.append(classifier.engine.features(batch.pixels))
                names += [images.items[i].name for i in batch.indices]
            task.update(batch.tried.stop)
    if not features:
        raise DataError(f"{images.name}: expected photos to compare with, got none that can be read")
    nearest = next(iter(neighbours(wanted, np.concatenate(features), count=top + 1)))
    return [Similar(names[index], cosine) for index, cosine in nearest if not _is_same_file(photo, names[index])][:top]


def _is_same_file(photo: ImageSource, name: str) -> bool:
    try:
        return isinstance(photo, (str, os.PathLike)) and os.path.samefile(photo, name)
    except (OSError, ValueError):  # a photo in a zip has no file of its own
        return False


def _listed(photos: str | os.PathLike[str] | list[str]) -> list[str | os.PathLike[str]]:
    return [photos] if isinstance(photos, (str, os.PathLike)) else list(photos)
