"""Classifying any number of images on a cluster: one row per image in one Parquet file.

Workers classify blocks of images; if a worker is lost, its block goes to another. One process writes each finished
block to a file in `OUT.parts/`, and later calls skip these blocks. `OUT` is written when all blocks are done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classifier import sqz_path
from ..data import expand_pattern
from ..errors import ClusterError, FormatError
from ..fileformat import decode_sqz, read_bytes
from ..files import atomic_write
from ..progress import Reporter, Task, reporter_of
from .connection import LOCAL
from .entries import RESULT_KEY, Entry, list_entries
from .parts import Identity, Parts
from .tasks import ClusterTasks
from .worker import classify_block, plan_schema, row_schema

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BulkResult", "predict_to_parquet"]

# A lost worker costs one block: about a second of work, or minutes in jobs where more blocks would overload the
# driver.
_MIN_BLOCK, _MAX_BLOCK, _BLOCKS = 128, 100_000, 4_000
_ROW_GROUP = 100_000


@dataclass(frozen=True)
class BulkResult:
    """Counts and times of a bulk prediction."""

    n_images: int
    n_errors: int
    n_earlier: int
    """Images that earlier calls have already classified."""
    n_processors: int
    """Number of processors of the cluster; 0 if earlier calls had already done everything."""
    list_s: float
    """Seconds to find the images."""
    start_s: float
    """Seconds until the cluster was ready."""
    first_s: float
    """Seconds from then until the first block was done."""
    classify_s: float
    """Seconds from the cluster's start to the last block."""
    merge_s: float
    """Seconds to join the blocks in one file."""


@dataclass(frozen=True)
class _Block:
    number: int
    first: int
    count: int
    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        return f"{self.entries[0].name} to {self.entries[-1].name}"


def predict_to_parquet(
    model: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str], *,
    address: str = LOCAL, top: int = 5, progress: Reporter | bool = True,
) -> BulkResult:  # fmt: skip
    """Classify images on a Ray cluster; an interrupted call continues if it is repeated with the same arguments.

    Args:
        model: A `.sqz` file, or the name of a network of the package.
        sources: Folders, zips, files, Parquet files with a column of encoded images, or their URIs in an object store
            (`s3://`, `gs://` and others that Arrow supports). All machines must reach them under the same name.
        output: The Parquet file to write, with one row per image in order and the columns `index`, `path`, `class`,
            `probability`, `is_unknown`, `top_classes`, `top_probabilities`, `error`. An existing file is replaced.
        address: `local`, or the address of a running cluster.
        top: Number of classes to store per image.
        progress: A reporter; `True` for one on standard error, `False` for silence.

    Raises:
        FormatError: If the model is damaged or not a `.sqz` file.
        DataError: If a source does not exist or has no image.
        ClusterError: If the cluster cannot be reached or fails; if `OUT.parts/` is in use; or if it contains other
            files, or parts of a job with another model, another `top` or other images.
        OSError: If the output cannot be written.

    Example:
        >>> from squeezenet import predict_to_parquet
        >>> predict_to_parquet("cifar10", ["s3://bucket/photos"], "out.parquet").n_errors  # doctest: +SKIP
        0
    """
    encoded, target, clock = _checked(sqz_path(model)), Path(output), time.monotonic()
    hidden = (target, target.with_name(f"{target.name}.parts"))
    sources = [found for source in sources for found in expand_pattern(os.fspath(source))]
    readers, entries = list_entries(sources, leave_out=hidden)
    blocks = _blocks(entries)
    n_images, list_s = sum(block.count for block in blocks), time.monotonic() - clock
    if target.is_dir():  # better now than after hours
        raise FileExistsError(errno.EEXIST, "expected a file to write, got a folder", str(target))
    identity = _identify(encoded, entries, top)
    parts = Parts(target, identity)
    n_errors = None if parts.is_begun else _errors_in(target, identity, n_images)
    if n_errors is not None:
        return BulkResult(n_images, n_errors, n_images, 0, list_s, 0, 0, 0, 0)
    with parts.open():
        left = [block for block in blocks if parts.read(block.number, block.count) is None]
        n_earlier = n_images - sum(block.count for block in left)
        processors, start_s, first_s, classify_s = 0, 0.0, 0.0, 0.0
        if left:
            clock = time.monotonic()
            with ClusterTasks.open(address, classify_block, use_gpus=False) as tasks:
                processors, start_s = tasks.capacity, time.monotonic() - clock
                shared = tasks.share(encoded), tasks.share(readers)
                calls = ((block, (_plan(block), *shared, top)) for block in left)
                with reporter_of(progress).task("classifying", n_images, done=n_earlier) as task:
                    first_s, classify_s = _classify(tasks, calls, parts, task, n_earlier, n_images)
        clock = time.monotonic()
        n_errors = _merge(parts, blocks, target, identity)
    spent_s = list_s, start_s, first_s, classify_s, time.monotonic() - clock
    return BulkResult(n_images, n_errors, n_earlier, processors, *spent_s)


