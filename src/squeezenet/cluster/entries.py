"""Inputs of bulk prediction: folders, zips, files and columns of Parquet files, on disk or in an object store."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.opening import open_source
from ..data.sources import ALREADY_LISTED, Source, ZipSource
from ..errors import DataError, ImageError, MissingDependencyError
from ..files import IMAGE_EXTENSIONS
from ..images import MAX_FILE_BYTES
from ..text import file_name

if TYPE_CHECKING:
    import pyarrow.fs
    import pyarrow.parquet

__all__ = ["RESULT_KEY", "Entry", "Reader", "list_entries"]

RESULT_KEY = b"squeezenet.job"
"""Metadata key of the results of bulk prediction; files with this key are not read as inputs."""

_Test = Callable[[str], bool]

_PARQUET = ".parquet"
_NO_ROW_GROUP = -1
_LEFT_OUT = -2
_MAX_ROW_GROUP_BYTES = 4_000_000_000
_ROWS_AT_ONCE = 32


class Entry(NamedTuple):
    """An image file, or the images of one row group."""

    source: int
    """Position among the readers."""
    key: bytes
    """Key for the reader: a path in the operating system's form, or a position in a zip."""
    name: str
    """Name of the file, for messages."""
    row_group: int
    """-1 for an image file; -2 for another file, whose `key` is then the reason why it is not an image."""
    first_row: int
    """Position of the row group's first row in the file."""
    n_images: int
    version: bytes
    """Text that changes if the file is modified, replaced, or linked to another file; empty if it is gone."""


@dataclass(frozen=True)
class Reader:
    """Reads what one argument named; may be pickled."""

    filesystem: pyarrow.fs.FileSystem
    source: Source | None = None
    """Source of local images; all others are read by the file system."""

    def read(self, entry: Entry) -> Iterator[tuple[str, bytes | ImageError]]:
        """Yield an entry's images: the name, and the encoded bytes or a description of the error; never raises."""
        if entry.row_group == _LEFT_OUT:
            yield entry.name, ImageError(entry.key.decode())
            return
        if entry.row_group == _NO_ROW_GROUP:
            try:
                yield entry.name, self._read_file(os.fsdecode(entry.key))
            except ImageError as error:
                yield entry.name, error
            return
        numbers = iter(range(entry.first_row, entry.first_row + entry.n_images))
        reason = "the file has changed"
        try:
            for data, number in zip(self._read_rows(entry), numbers, strict=False):
                missing = ImageError("expected an image, got nothing")
                yield f"{entry.name}#{number}", missing if data is None else data
        except Exception as error:  # Arrow's own, the store's, and those of damaged files
            reason = _first_line(error)
        for number in numbers:
            yield f"{entry.name}#{number}", ImageError(f"the row cannot be read ({reason})")

    def _read_file(self, key: str) -> bytes:
        if self.source is not None:
            return self.source.read(int(key) if isinstance(self.source, ZipSource) else key)
        try:
            with self.filesystem.open_input_file(key) as stream:
                if stream.size() > MAX_FILE_BYTES:
                    raise ImageError(f"expected at most {MAX_FILE_BYTES} bytes, got {stream.size()}")
                data: bytes = stream.read()
                return data
        except OSError as error:
            raise ImageError(f"cannot be read ({_first_line(error)})") from None

    def _read_rows(self, entry: Entry) -> Iterator[bytes | None]:
        with _open_parquet(self.filesystem, os.fsdecode(entry.key), entry.name) as file:
            column, field = _image_column(file, entry.name)
            size = _column_bytes(file, entry.row_group, column)
            if size > _MAX_ROW_GROUP_BYTES:
                raise ImageError(f"a row group of {size:,} bytes, more than {_MAX_ROW_GROUP_BYTES:,}")
            path = f"{column}.{field}" if field else column
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[entry.row_group], columns=[path]):
                values = batch.column(0)
                yield from (values.field(field) if field else values).to_pylist()


