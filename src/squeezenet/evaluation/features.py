"""Feature vectors of whole sets of images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..classifier import Classifier
from ..data import DataSource, ImageSet, Unreadable, decode_batches, open_data
from ..errors import DataError, MissingDependencyError
from ..files import atomic_write
from ..progress import Reporter, SilentReporter
from .predictor import one_ahead

__all__ = ["Features", "collect_features", "write_features"]

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Features:
    """Feature vectors of the readable images of a set, in order."""

    vectors: NDArray[np.int64]
    """(n, channels)"""
    indices: NDArray[np.int64]
    """(n,), positions in the set."""
    unreadable: tuple[Unreadable, ...]


def collect_features(classifier: Classifier, images: ImageSet, reporter: Reporter | None = None) -> Features:
    """Compute the feature vectors of a set, labelled or not.

    Raises:
        DataError: If not one image can be read.
    """
    vectors = [np.empty((0, classifier.spec.num_features), np.int64)]
    indices, unreadable = [np.empty(0, np.int64)], list[Unreadable]()
    with (reporter or SilentReporter()).task("photos", len(images)) as task:
        for batch in one_ahead(decode_batches(images, classifier.preprocessing, batch_size=_BATCH)):
            vectors.append(classifier.engine.features(batch.pixels))
            indices.append(batch.indices)
            unreadable += batch.unreadable
            task.update(batch.tried.stop)
    found = Features(vectors=np.concatenate(vectors), indices=np.concatenate(indices), unreadable=tuple(unreadable))
    if not len(found.indices):
        raise DataError(
            f"{images.name}: none of {len(images)} images can be read, such as {unreadable[0].name}"
            f" ({unreadable[0].reason})"
        )
    return found


def write_features(
    model: str | os.PathLike[str], sources: DataSource | Sequence[DataSource], output: Path, reporter: Reporter
) -> tuple[Features, ImageSet]:
    """Write the feature vectors of images to a `.npy` or `.parquet` file.

    Args:
        model: A `.sqz` file or the name of one.
        sources: Images, in class folders or not.
        output: The file; its suffix selects the format.
        reporter: Shows progress.

    Raises:
        DataError: If no image can be read, or the suffix is neither of these.
        MissingDependencyError: If a Parquet file needs pyarrow and it is not installed.
        OSError: If the file cannot be written.
    """
    if output.suffix not in (".npy", ".parquet"):
        raise DataError(f"expected a file that ends in .npy or .parquet, got {output}")
    classifier = Classifier(model)
    try:
        images = open_data(sources)
    except DataError:
        images = open_data(sources, unlabelled=True)
    for remark in images.remarks():
        reporter.say(remark)
    found = collect_features(classifier, images, reporter)
    stream = io.BytesIO()
    if output.suffix == ".npy":
        np.save(stream, found.vectors)
    else:
        _write_parquet(stream, images, found)
    with atomic_write(output) as file:
        file.write(stream.getvalue())
    return found, images


def _write_parquet(stream: io.BytesIO, images: ImageSet, found: Features) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(error) from None
    items = [images.items[index] for index in found.indices]
    classes = [None if item.label is None else images.classes[item.label] for item in items]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(found.vectors.reshape(-1)), found.vectors.shape[1])
    columns = {"image": [item.name for item in items], "class": pa.array(classes, pa.string()), "features": rows}
    pq.write_table(pa.table(columns), stream)
