"""`open_source`, which opens the source that a DATA argument names."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from ..errors import DataError
from ..files import IMAGE_EXTENSIONS
from ..images import SIGNATURE_BYTES, is_image_start
from ..text import file_name
from .sources import DIGITS, DigitsSource, FileSource, FolderSource, Source, ZipSource
from .table import TableSource, is_table

__all__ = ["open_source"]

_TABLE_SUFFIXES = (".csv", ".tsv")


def open_source(source: str | os.PathLike[str], *, any_file: bool = False) -> Source:
    """Open what a DATA argument names: `digits`, a folder, a zip, a table of labels or one image file.

    Args:
        source: The argument.
        any_file: Also open any other file as an image, whatever its extension.

    Raises:
        DataError: If it is not one of these, or the zip cannot be used.
    """
    text, path = os.fspath(source), Path(source)
    if not text.strip():  # an unset variable of a shell; Path() would be the working folder
        raise DataError("expected a file or a folder, got an empty name")
    if text == DIGITS and not path.exists():
        return DigitsSource()
    if path.is_dir():
        return FolderSource(path)
    if not path.exists() and "://" in text:
        raise DataError(f"{file_name(text)}: expected a file or a folder on this machine, got a URL: download it first")
    if not path.exists():
        wanted = "" if any_file else f"; expected a folder of class folders, a zip of one, or {DIGITS}"
        raise DataError(f"{file_name(text)}: no such file or folder{wanted}")
    if path.is_file() and path.suffix.lower() in _TABLE_SUFFIXES and (not any_file or is_table(path)):
        return TableSource(path)
    if path.is_file() and path.suffix.lower() not in IMAGE_EXTENSIONS and _is_zip(path):
        return ZipSource(path)
    if path.is_file() and (any_file or path.suffix.lower() in IMAGE_EXTENSIONS):
        return FileSource(path)
    wanted = "an image, or a folder or zip of images" if any_file else "a folder of class folders or a zip of one"
    got = "another kind of file" if path.is_file() else "a device, a pipe or a socket"
    raise DataError(f"{file_name(text)}: expected {wanted}, got {got}")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        if is_image_start(stream.read(SIGNATURE_BYTES)):  # with a zip behind it
            return False
        # The suffix counts too: a damaged zip must be reported as damaged.
        return zipfile.is_zipfile(stream) or path.suffix.lower() == ".zip"
