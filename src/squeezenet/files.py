"""Writing files so that a crash, a full disk or a signal never leaves half of one.

Use this when you write anything that a user may want back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write"]


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` only once it is whole and on disk.

    Leaving the block normally flushes, syncs and renames; leaving it by an exception removes the temporary file and
    keeps what was at `path`.

    Args:
        path: Where the file goes; its folder must exist. A link is followed; permissions of a file that was there stay.

    Raises:
        OSError: If the folder cannot be written to, the disk is full, or `path` is a folder or a device; what was at
            `path` is then unchanged.
    """
    target = Path(os.path.realpath(path))
    permissions = None
    if target.exists():
        if not target.is_file():
            raise FileExistsError(errno.EEXIST, "expected a file to write, got a folder or a device", os.fspath(path))
        permissions = stat.S_IMODE(target.stat().st_mode)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        # Not `tempfile`: it makes private files, while a finished file follows the user's umask like any other.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if permissions is not None:
            temporary.chmod(permissions)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; not every system can sync one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
