"""Sources of encoded images: a folder, a zip, a file, or the embedded `digits`; `layout.py` interprets the paths.

Names and sizes are not trusted: links cannot make the listing loop, only regular files are opened, and no file is
read beyond `MAX_FILE_BYTES`.
"""

from __future__ import annotations

import abc
import glob
import io
import os
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import DataError, ImageError, MissingDependencyError
from ..files import IMAGE_EXTENSIONS
from ..images import MAX_FILE_BYTES, SIGNATURE_BYTES, is_image_start
from ..text import file_name
from .layout import junk_reason

__all__ = [
    "ALREADY_LISTED", "DIGITS", "DigitsSource", "DiskSource", "FileSource", "FolderSource", "Listing", "NoImages",
    "Source", "ZipSource", "expand_pattern",
]  # fmt: skip

ALREADY_LISTED = "a link to a folder already listed"
DIGITS = "digits"
_LOCAL_HEADER_BYTES = 30
_DOCUMENT_PARTS = frozenset({"[Content_Types].xml", "mimetype", "AndroidManifest.xml", "META-INF/MANIFEST.MF"})
_DIGITS_VAL_EVERY = 5  # every fifth image of a class is for validation
_READ_ERRORS = (
    OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, struct.error, ValueError,
)  # fmt: skip


@dataclass
class Listing:
    """The files and folders of a source."""

    files: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)
    """Images (by name or first bytes): printable path parts below the root, and the key for `Source.read`."""
    folders: set[tuple[str, ...]] = field(default_factory=set)
    """Path parts of every folder, including empty ones."""
    ignored: list[tuple[str, str]] = field(default_factory=list)
    """Names and reasons of everything ignored: other files, devices, unreadable, hidden and junk folders."""


class Source(abc.ABC):
    """A source of encoded images; can be pickled and used from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = file_name(str(path))

    @abc.abstractmethod
    def list_files(self) -> Listing:
        """Find every image, in an order that does not depend on the file system."""

    @abc.abstractmethod
    def read(self, key: Any, limit: int | None = None) -> bytes:
        """Return a file's bytes, or its first `limit`; raises `ImageError` if it is gone, damaged or too large."""

    def size_bytes(self, key: Any) -> int:
        """Return a file's size; 0 if it is gone."""
        return len(self.read(key))

    def _why_ignored(self, name: str, key: Any) -> str | None:
        """Return why a file is not an image; None if its name or its first bytes are those of an image."""
        if os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS:
            return None
        try:
            return None if is_image_start(self.read(key, SIGNATURE_BYTES)) else "not an image"
        except ImageError as error:
            return error.reason


def expand_pattern(path: str) -> list[str]:
    """Find the paths of a pattern such as "photos/*.jpg" that no shell has expanded; anything else is returned alone.

    A pattern without a match is returned as it is, to be reported like a missing file.
    """
    if glob.has_magic(path) and not os.path.lexists(path):
        return sorted(glob.glob(path, recursive=True)) or [path]
    return [path]


class DiskSource(Source):
    """Files by path."""

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Read one file; see `Source.read`."""
        name = file_name(key)
        try:
            # Without O_NONBLOCK, opening would block if a FIFO has replaced the file.
            descriptor = os.open(key, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb") as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise ImageError("expected a file, got a folder or a device", source=name)
                return _read_bounded(stream, name, status.st_size, limit)
        except OSError as error:
            raise ImageError(f"cannot be read ({error.strerror})", source=name) from None

    def size_bytes(self, key: str) -> int:
        """Ask the file system; see `Source.size_bytes`."""
        try:
            return os.stat(key).st_size
        except OSError:
            return 0


class FolderSource(DiskSource):
    """A folder tree on disk; links are followed, but no folder is entered twice."""

    def list_files(self) -> Listing:
        """Walk the tree in sorted order."""
        listing = Listing()
        seen: set[tuple[int, int]] = set()
        pending: list[tuple[str, tuple[str, ...]]] = [(str(self.path), ())]
        while pending:
            folder, parts = pending.pop()
            try:
                status = os.stat(folder)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                listing.ignored.append((file_name(folder), f"cannot be listed: {error.strerror}"))
                continue
            if (status.st_dev, status.st_ino) in seen:
                listing.ignored.append((file_name(folder), ALREADY_LISTED))
                continue
            seen.add((status.st_dev, status.st_ino))
            if parts:
                listing.folders.add(parts)
            folders = []
            for entry in entries:
                inner = (*parts, file_name(entry.name))
                is_folder = _entry_is(entry, stat.S_ISDIR)
                if reason := junk_reason(entry.name, is_folder=is_folder):
                    listing.ignored.append((file_name(entry.path), reason))
                elif is_folder:
                    folders.append((entry.path, inner))
                elif not _entry_is(entry, stat.S_ISREG):
                    listing.ignored.append((file_name(entry.path), "not a regular file"))
                elif reason := self._why_ignored(entry.name, entry.path):
                    listing.ignored.append((file_name(entry.path), reason))
                else:
                    listing.files.append((inner, entry.path))
            pending.extend(reversed(folders))
        return listing


def _entry_is(entry: os.DirEntry[str], kind: Any) -> bool:
    try:
        return bool(kind(entry.stat().st_mode))
    except OSError:  # a dangling or circular link
        return False


def _read_bounded(stream: Any, name: str, size: int, limit: int | None) -> bytes:
    if size > MAX_FILE_BYTES:
        raise ImageError(f"expected at most {MAX_FILE_BYTES} bytes, got {size}", source=name)
    # Never more than the size of the file, because reading allocates the requested size.
    data: bytes = stream.read(size if limit is None else min(limit, size))
    return data


class NoImages(Source):
    """Source of a file that is not an image, or of ignored files, so that they are reported in their place."""

    def __init__(self, path: Path, reason: str = "") -> None:
        super().__init__(path)
        self._reason = reason

    def list_files(self) -> Listing:
        """List the file itself."""
        return Listing(files=[((), self._reason)])

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Raise with the reason, which is the key; see `Source.read`."""
        raise ImageError(key)