def list_entries(
    arguments: Sequence[str | os.PathLike[str]], *, leave_out: Sequence[Path] = ()
) -> tuple[list[Reader], list[Entry]]:
    """Find all images; an image that is named twice is there twice, a folder that links lead to again is not.

    Args:
        arguments: Folders, zips, image files, Parquet files, or URIs of folders and files in an object store.
        leave_out: Files and folders to pass over; so are results of bulk prediction.

    Raises:
        DataError: If a source does not exist or has no image.
        MissingDependencyError: If Arrow is not installed.
    """
    readers: list[Reader] = []
    entries: list[Entry] = []
    is_left_out = _within(leave_out)
    for number, source in enumerate(arguments):
        argument = os.fspath(source)
        if "://" in argument:
            reader, found = _list_store(argument, number, is_left_out)
        else:
            reader, found = _list_local(argument, number, file_name(argument.rstrip("/") or argument), is_left_out)
        if not found:
            raise DataError(f"{argument}: expected images, or Parquet files with a column of images, got none")
        readers.append(reader)
        entries += found
    if all(entry.row_group == _LEFT_OUT for entry in entries):
        raise DataError(f"{os.fspath(arguments[0])}: expected images, got none, but such as {entries[0].name}")
    return readers, entries


def _list_local(argument: str, number: int, shown: str, is_left_out: _Test) -> tuple[Reader, list[Entry]]:
    with MissingDependencyError.named():
        from pyarrow.fs import LocalFileSystem
    path, filesystem = Path(argument).absolute(), LocalFileSystem()  # a worker may work in another folder
    if path.suffix.lower() == _PARQUET and path.is_file():
        return Reader(filesystem), _row_groups(filesystem, str(path), shown, number, _file_version(path))
    if not path.exists():
        raise DataError(f"{argument}: no such file or folder")
    source = open_source(path, any_file=True)
    whole = _file_version(path) if isinstance(source, ZipSource) else None
    entries = []
    listing = source.list_files()
    left_out = [("", "expected an image or a zip of images, got a zip without any")]
    if listing.files or not isinstance(source, ZipSource):
        rows = [(name.removeprefix(source.name), why) for name, why in listing.ignored if why != ALREADY_LISTED]
        rows = [row for row in rows if not row[0].lower().endswith(_PARQUET) and not is_left_out(f"{path}{row[0]}")]
        left_out = [(name, f"ignored: {why}") for name, why in rows]
    for parts, key in listing.files:
        if whole is not None or not is_left_out(str(key)):
            version = whole or _file_version(str(key))
            name = "/".join((shown, *parts))
            entries.append(Entry(number, os.fsencode(str(key)), name, _NO_ROW_GROUP, 0, 1, version))
    for inner in sorted(_parquet_files(path)) if path.is_dir() else ():
        if not is_left_out(str(inner)):
            name = f"{shown}/{file_name(str(inner.relative_to(path)))}"
            entries += _row_groups(filesystem, str(inner), name, number, _file_version(inner), in_folder=True)
    entries += [Entry(number, why.encode(), f"{shown}{name}", _LEFT_OUT, 0, 1, b"") for name, why in left_out]
    return Reader(filesystem, source), entries


