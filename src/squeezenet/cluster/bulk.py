"""Classifying any number of images on a cluster: one row per image in one Parquet file.

Blocks of images go to workers; a lost worker's block goes to another. Each finished block becomes a file of its own in
`OUT.parts/`, which later calls skip; one process writes them. `OUT` appears when all blocks are done.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..classifier import sqz_path
from ..data import expand_pattern
from ..errors import ClusterError, FormatError
from ..fileformat import decode_sqz, read_bytes
from ..files import atomic_write, lock_folder, remove_leftovers
from .connection import LOCAL
from .entries import Entry, list_entries
from .tasks import ClusterTasks
from .worker import classify_block, plan_schema, row_schema

if TYPE_CHECKING:
    import pyarrow

__all__ = ["BulkResult", "predict_to_parquet"]

# A lost worker costs one block: a second of work or so, and minutes where more blocks would burden the driver.
_MIN_BLOCK, _MAX_BLOCK, _BLOCKS = 128, 100_000, 4_000
_IDENTITY = b"squeezenet.job"
_ROW_GROUP = 100_000


@dataclass(frozen=True)
class BulkResult:
    """What a run did."""

    n_images: int
    n_errors: int
    n_earlier: int
    """Images that earlier calls had classified."""
    n_processors: int
    """0 if nothing was left to do."""
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
    model: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    address: str = LOCAL,
    top: int = 5,
    on_progress: Callable[[int, int], None] | None = None,
) -> BulkResult:
    """Classify images on a Ray cluster; continues an interrupted call with the same arguments.

    Args:
        model: A `.sqz` file, or the name of a network of the package.
        sources: Folders, zips, files, Parquet files with a column of encoded images, or their URIs in an object store
            (`s3://`, `gs://`, all that Arrow supports). All machines must reach them under the same name.
        output: A Parquet file: `index`, `path`, `class`, `probability`, `is_unknown`, `top_classes`,
            `top_probabilities`, `error`; one row per image, in order. An existing file is replaced.
        address: `local`, or that of a running cluster.
        top: Classes per image.
        on_progress: Called with the number of images done and the number of all.

    Raises:
        FormatError: If the model is damaged or not a `.sqz` file.
        DataError: If a source does not exist or has no image.
        ClusterError: If the cluster cannot be reached or gives up, or another run is under way in `OUT.parts/`.
        OSError: If the output cannot be written.

    Example:
        >>> from squeezenet import predict_to_parquet
        >>> predict_to_parquet("cifar10", ["s3://bucket/photos"], "out.parquet").n_errors  # doctest: +SKIP
        0
    """
    encoded = _checked(sqz_path(model))
    clock = time.monotonic()
    readers, entries = list_entries([found for source in sources for found in expand_pattern(os.fspath(source))])
    blocks = _blocks(entries)
    n_images = sum(block.count for block in blocks)
    list_s = time.monotonic() - clock
    identity = _identify(encoded, entries, top)
    target = Path(output)
    if target.is_dir():  # better now than after hours
        raise FileExistsError(errno.EEXIST, "expected a file to write, got a folder", str(target))
    parts = target.with_name(f"{target.name}.parts")
    if not parts.exists() and _identity_of(target) == identity:
        return BulkResult(n_images, _count_errors(target), n_images, 0, list_s, 0, 0, 0, 0)
    parts.mkdir(exist_ok=True)
    with lock_folder(parts, ClusterError):
        _begin(parts, identity)
        left = [block for block in blocks if not _is_done(parts, block)]
        n_earlier = n_images - sum(block.count for block in left)
        processors, start_s, first_s, classify_s = 0, 0.0, 0.0, 0.0
        if left:
            clock = time.monotonic()
            with ClusterTasks.open(address, classify_block, use_gpus=False) as tasks:
                processors, start_s = tasks.capacity, time.monotonic() - clock
                shared = tasks.share(encoded), tasks.share(readers)
                calls = ((block, (_plan(block), *shared, top)) for block in left)
                first_s, classify_s = _classify(tasks, calls, parts, n_earlier, n_images, on_progress)
        clock = time.monotonic()
        n_errors = _merge(parts, blocks, target, identity)
    shutil.rmtree(parts)
    merge_s = time.monotonic() - clock
    return BulkResult(n_images, n_errors, n_earlier, processors, list_s, start_s, first_s, classify_s, merge_s)


def _checked(path: Path) -> bytes:
    encoded = read_bytes(path)
    try:
        decode_sqz(encoded)
    except FormatError as error:
        raise error.at(path) from None
    return encoded


def _classify(
    tasks: ClusterTasks,
    calls: Iterable[tuple[_Block, tuple[Any, ...]]],
    parts: Path,
    done: int,
    n_images: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[float, float]:
    """Write a file for every block; returns the seconds until the first and until the last."""
    clock, first_s = time.monotonic(), 0.0
    try:
        for block, rows in tasks.run_all(calls):
            _write(parts / _part_name(block), rows)
            first_s = first_s or time.monotonic() - clock
            done += block.count
            if on_progress:
                on_progress(done, n_images)
    except ClusterError as error:
        raise ClusterError(
            f"the cluster gave up ({error}); {done:,} of {n_images:,} images are saved: the same command continues"
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


def _identify(encoded: bytes, entries: Sequence[Entry], top: int) -> dict[str, str | int]:
    """What must be the same for parts to belong together."""
    images = hashlib.sha256()
    for entry in entries:
        images.update(repr((entry.name, entry.row_group, entry.n_images)).encode("utf-8", "surrogateescape"))
    return {"model": hashlib.sha256(encoded).hexdigest(), "images": images.hexdigest(), "top": top}


def _begin(parts: Path, identity: dict[str, str | int]) -> None:
    """Write what the job is, or compare it with what an earlier call wrote.

    Raises:
        ClusterError: If that call did something else.
    """
    path = parts / "job.json"
    if path.exists():
        try:
            before = json.loads(path.read_bytes())
            changed = ", ".join(key for key in identity if before.get(key) != identity[key])
        except (ValueError, AttributeError):
            changed = "job"
        if changed:
            raise ClusterError(
                f"{parts}: expected the run that was begun here, got another {changed}:"
                " use the same arguments, or remove that folder"
            )
    else:
        with atomic_write(path) as stream:
            stream.write(json.dumps(identity).encode())
    remove_leftovers(parts)


def _part_name(block: _Block) -> str:
    return f"{block.number:06}.parquet"


def _is_done(parts: Path, block: _Block) -> bool:
    import pyarrow
    from pyarrow.parquet import read_metadata

    try:
        return bool(read_metadata(parts / _part_name(block)).num_rows == block.count)
    except (OSError, pyarrow.ArrowException):
        return False


def _write(path: Path, rows: pyarrow.Table) -> None:
    from pyarrow.parquet import write_table

    with atomic_write(path) as stream:
        write_table(rows.cast(row_schema()), stream)


def _merge(parts: Path, blocks: Sequence[_Block], target: Path, identity: dict[str, str | int]) -> int:
    """Make one file of all parts, in order; returns the number of errors."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter, read_table

    schema = row_schema().with_metadata({_IDENTITY: json.dumps(identity).encode()})
    n_errors = 0
    with atomic_write(target) as stream, ParquetWriter(stream, schema) as writer:
        gathered: list[pa.Table] = []
        for block in blocks:
            rows = read_table(parts / _part_name(block), partitioning=None)
            n_errors += len(rows) - rows["error"].null_count
            gathered.append(rows)
            if block is blocks[-1] or sum(map(len, gathered)) >= _ROW_GROUP:
                writer.write_table(pa.concat_tables(gathered).cast(schema))
                gathered = []
    return n_errors


def _identity_of(path: Path) -> dict[str, str | int] | None:
    import pyarrow
    from pyarrow.parquet import read_schema

    try:
        found: dict[str, str | int] = json.loads((read_schema(path).metadata or {}).get(_IDENTITY, b"null"))
    except (OSError, ValueError, pyarrow.ArrowException):
        return None
    return found


def _count_errors(path: Path) -> int:
    from pyarrow.parquet import read_table

    column = read_table(path, columns=["error"])["error"]
    return len(column) - int(column.null_count)
