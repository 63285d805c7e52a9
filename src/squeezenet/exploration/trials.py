"""Where trials are carried out: one after another in this process, or at the same time on a cluster.

The study itself stays in one process, which asks Optuna for proposals and tells it what came of them. Ray Tune could
propose with Optuna as well, but keeps states of its own for what is under way: a study that is cut off would have two
memories that may differ, and neither proposals refused by their counts nor revived trials would fit in.

Use this when you carry out what a study proposes.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..data import ImageSet
from ..errors import QuantizationError, StudyError, TrainingError
from ..progress import Reporter
from ..spec import ArchSpec
from ..training import Recipe
from ..training.setup import TrainingData
from .measure import Interrupted, Measured, TooFarBehind, measure_spec
from .progress import TasksOnly

if TYPE_CHECKING:
    from ..cluster import ClusterTasks

__all__ = ["Job", "Outcome", "Trials", "TrialsHere", "Watch", "open_trials"]

# From half of its epochs on, a network of a search must come this close, in points of top-1 after the same epoch, to
# the best that cost no more in anything.
_HOPELESS_FROM, _HOPELESS_POINTS = 0.5, 10.0

Outcome = Measured | TooFarBehind | Interrupted | TrainingError | QuantizationError | StudyError


@dataclass(frozen=True)
class Watch:
    """Ends the training of a network that an earlier one, no larger in anything, is far ahead of."""

    rivals: tuple[tuple[float, ...], ...]
    """Top-1 of those networks after each epoch, percent."""
    epochs: int

    def __call__(self, top1: Sequence[float]) -> None:
        """Look at the top-1 after each epoch so far, percent.

        Raises:
            TooFarBehind: If it is far behind.
        """
        done = len(top1)
        if not done or done < _HOPELESS_FROM * self.epochs:
            return
        best = max((rival[done - 1] for rival in self.rivals if len(rival) >= done), default=0.0)
        if top1[-1] < best - _HOPELESS_POINTS:
            raise TooFarBehind(
                f"{top1[-1]:.1f} % after epoch {done}, where a network that costs no more had {best:.1f} %"
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """One network to train and measure."""

    title: str
    """For progress."""
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
        """Begin a job; the number comes back with what came of it."""

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
        reporter = TasksOnly(self._reporter, job.title)
        return number, _carry_out(job, self._prepared.train, self._prepared.val, reporter)


@contextlib.contextmanager
def open_trials(address: str | None, prepared: TrainingData, reporter: Reporter) -> Iterator[Trials]:
    """Get ready to carry out jobs.

    Args:
        address: Of a Ray cluster, or `local`; None for this process alone.
        prepared: What to train on. Machines of a cluster must reach it, and the study, under the same paths.
        reporter: Shows progress.

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
        self._data = tasks.share(prepared.train), tasks.share(prepared.val)

    def submit(self, number: int, job: Job) -> None:
        self._tasks.submit(number, job, *self._data, os.getcwd())

    def next_outcome(self) -> tuple[int, Outcome]:
        # What is under way then ends with the cluster, and continues from its checkpoints.
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
    try:
        return measure_spec(
            job.spec, job.recipe, train, val, job.folder, epochs=job.epochs, keep_checkpoint=job.keep_checkpoint,
            watch=job.watch, reporter=reporter,
        )  # fmt: skip
    except (TooFarBehind, Interrupted, TrainingError, QuantizationError) as outcome:
        return outcome
