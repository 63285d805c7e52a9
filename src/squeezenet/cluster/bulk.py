"""Classifying any number of images on a cluster: one row an image in one Parquet file.

Blocks of images go to workers, as many as there are processors; the block of a worker that was lost goes to another.
Each block that comes back becomes a file of its own in `OUT.parts/`; what lies there is never classified again. `OUT`
appears once all is there. One process writes, so whatever is retried is written once.

Use this when one machine is too slow, or a run may be cut off; `squeezenet predict --ray` is `predict_to_parquet`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

# A block is what a lost worker costs: a second or so, and minutes where more blocks would burden the driver.
_MIN_BLOCK, _MAX_BLOCK, _BLOCKS = 128, 100_000, 4_000
_IDENTITY = b"squeezenet.job"
_ROW_GROUP = 100_000


@dataclass(frozen=True)
class BulkResult:
    """What a run did."""

    n_images: int
    n_errors: int
    n_earlier: int
    """Of the images, those that earlier calls had classified."""
    n_processors: int
    """0 if there was nothing left to do."""
    list_s: float
    """Seconds to find the images."""
    start_s: float
    """Seconds until the cluster was there."""
    first_s: float
    """Seconds from then until the first block came back."""
    classify_s: float
    """Seconds from the cluster to the last block."""
    merge_s: float
    """Seconds to make one file of the blocks."""


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
    """Classify images on a Ray cluster; continue where an earlier call with the same arguments was cut off.

    Args:
        model: A `.sqz` file, or the name of a network of the package.
        sources: Folders, zips, files, Parquet files with a column of encoded images, or URIs of such in an object
            store (`s3://`, `gs://`, whatever Arrow knows). All machines must reach them under the same name.
        output: A Parquet file: `index`, `path`, `class`, `probability`, `is_unknown`, `top_classes`,
            `top_probabilities`, `error`; one row for each image, in order. What was there is replaced.
        address: `local`, or that of a running cluster.
        top: Classes to give for each image.
        on_progress: Called with the number of images done and the number of all.

    Raises:
        FormatError: If the model is damaged or no `.sqz` file.
        DataError: If a source does not exist or has no image.
        ClusterError: If the cluster cannot be reached or gives up, or another run is under way in `OUT.parts/`.
        OSError: If nothing can be written there.
    """
    path = sqz_path(model)
    encoded = read_bytes(path)
    try:
        decode_sqz(encoded)
    except FormatError as error:
        raise error.at(path) from None
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
        n_earlier = done = n_images - sum(block.count for block in left)
        processors, start_s, first_s, classify_s = 0, 0.0, 0.0, 0.0
        if left:
            clock = time.monotonic()
            with ClusterTasks.open(address, classify_block, use_gpus=False) as tasks:
                processors = tasks.capacity
                start_s, clock = time.monotonic() - clock, time.monotonic()
                try:
                    shared = tasks.share(encoded), tasks.share(readers)
                    for block, rows in tasks.run_all((block, (_plan(block), *shared, top)) for block in left):
                        _write(parts / _part_name(block), rows)
                        first_s = first_s or time.monotonic() - clock
                        done += block.count
                        if on_progress:
                            on_progress(done, n_images)
                except ClusterError as error:
                    raise ClusterError(
                        f"the cluster gave up ({error}); {done:,} of {n_images:,} images are saved:"
                        " the same command continues"
                    ) from None
                classify_s = time.monotonic() - clock
        clock = time.monotonic()
        n_errors = _merge(parts, blocks, target, identity)
    shutil.rmtree(parts)
    merge_s = time.monotonic() - clock
    return BulkResult(n_images, n_errors, n_earlier, processors, list_s, start_s, first_s, classify_s, merge_s)


def _blocks(entries: Sequence[Entry]) -> list[_Block]:
    """Gather entries to blocks of about one size; what is one row group stays together."""
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
