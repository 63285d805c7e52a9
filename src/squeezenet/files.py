"""Writing files so that a crash, a full disk or a signal never leaves half of one; reading TOML settings."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from .errors import SqueezeNetError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "IMAGE_EXTENSIONS", "atomic_write", "cache_folder", "keep_as", "load_toml", "lock_folder", "remove_leftovers",
    "write_together",
]  # fmt: skip

IMAGE_EXTENSIONS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif",
    ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".pfm", ".mpo", ".ico",
})  # fmt: skip

_MAX_TOML_BYTES = 1 << 20
_TOKEN_BYTES = 8
_TEMPORARY = ".{}.tmp"
_FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EFBIG", "EDQUOT", "EIO")}  # Windows has no quota
_LEFTOVER_AGE_S = 60.0  # far more than a writer takes to lock its new file
_swept = set[Path]()
_T = TypeVar("_T")


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a new file that replaces `path` only when it is complete and on disk.

    Leaving the block normally flushes, syncs and renames the file. Leaving it by an exception removes the temporary
    file, and an existing file at `path` is kept.

    Args:
        path: The file to write; its folder must exist. Links are followed, and permissions of an existing file are
            kept.

    Raises:
        OSError: If the folder cannot be written to, the disk is full, or `path` is a folder or a device; an existing
            file is then unchanged.
    """
    target = Path(os.path.realpath(path))
    permissions = None
    if target.exists():
        if not target.is_file():
            raise FileExistsError(errno.EEXIST, "expected a file to write, got a folder or a device", os.fspath(path))
        permissions = stat.S_IMODE(target.stat().st_mode)
    temporary = _temporary_beside(target)
    _sweep(target.parent)
    try:
        # Not `tempfile`: it makes private files, while a finished file follows the user's umask like any other.
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # network file systems may fail although they made it
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            _lock(handle)  # a writer that is killed lets go of it, and its file may be removed
            yield stream
            with contextlib.suppress(ValueError):  # `write_together` has done the same, and closed it
                stream.flush()
                os.fsync(stream.fileno())
        if permissions is not None:
            temporary.chmod(permissions)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            error.filename = os.fspath(path)  # a stream does not say which file it is of
        raise
    _sync_folder(target.parent)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files that belong together: all of them are on disk before the first is renamed.

    Args:
        files: Contents by path; the files are renamed in this order.

    Raises:
        OSError: As for `atomic_write`; existing files are then unchanged.
    """
    with contextlib.ExitStack() as stack:
        # The stack closes in reverse order, and each close renames.
        streams = [(stack.enter_context(atomic_write(path)), data) for path, data in reversed(list(files.items()))]
        for stream, data in streams:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        for stream, _ in streams:
            stream.close()  # whatever can fail has failed before the first rename


def cache_folder() -> Path:
    """Folder for downloaded and converted files: `$SQUEEZENET_HOME`, or `~/.cache/squeezenet`."""
    return Path(os.environ.get("SQUEEZENET_HOME") or Path("~/.cache/squeezenet")).expanduser()


def load_toml(path: Path, build: Callable[[dict[str, Any]], _T], error: type[SqueezeNetError]) -> _T:
    """Read a `.toml` file and build an object from its contents.

    Args:
        path: The file; at most 1 MiB of it is read.
        build: Builds the result from the file's data; raises `error` if they are invalid.
        error: The exception that every failure is converted to; it names the path.
    """
    import tomllib  # here, since predicting imports this module and must start fast

    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: expected a file, got a folder or a device")
        with path.open("rb") as stream:
            text = stream.read(_MAX_TOML_BYTES).decode("utf-8-sig")  # Notepad begins files with a mark
        return build(tomllib.loads(text))
    except error as problem:
        raise error(f"{path}: {str(problem).removeprefix(f'{path}: ')}") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{path}: expected TOML, got something else ({problem})") from None


def keep_as(path: Path, kept: Path) -> None:
    """Give a file a second name, which replaces an older file of that name; does nothing if the file does not exist.

    At any moment, both names refer to complete files. If the file system does not support hard links, this does
    nothing.

    Raises:
        OSError: If the folder cannot be written to.
    """
    temporary = _temporary_beside(kept)
    try:
        os.link(path, temporary)
        temporary.replace(kept)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
    finally:
        temporary.unlink(missing_ok=True)  # a rename onto the same file leaves both names


@contextlib.contextmanager
def lock_folder(folder: Path, error: type[SqueezeNetError]) -> Iterator[None]:
    """Lock a folder against other processes; the lock is released when the process ends, in any way.

    Args:
        folder: The folder, which must exist; it contains a file `lock` while it is locked.
        error: Raised if another process has the lock, or if it cannot be created.
    """
    if fcntl is None:  # Windows: two processes there are the user's own care
        yield
        return
    lock = folder / "lock"
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)
        except OSError as problem:
            raise error(f"{lock}: cannot be written ({problem.strerror})") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle)
            if lock.exists() and os.path.samestat(held, lock.stat()):
                break
            os.close(handle)  # its owner has just removed it
        except OSError:
            os.close(handle)
            raise error(f"{folder}: another process is using this folder: wait for it to end, or stop it") from None
    _locks.add(handle)
    try:
        yield
    finally:
        if handle in _locks:  # not in a forked child
            if stat.S_ISREG(held.st_mode) and not held.st_size:
                lock.unlink(missing_ok=True)
            _locks.discard(handle)
            os.close(handle)


_locks = set[int]()


def _leave_locks() -> None:
    """Close a forked child's copies of locks, which would outlive the process that holds them."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)


def remove_leftovers(folder: Path, *, min_age_s: float = 0.0) -> None:
    """Remove temporary files of writers that were killed. Where files cannot be locked, remove all that are old
    enough.
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(_TEMPORARY.format("*")):
            if len(path.name) == len(_TEMPORARY.format("")) + 2 * _TOKEN_BYTES:
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    is_old = time.time() - status.st_mtime >= min_age_s
                    if is_old and stat.S_ISREG(status.st_mode) and _is_abandoned(path):
                        path.unlink()


def _sweep(folder: Path) -> None:
    """Remove temporary files that killed writers left in the folder of a user's file: once per process and folder."""
    if fcntl is not None and folder not in _swept:
        _swept.add(folder)
        remove_leftovers(folder, min_age_s=_LEFTOVER_AGE_S)


def _is_abandoned(path: Path) -> bool:
    if fcntl is None:
        return True
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file; False if another process has the lock, or the file system has none."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _temporary_beside(target: Path) -> Path:
    return target.with_name(_TEMPORARY.format(os.urandom(_TOKEN_BYTES).hex()))


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only once the folder is; not every system can sync one.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
