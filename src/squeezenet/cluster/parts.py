"""Files of the finished blocks of a job, which are kept beside the output until they are joined.

A part's name holds a checksum over the job and the part, so that a damaged part, or one of another job, does not count.
Other files are never changed: the folder is used only if it is new or belongs to an earlier call.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ClusterError
from ..files import atomic_write, lock_folder, remove_leftovers
from .entries import RESULT_KEY
from .worker import row_schema

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Identity", "Parts"]

Identity = dict[str, str | int]
"""Facts that all parts of a job share: `model`, `images` and `top`."""

_CHANGED = {"model": "another model", "images": "other images, or changed ones", "top": "another top"}
_JOB, _LOCK = "job.json", "lock"
_PART = re.compile(r"(\d{6,})-[0-9a-f]{32}\.parquet")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


class Parts:
    """The folder `OUT.parts`."""

    def __init__(self, target: Path, identity: Identity) -> None:
        self.folder = target.with_name(f"{target.name}.parts")
        self._identity = identity
        self._files = defaultdict[int, set[Path]](set)

    @property
    def is_begun(self) -> bool:
        """Whether an earlier call started a job here and did not finish it."""
        return (self.folder / _JOB).exists()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Lock the folder while the block runs; if the block ends normally, this job's files in it are removed.

        Raises:
            ClusterError: If another process is at work in it, or it holds another job or anything else.
        """
        self._check()
        self.folder.mkdir(exist_ok=True)
        with lock_folder(self.folder, ClusterError):
            self._check()
            if not self.is_begun:
                with atomic_write(self.folder / _JOB) as stream:
                    stream.write(json.dumps(self._identity).encode())
            remove_leftovers(self.folder)
            for path in self.folder.iterdir():
                if found := _PART.fullmatch(path.name):
                    self._files[int(found[1])].add(path)
            yield
            (self.folder / _JOB).unlink()
            for path in {_path for paths in self._files.values() for _path in paths}:
                path.unlink(missing_ok=True)
            (self.folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody put something there, or it is a link
            self.folder.rmdir()

    def write(self, number: int, rows: pyarrow.Table) -> None:
        """Keep the rows of a block."""
        import pyarrow as pa
        from pyarrow.parquet import write_table

        stream = pa.BufferOutputStream()
        write_table(rows.cast(row_schema().with_metadata({RESULT_KEY: b"part"})), stream)
        data = stream.getvalue().to_pybytes()
        path = self.folder / self._name(number, len(rows), data)
        with atomic_write(path) as file:
            file.write(data)
        self._files[number].add(path)

    def read(self, number: int, count: int) -> pyarrow.Table | None:
        """Return the rows of a block, or None if its part is missing, incomplete, or of another job."""
        import pyarrow as pa
        from pyarrow.parquet import read_table

        for path in self._files[number]:
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if path.name == self._name(number, count, data):
                    return read_table(pa.BufferReader(data))
        return None

    def _name(self, number: int, count: int, data: bytes) -> str:
        job = json.dumps([self._identity, number, count]).encode()
        return f"{number:06}-{hashlib.sha256(job + data).hexdigest()[:32]}.parquet"

    def _check(self) -> None:
        """Raise if the folder has other contents or belongs to another job, before anything in it is changed."""
        for path in self.folder.iterdir() if self.folder.exists() else ():
            is_empty_lock = path.name == _LOCK and not path.is_symlink() and path.stat().st_size == 0
            is_ours = is_empty_lock or any(name.fullmatch(path.name) for name in (_PART, _TEMPORARY))
            if not is_ours and (path.name == _LOCK or not self.is_begun):
                raise ClusterError(
                    f"{self.folder}: expected no such folder, or that of an interrupted run, got one that holds"
                    f" {path.name!r}: choose another output, or move it away"
                )
        if self.is_begun:
            try:
                before = json.loads((self.folder / _JOB).read_bytes())
                changed = ", ".join(text for key, text in _CHANGED.items() if before.get(key) != self._identity[key])
            except (ValueError, AttributeError):
                changed = "another job"
            if changed:
                raise ClusterError(
                    f"{self.folder}: expected the run that was begun here, got {changed}:"
                    " use the same arguments, choose another output, or remove that folder"
                )