def _checked(path: Path) -> bytes:
    encoded = read_bytes(path)
    try:
        decode_sqz(encoded)
    except FormatError as error:
        raise error.at(path) from None
    return encoded


def _classify(
    tasks: ClusterTasks, calls: Iterable[tuple[_Block, tuple[Any, ...]]], parts: Parts, shown: Task, done: int,
    n_images: int,
) -> tuple[float, float]:  # fmt: skip
    """Write a file for every block; returns the seconds until the first and until the last."""
    clock, first_s = time.monotonic(), 0.0
    try:
        for block, rows in tasks.run_all(calls):
            parts.write(block.number, rows)
            first_s = first_s or time.monotonic() - clock
            done += block.count
            shown.update(done)
    except ClusterError as error:
        raise ClusterError(
            f"the cluster failed ({error}); {done:,} of {n_images:,} images are saved: repeat the call to continue"
        ) from None
    return first_s, time.monotonic() - clock


def _blocks(entries: Sequence[Entry]) -> list[_Block]:
    """Gather entries into blocks of similar size; a row group is not divided."""
    size = min(max(_MIN_BLOCK, sum(entry.n_images for entry in entries) // _BLOCKS), _MAX_BLOCK)
    blocks: list[_Block] = []
    gathered: list[Entry] = []
    first = count = 0
    for position, entry in enumerate(entries, start=1):
        gathered.append(entry)
        count += entry.n_images
        if count >= size or position == len(entries):
            blocks.append(_Block(len(blocks), first, count, tuple(gathered)))
            first, count, gathered = first + count, 0, []
    return blocks


def _plan(block: _Block) -> pyarrow.Table:
    import pyarrow as pa

    rows, index = [], block.first
    for entry in block.entries:
        rows.append({"index": index, **entry._asdict()})
        index += entry.n_images
    return pa.Table.from_pylist(rows, schema=plan_schema())


def _identify(encoded: bytes, entries: Sequence[Entry], top: int) -> Identity:
    images = hashlib.sha256()
    for entry in entries:
        images.update(repr(entry[1:]).encode("utf-8", "surrogateescape"))
    return {"model": hashlib.sha256(encoded).hexdigest(), "images": images.hexdigest(), "top": top}


def _merge(parts: Parts, blocks: Sequence[_Block], target: Path, identity: Identity) -> int:
    """Make one file of all parts, in order; returns the number of errors."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = row_schema().with_metadata({RESULT_KEY: json.dumps(identity).encode()})
    n_errors = 0
    with atomic_write(target) as stream, ParquetWriter(stream, schema, write_page_checksum=True) as writer:
        gathered: list[pa.Table] = []
        for block in blocks:
            rows = parts.read(block.number, block.count)
            if rows is None:
                raise ClusterError(f"{parts.folder}: a part was damaged or removed: repeat the call to redo it")
            n_errors += len(rows) - rows["error"].null_count
            gathered.append(rows.cast(schema))
            if block is blocks[-1] or sum(map(len, gathered)) >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(gathered))
                gathered = []
    return n_errors


def _errors_in(path: Path, identity: Identity, n_images: int) -> int | None:
    """The number of errors in the finished result of a job; None if the file is not that, or is damaged."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.schema_arrow.metadata or {}
            if json.loads(metadata.get(RESULT_KEY, b"null")) != identity or file.metadata.num_rows != n_images:
                return None
            batches = (batch.cast(row_schema()) for batch in file.iter_batches())
            return int(sum(len(batch) - batch.column("error").null_count for batch in batches))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException):
        return None
