"""The folder of a run: weights, checkpoint, log and facts, each file whole at any moment.

best.safetensors   the network with the best validation top-1, ready to use
last.safetensors   the network after the last finished epoch
checkpoint.pt      everything needed to continue; checkpoint.previous.pt is the one before
log.csv            one row per epoch
recipe.toml        the settings of the run
run.json           what was run, on what, and what came out
report.html        one page about the network, once the run is finished; README.md is its model card
"""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import io
import json
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from ..errors import MissingDependencyError, TrainingError
from ..files import atomic_write, lock_folder, remove_leftovers
from ..models import SqueezeNet, fold_batch_norm, save_safetensors
from ..zoo import RUN_WEIGHTS

__all__ = ["LOG_COLUMNS", "EpochRow", "EpochWriter", "RunFolder", "tensorboard_writer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRow:
    """Results of an epoch: one row of the log."""

    epoch: int
    """Counted from 1."""
    train_loss: float
    """Mean over the epoch's steps, nats."""
    val_loss: float
    top1: float
    """Validation top-1, percent."""
    top5: float
    lr: float
    """Learning rate of the last step."""
    img_per_s: float
    seconds: float
    """Duration of the training steps."""
    alarm: str | None = None
    """Advice if the network has learnt nothing. Only in the row that `on_epoch` receives, not in the log."""

    def to_dict(self) -> dict[str, float]:
        """The columns of the log."""
        return {name: getattr(self, name) for name in LOG_COLUMNS}


LOG_COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow) if field.name != "alarm")

EpochWriter = Callable[[EpochRow], None]
"""Called after each epoch."""


class RunFolder:
    """Paths and writers of a run's files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint, self.previous_checkpoint = path / "checkpoint.pt", path / "checkpoint.previous.pt"
        self.request = path / "request.json"
        self.best, self.last = (path / name for name in RUN_WEIGHTS)

    @contextlib.contextmanager
    def taken(self, request: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Make the folder, or take over that of an interrupted run; no other process may write into it meanwhile.

        `request` holds the options of the training; it is kept until the first checkpoint, for a run that resumes.

        Raises:
            TrainingError: If it holds another run and `resume` is off, cannot be made, or is in use.
        """
        is_made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be made a run folder ({error.strerror})") from None
        with contextlib.ExitStack() as stack:
            if is_made:
                stack.callback(self._remove_if_empty)
            stack.enter_context(lock_folder(self.path, TrainingError))
            remove_leftovers(self.path)
            if self.has_checkpoint and not resume:
                raise TrainingError(
                    f"{self.path}: expected a new or empty run folder, got one with a checkpoint:"
                    " continue it with --resume, or choose another folder"
                )
            is_begun = self.has_checkpoint or (resume and self.request.exists())
            try:
                if not is_begun:
                    self._write(self.request.name, json.dumps(request, indent=2) + "\n")
            except OSError as error:
                raise TrainingError(f"{self.path}: cannot be written ({error.strerror})") from None
            try:
                yield
            except Exception:
                if not is_begun and not self.has_checkpoint:  # nothing was begun that could be continued
                    self.request.unlink(missing_ok=True)
                raise

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to continue from."""
        return self.checkpoint.exists() or self.previous_checkpoint.exists()

    def remembered(self) -> dict[str, Any] | None:
        """Read the note of a run without a checkpoint; None where no run was begun.

        Raises:
            TrainingError: If a run was begun, and it is not known how.
        """
        try:
            note = json.loads(self.request.read_text(encoding="utf-8"))
            if isinstance(note, dict):
                return note
        except FileNotFoundError:
            if not (self.path / "recipe.toml").exists():
                return None
        except (OSError, ValueError, RecursionError):
            pass
        raise TrainingError(
            f"{self.path}: expected a checkpoint to continue from, got a run without one:"
            " begin it again without --resume, or choose another folder"
        )

    def begin(self, save: Callable[[Path], None], recipe: str) -> None:
        """Save a run before its first step, and the text of its recipe: from here on it continues as what it is.

        Raises:
            TrainingError: If the folder cannot be written.
        """
        try:
            save(self.checkpoint)
            self._write("recipe.toml", recipe)
            self.request.unlink(missing_ok=True)
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot be written ({error.strerror}); nothing was trained yet:"
                " make room or repair the disk, then begin again"
            ) from None

    def write_model(self, path: Path, model: SqueezeNet, facts: dict[str, Any]) -> None:
        """Write a network in its final form, with facts about its making; the same run gives the same bytes."""
        final = copy.copy(fold_batch_norm(model))  # the facts are the file's, not the running network's
        final.provenance = {**model.provenance, **facts}
        save_safetensors(final, path)

    def write_log(self, history: Sequence[dict[str, float]]) -> None:
        """Write the log of all epochs."""
        text = io.StringIO()
        writer = csv.DictWriter(text, LOG_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})
        self._write("log.csv", text.getvalue())

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write what was run and what came out, with the versions and the machine."""
        machine = {
            "command": shlex.join(sys.argv),
            "versions": {
                "squeezenet": metadata.version("squeezenet"), "python": platform.python_version(),
                "torch": torch.__version__, "numpy": np.__version__, "pillow": PIL.__version__,
            },
            "hardware": {
                "machine": platform.machine(), "system": platform.system(), "threads": torch.get_num_threads(),
            },
        }  # fmt: skip
        self._write("run.json", json.dumps({**machine, **facts}, indent=2, ensure_ascii=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        with atomic_write(self.path / name) as stream:
            stream.write(text.encode("utf-8", "backslashreplace"))


def tensorboard_writer(folder: RunFolder) -> EpochWriter:
    """Write rows of the log for TensorBoard, into `tensorboard/` in the run folder.

    Raises:
        MissingDependencyError: If tensorboard is not installed.
    """
    with MissingDependencyError.named():
        from torch.utils.tensorboard import SummaryWriter

    def write(row: EpochRow) -> None:
        # One file per epoch: no open file could lose data if the run is killed.
        with SummaryWriter(str(folder.path / "tensorboard"), purge_step=row.epoch) as writer:
            for name in LOG_COLUMNS[1:]:
                writer.add_scalar(name, getattr(row, name), row.epoch)

    return write