def _parquet_files(root: Path) -> Iterator[Path]:
    """Find the Parquet files of a folder, as images are found: not in hidden folders, each folder once."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        is_known = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [] if is_known else [name for name in folders if not name.startswith(".")]
        for name in () if is_known else names:
            path = Path(folder, name)
            if path.suffix.lower() == _PARQUET and not name.startswith(".") and path.is_file():
                yield path


def _within(places: Sequence[Path]) -> _Test:
    """Test whether a file is one of some places or in one of them, whatever links lead there."""
    hidden = {os.path.realpath(place) for place in places}

    @functools.cache  # following links takes longer than listing
    def look(folder: str) -> tuple[str, bool]:
        real = Path(os.path.realpath(folder))
        return str(real), not hidden.isdisjoint(map(str, (real, *real.parents)))

    def is_within(path: str) -> bool:
        folder, name = os.path.split(path)
        real, is_hidden = look(folder)
        return is_hidden or os.path.join(real, name) in hidden

    return is_within


def _file_version(path: str | os.PathLike[str]) -> bytes:
    # Without the device number: it may change after a restart, and the job must continue.
    try:
        status = os.stat(path)
    except OSError:
        return b""
    return _version(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _version(*facts: object) -> bytes:
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).digest()


def _list_store(uri: str, number: int, is_left_out: _Test) -> tuple[Reader, list[Entry]]:
    with MissingDependencyError.named():
        import pyarrow
        from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
    try:
        filesystem, root = FileSystem.from_uri(uri)
        if isinstance(filesystem, LocalFileSystem):
            return _list_local(root, number, uri.rstrip("/"), is_left_out)
        (info,) = filesystem.get_file_info([root])
        is_folder = info.type == FileType.Directory
        found = filesystem.get_file_info(FileSelector(root, recursive=True)) if is_folder else [info]
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{uri}: cannot be listed ({_first_line(error)})") from None
    if info.type == FileType.NotFound:
        raise DataError(f"{uri}: no such file or folder")
    entries: list[Entry] = []
    for item in sorted(found, key=lambda item: item.path):
        inner = item.path.removeprefix(root).lstrip("/")
        if item.type != FileType.File or any(part.startswith(".") for part in inner.split("/")):
            continue
        name = f"{uri.rstrip('/')}/{inner}" if inner else uri
        suffix, version = os.path.splitext(item.path)[1].lower(), _version(item.size, item.mtime_ns)
        if suffix == _PARQUET:
            entries += _row_groups(filesystem, item.path, name, number, version, in_folder=is_folder)
        elif suffix in IMAGE_EXTENSIONS or not is_folder:
            entries.append(Entry(number, os.fsencode(item.path), name, _NO_ROW_GROUP, 0, 1, version))
        else:
            entries.append(Entry(number, b"ignored: not named like an image", name, _LEFT_OUT, 0, 1, b""))
    return Reader(filesystem), entries


def _row_groups(
    filesystem: pyarrow.fs.FileSystem, path: str, name: str, number: int, version: bytes, *, in_folder: bool = False
) -> list[Entry]:
    entries, first = [], 0
    with _open_parquet(filesystem, path, name) as file:
        if in_folder and RESULT_KEY in (file.schema_arrow.metadata or {}):
            return []
        _image_column(file, name)
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if count:
                entries.append(Entry(number, os.fsencode(path), name, group, first, count, version))
            first += count
    return entries


def _open_parquet(filesystem: pyarrow.fs.FileSystem, path: str, name: str) -> pyarrow.parquet.ParquetFile:
    """Open a Parquet file, reading no more than its end."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, filesystem=filesystem)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{name}: expected a Parquet file, got something else ({_first_line(error)})") from None


def _image_column(file: pyarrow.parquet.ParquetFile, name: str) -> tuple[str, str | None]:
    """Find the column of encoded images, and the field within it, if any.

    It holds bytes, or records with a field `bytes`, as data sets have it; of several, that called `image` is taken.
    """
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found: dict[str, str | None] = {}
    for column in file.schema_arrow:
        if is_bytes(column.type):
            found[column.name] = None
        elif types.is_struct(column.type) and any(x.name == "bytes" and is_bytes(x.type) for x in column.type):
            found[column.name] = "bytes"
    if "image" in found:
        return "image", found["image"]
    if len(found) != 1:
        raise DataError(
            f"{name}: expected one column of encoded images, or one called `image`,"
            f" got {', '.join(sorted(found)) or 'none'} among {', '.join(file.schema_arrow.names)}"
        )
    return next(iter(found.items()))


def _column_bytes(file: pyarrow.parquet.ParquetFile, row_group: int, column: str) -> int:
    group = file.metadata.row_group(row_group)
    chunks = (group.column(index) for index in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