class FileSource(DiskSource):
    """One image file, given by name."""

    def list_files(self) -> Listing:
        """List the file itself."""
        return Listing(files=[((), str(self.path))])


class ZipSource(Source):
    """A zip archive; nothing is ever extracted, so hostile member names lead nowhere."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def list_files(self) -> Listing:
        """List the members in name order.

        Raises:
            DataError: If the zip is damaged or encrypted.
        """
        listing, left_out = Listing(), dict[str, str]()
        try:
            archive = self._open()
            members = archive.infolist()
            _refuse_overlaps(members, archive.start_dir)
        except _READ_ERRORS as error:
            raise DataError(f"{self.name}: expected a zip archive, got one that cannot be read ({error})") from None
        for index, member in enumerate(members):
            path = member.filename.replace("\\", "/")
            parts = tuple(file_name(part) for part in path.split("/") if part not in ("", "."))
            is_folder = path.endswith("/")
            if not parts:
                continue
            if junk := _junk_part(parts, is_folder=is_folder):
                depth, reason = junk
                left_out["/".join((self.name, *parts[:depth]))] = reason
                continue
            if member.flag_bits & 1:
                raise DataError(f"{self.name}: expected a zip without a password, but {path!r} is encrypted")
            if ".." in parts:
                listing.ignored.append((f"{self.name}/{path}", "a path that leaves the archive"))
            elif is_folder:
                listing.folders.update(parts[:depth] for depth in range(1, len(parts) + 1))
            elif problem := self._why_ignored(parts[-1], index):
                left_out[f"{self.name}/{path}"] = problem
            else:
                listing.files.append((parts, index))
                listing.folders.update(parts[:depth] for depth in range(1, len(parts)))
        listing.files.sort()
        if not any(member.filename in _DOCUMENT_PARTS for member in members):  # nobody put these other files there
            listing.ignored += left_out.items()
        return listing

    def read(self, key: int, limit: int | None = None) -> bytes:
        """Read one member; see `Source.read`."""
        name = self.name
        try:
            archive = self._open()
            member = archive.infolist()[key]
            name = f"{self.name}/{member.filename}"
            with archive.open(member) as stream:
                return _read_bounded(stream, name, member.file_size, limit)
        except ImageError:
            raise
        except (*_READ_ERRORS, IndexError) as error:
            raise ImageError(f"cannot be read ({type(error).__name__}: {error})", source=name) from None

    def size_bytes(self, key: int) -> int:
        """Look it up in the directory; see `Source.size_bytes`."""
        return self._open().infolist()[key].file_size

    def _open(self) -> zipfile.ZipFile:
        # One handle per process: threads can share it, but a forked worker would share its file position.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self.path))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


def _junk_part(parts: tuple[str, ...], *, is_folder: bool) -> tuple[int, str] | None:
    """Find the first part of a member's path that is ignored: its depth and the reason."""
    for depth, part in enumerate(parts, start=1):
        if reason := junk_reason(part, is_folder=is_folder or depth < len(parts)):
            return depth, reason
    return None


def _refuse_overlaps(members: list[zipfile.ZipInfo], end: int) -> None:
    """Raise for a zip whose members share bytes, since a small one could hold any amount of work.

    Raises:
        BadZipFile: If so.
    """
    ordered = sorted(members, key=lambda member: member.header_offset)
    ends = [member.header_offset for member in ordered[1:]] + [end]
    for member, next_start in zip(ordered, ends, strict=False):
        if member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size > next_start:
            raise zipfile.BadZipFile(f"{member.filename!r} overlaps what follows")


class DigitsSource(Source):
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, as PNG files `<split>/<digit>/<number>.png`."""

    def __init__(self) -> None:
        with MissingDependencyError.named():
            from sklearn.datasets import load_digits
        super().__init__(Path(DIGITS))
        digits = load_digits()
        self._labels = [int(label) for label in digits.target]
        # Values are 0 to 16 (counts of set pixels in 4x4 blocks).
        self._pixels = (digits.images * (255 / 16)).round().astype("uint8")

    def list_files(self) -> Listing:
        """List the images of both splits."""
        listing = Listing()
        seen = [0] * 10
        for index, label in enumerate(self._labels):
            seen[label] += 1
            split = "val" if seen[label] % _DIGITS_VAL_EVERY == 0 else "train"
            listing.files.append(((split, str(label), f"{index:04d}.png"), index))
        listing.files.sort()
        return listing

    def read(self, key: int, limit: int | None = None) -> bytes:
        """Encode one image; see `Source.read`."""
        buffer = io.BytesIO()
        Image.fromarray(self._pixels[key]).save(buffer, "PNG")
        return buffer.getvalue()[:limit]
