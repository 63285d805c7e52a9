"""A table of labels as DATA: a CSV file with one row per image, which has the file, its class and, optionally, its
split.

The first row names the columns; `docs/train.md` lists the names. Files are relative to the table's folder. A row that
cannot be used is skipped, and its number is reported.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from ..errors import DataError
from ..text import file_name
from .layout import split_of
from .sources import DiskSource, Listing

__all__ = ["TableSource", "is_table"]

_COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "image_path", "path", "filepath"),
    "label": ("label", "class", "class_name", "category", "target"),
    "split": ("split", "set", "subset"),
}
_MAX_BYTES = 256_000_000
_MAX_ROW_BYTES = 65_536  # of the first one


class TableSource(DiskSource):
    """The images of a table, as if they were in folders `<split>/<class>/`."""

    def list_files(self) -> Listing:
        """Read the rows in their order.

        Raises:
            DataError: If the table cannot be read, has no column for files or classes, a row has a split of another
                name, or two rows give one file different classes.
        """
        listing, seen = Listing(), dict[str, tuple[int, str]]()
        table = _read(self.path)
        columns = _columns(table, self.name)
        for number, row in enumerate(table[1:], start=2):
            if not row:
                continue
            cells = {name: row[at].strip() if at < len(row) else "" for name, at in columns.items()}
            path, label = cells["file"], cells["label"]
            name = f"{self.name}, row {number}"
            if not path or not label:
                listing.ignored.append((name, f"no {'file' if not path else 'class'}"))
                continue
            split = cells.get("split")
            if split is not None and split_of(split) is None:
                raise DataError(f"{name}: expected a split such as train, val or test, got {split!r}")
            key = os.path.join(self.path.parent, path)
            if key in seen and seen[key][1] != label:
                earlier, other = seen[key]
                raise DataError(f"{name}: {file_name(path)} is {label!r} here and {other!r} in row {earlier}")
            if reason := self._why_left_out(key, seen):
                listing.ignored.append((name, f"{file_name(path)}: {reason}"))
                continue
            seen[key] = number, label
            listing.files.append((((split,) if split else ()) + (label, file_name(os.path.basename(path))), key))
        listing.files.sort()
        return listing

    def _why_left_out(self, key: str, seen: dict[str, tuple[int, str]]) -> str | None:
        if key in seen:
            return f"already in row {seen[key][0]}"
        return self._why_ignored(key, key) if os.path.isfile(key) else "no such file"


def is_table(path: Path) -> bool:
    """Return whether the first row of a file names the columns that a table needs."""
    try:
        with path.open("rb") as stream:
            return bool(_columns(_cells(stream.readline(_MAX_ROW_BYTES).decode("utf-8-sig").splitlines()[0]), ""))
    except (OSError, UnicodeDecodeError, IndexError, csv.Error, DataError):
        return False


def _cells(text: str) -> list[list[str]]:
    """The cells of each row; the separator is the one of comma, semicolon and tab that is most frequent in the first
    row.
    """
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


def _read(path: Path) -> list[list[str]]:
    name = file_name(str(path))
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise DataError(f"{name}: expected a table of at most {_MAX_BYTES:,} bytes")
        return _cells(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: expected a table in UTF-8, got one that cannot be read ({error})") from None


def _columns(table: list[list[str]], name: str) -> dict[str, int]:
    """Positions of the columns by what they hold."""
    titles = [title.strip().casefold() for title in table[0]] if table else []
    columns = {
        meaning: titles.index(found)
        for meaning, known in _COLUMNS.items()
        if (found := next((title for title in known if title in titles), None)) is not None
    }
    if not {"file", "label"} <= columns.keys():
        shown = ", ".join(titles)[:80]
        raise DataError(f"{name}: expected a first row that names the columns file and label, got {shown!r}")
    return columns
