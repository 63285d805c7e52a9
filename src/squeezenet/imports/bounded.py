"""Checks of weight files before they are read: regular files, not too large."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import WeightsError
from ..spec import MAX_WEIGHTS

__all__ = ["MAX_FILE_BYTES", "MAX_HEADER_BYTES", "check_file", "read_bounded"]

MAX_HEADER_BYTES = 16 << 20  # the names of 65,535 classes fit
MAX_FILE_BYTES = 8 * MAX_WEIGHTS + MAX_HEADER_BYTES  # float64 is the widest that is read

_WEB_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def read_bounded(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes.

    Raises:
        WeightsError: If there is no such file, it cannot be read, or it is larger.
    """
    check_file(path, max_bytes=max_bytes)
    try:
        with open(path, "rb") as stream:
            return stream.read(max_bytes)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None


def check_file(path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES) -> None:
    """Raise a `WeightsError` unless there is a regular file of at most `max_bytes` bytes, before anything is read."""
    if not Path(path).is_file():
        problem = "got a folder or a device" if Path(path).exists() else "but there is none"
        raise WeightsError(f"{path}: expected a weight file, {problem}")
    try:
        with open(path, "rb") as stream:
            start = stream.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path}: expected weights, got a Git LFS pointer to them: run `git lfs pull` beside it")
    if start.startswith(_WEB_PAGE):
        raise WeightsError(f"{path}: expected weights, got a web page: download the file itself, not the page about it")
    size_bytes = Path(path).stat().st_size
    if size_bytes > max_bytes:
        raise WeightsError(f"{path}: expected at most {max_bytes} bytes, got {size_bytes}: this is not a SqueezeNet")
