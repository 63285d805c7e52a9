"""The work of one worker of bulk prediction: read a block of images, classify them, return rows."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..classifier import Answer, Classifier
from ..errors import ImageError
from ..fileformat import decode_sqz
from .entries import Entry, Reader

if TYPE_CHECKING:
    import pyarrow

__all__ = ["classify_block", "plan_schema", "row_schema"]

_BATCH = 16
_READS_AHEAD = 16  # a store answers after tens of milliseconds, the time of several predictions


def plan_schema() -> pyarrow.Schema:
    """Columns of a block: the position of the first image among all, and an `Entry`."""
    import pyarrow as pa

    kinds = (pa.int32(), pa.binary(), pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.binary())
    return pa.schema([("index", pa.int64()), *zip(Entry._fields, kinds, strict=True)])


def row_schema() -> pyarrow.Schema:
    """Columns of the result, one row per image."""
    import pyarrow as pa

    return pa.schema(
        [
            ("index", pa.int64()), ("path", pa.string()), ("class", pa.string()), ("probability", pa.float64()),
            ("is_unknown", pa.bool_()), ("top_classes", pa.list_(pa.string())),
            ("top_probabilities", pa.list_(pa.float64())), ("error", pa.string()),
        ]
    )  # fmt: skip


def classify_block(plan: pyarrow.Table, encoded: bytes, readers: Sequence[Reader], top: int) -> pyarrow.Table:
    """Classify the images of a block, on one thread, by an encoded `.sqz` file.

    Args:
        plan: Rows of `plan_schema`.
        encoded: The file.
        readers: The readers that the plan refers to.
        top: Classes per image.

    Returns:
        Rows of `row_schema`, in the plan's order; an image that cannot be read is a row with an error.
    """
    import pyarrow as pa

    classifier = _classifier(encoded)
    entries = [Entry(**{field: row[field] for field in Entry._fields}) for row in plan.to_pylist()]
    rows: list[dict[str, Any]] = []
    first = plan["index"][0].as_py()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF blocks and the like; what matters becomes an error
        for batch in _batches(_images(entries, readers)):
            rows += _rows(classifier, batch, top)
    for offset, row in enumerate(rows):
        row["index"] = first + offset
    return pa.Table.from_pylist(rows, schema=row_schema())


@functools.lru_cache(maxsize=1)  # a worker gets many blocks of one job
def _classifier(encoded: bytes) -> Classifier:
    return Classifier(decode_sqz(encoded), threads=1)


def _images(entries: Iterable[Entry], readers: Sequence[Reader]) -> Iterator[tuple[str, bytes | ImageError]]:
    """Read images in order; those in an object store some way ahead of the network."""

    def read(entry: Entry) -> list[tuple[str, bytes | ImageError]]:
        return list(readers[entry.source].read(entry))

    with ThreadPoolExecutor(_READS_AHEAD, thread_name_prefix="read") as pool:
        ahead: deque[Future[list[tuple[str, bytes | ImageError]]]] = deque()
        for entry in entries:
            reader = readers[entry.source]
            if reader.source is None and entry.row_group < 0:
                ahead.append(pool.submit(read, entry))
                if len(ahead) > _READS_AHEAD:
                    yield from ahead.popleft().result()
                continue
            while ahead:
                yield from ahead.popleft().result()
            yield from reader.read(entry)
        while ahead:
            yield from ahead.popleft().result()


def _batches(images: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(images, _BATCH)):
        yield batch


def _rows(classifier: Classifier, batch: list[tuple[str, bytes | ImageError]], top: int) -> Iterator[dict[str, Any]]:
    pixels: list[NDArray[np.uint8]] = []
    outcomes: list[tuple[str, str | None]] = []
    for name, data in batch:
        try:
            if isinstance(data, ImageError):
                raise data
            pixels.append(classifier.preprocessing(data))
            outcomes.append((name, None))
        except ImageError as error:
            outcomes.append((name, error.reason))
    readable = [name for name, reason in outcomes if reason is None]
    answers = iter(classifier.answers(readable, classifier.outputs(np.stack(pixels)), top=top) if pixels else ())
    for name, reason in outcomes:
        yield _row(next(answers) if reason is None else Answer(name=name, error=reason))


def _row(answer: Answer) -> dict[str, Any]:
    if answer.error is not None:
        return {"path": answer.name, "error": answer.error}
    best = answer.predictions
    return {
        "path": answer.name,
        "class": best[0].label,
        "probability": best[0].probability,
        "top_classes": [prediction.label for prediction in best],
        "top_probabilities": [prediction.probability for prediction in best],
        "is_unknown": answer.is_unknown,
    }
