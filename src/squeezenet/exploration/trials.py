"""Running trials: one after another in this process, or several at a time on a cluster.

Ray Tune's Optuna search is not used: its own record of running trials could disagree with the study after a crash.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..data import ImageSet
from ..errors import QuantizationError, StudyError, TrainingError
from ..progress import Reporter
from ..spec import ArchSpec
from ..training import EpochRow, Recipe
from ..training.setup import TrainingData
from .measure import Interrupted, Measured, TooFarBehind, measure_spec
from .progress import TasksOnly

if TYPE_CHECKING:
    from ..cluster import ClusterTasks

__all__ = ["Job", "Outcome", "Trials", "TrialsHere", "Watch", "open_trials"]

# From half of its epochs on, the top-1 of a network must not be further than this below that of an earlier network at
# the same epoch. Only networks that are not larger in any respect are compared.
_COMPARED_FROM, _MOST_BEHIND = 0.5, 10.0

Outcome = Measured | TooFarBehind | Interrupted | TrainingError | QuantizationError | StudyError


@dataclass(frozen=True)
class Watch:
    """Ends a training that is far behind an earlier network that is no larger in any respect."""

    rivals: tuple[tuple[float, ...], ...]
    """Top-1 of the earlier networks after each epoch, percent."""
    epochs: int

    def __call__(self, row: EpochRow) -> None:
        """Compare after an epoch, from half of the epochs on; the last epoch ends the training anyway.

        Raises:
            TooFarBehind: If top-1 is more than 10 points below that of a rival after the same epoch.
        """
        if not _COMPARED_FROM * self.epochs <= row.epoch < self.epochs:
            return
        best = max((rival[row.epoch - 1] for rival in self.rivals if len(rival) >= row.epoch), default=0.0)
        if row.top1 < best - _MOST_BEHIND:
            raise TooFarBehind(
                f"{row.top1:.1f} % after epoch {row.epoch}, where a network that costs no more had {best:.1f} %"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network to train and measure."""

    title: str
    """Title of the progress bar."""
    spec: ArchSpec
    recipe: Recipe
    folder: Path
    epochs: int | None = None
    keep_checkpoint: bool = False
    watch: Watch | None = None


class Trials(Protocol):
    """Jobs under way."""

    capacity: int
    """Jobs that can be under way at the same time."""

    def submit(self, number: int, job: Job) -> None:
        """Begin a job; the number is returned with its outcome."""

    def next_outcome(self) -> tuple[int, Outcome]:
        """Wait for any job to end."""


class TrialsHere:
    """One job at a time, in this process, with bars."""

    capacity = 1

    def __init__(self, prepared: TrainingData, reporter: Reporter) -> None:
        self._prepared, self._reporter = prepared, reporter
        self._waiting: list[tuple[int, Job]] = []

    def submit(self, number: int, job: Job) -> None:
        """Keep a job until its outcome is asked for."""
        self._waiting.append((number, job))

    def next_outcome(self) -> tuple[int, Outcome]:
        """Carry out a job."""
        number, job = self._waiting.pop(0)
        return number, _carry_out(job, self._prepared.images, self._prepared.val, self._reporter)


@contextlib.contextmanager
def open_trials(address: str | None, prepared: TrainingData, reporter: Reporter) -> Iterator[Trials]:
    """Get ready to carry out jobs on the Ray cluster at `address`, or in this process alone where it is None.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ClusterError: If the cluster cannot be reached.
    """
    if address is None:
        yield TrialsHere(prepared, reporter)
        return
    from ..cluster import ClusterTasks
    from ..process import StopSignals

    with ClusterTasks.open(address, _carry_out_away) as tasks, StopSignals() as signals:
        reporter.say(f"{tasks.capacity} trials at a time on the cluster")
        yield _TrialsOnCluster(tasks, prepared, lambda: signals.is_set)


class _TrialsOnCluster:
    def __init__(self, tasks: ClusterTasks, prepared: TrainingData, is_stopped: Callable[[], bool]) -> None:
        self.capacity = tasks.capacity
        self._tasks, self._is_stopped = tasks, is_stopped
        self._data = tasks.share(prepared.images), tasks.share(prepared.val)

    def submit(self, number: int, job: Job) -> None:
        self._tasks.submit(number, job, *self._data, os.getcwd())

    def next_outcome(self) -> tuple[int, Outcome]:
        # After a stop, running jobs end with the cluster; they continue later from their checkpoints.
        return self._tasks.next_result(self._is_stopped) or (-1, Interrupted())


def _carry_out_away(job: Job, train: ImageSet, val: ImageSet, working_folder: str) -> Outcome:
    from ..process import keep_freed_memory

    keep_freed_memory()
    if not job.folder.parent.is_dir():
        return StudyError(
            f"{job.folder.parent}: no such folder on {platform.node()}: all machines must reach the study's folder"
        )
    with contextlib.chdir(working_folder) if os.path.isdir(working_folder) else contextlib.nullcontext():
        return _carry_out(job, train, val, None)


def _carry_out(job: Job, train: ImageSet, val: ImageSet, reporter: Reporter | None) -> Outcome:
    def on_epoch(row: EpochRow) -> None:
        if row.alarm and reporter:
            reporter.say(f"{job.title}: {row.alarm}")
        if job.watch:
            job.watch(row)

    try:
        return measure_spec(
            job.spec, job.recipe, train, val, job.folder, epochs=job.epochs, keep_checkpoint=job.keep_checkpoint,
            on_epoch=on_epoch, reporter=TasksOnly(reporter, job.title) if reporter else None,
        )  # fmt: skip
    except (TooFarBehind, Interrupted, TrainingError, QuantizationError) as outcome:
        return outcome
