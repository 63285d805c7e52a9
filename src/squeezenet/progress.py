"""Telling a person how far a long job is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Protocol, TextIO

from .text import format_duration

__all__ = ["PlainReporter", "Reporter", "RichReporter", "SilentReporter", "Task", "reporter_for", "reporter_of"]

_LINE_EVERY_S = 10.0


class Task(Protocol):
    """A job of known length under way."""

    def update(self, done: int, note: str = "") -> None:
        """Say that `done` of all units are finished; `note` is shown beside."""


class Reporter(Protocol):
    """A place for messages and progress."""

    def say(self, text: str) -> None:
        """Show a line."""

    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> contextlib.AbstractContextManager[Task]:
        """Show a job of `total` units, of which `done` were finished earlier."""


def reporter_for(stream: TextIO | None = None) -> Reporter:
    """Choose bars if the stream is a terminal, lines if not."""
    stream = stream or sys.stderr
    return RichReporter() if stream.isatty() and find_spec("rich") else PlainReporter(stream)


class _Silence:
    def update(self, done: int, note: str = "") -> None:
        pass


class SilentReporter:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Drop a line."""

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Drop a job's progress."""
        yield _Silence()


def reporter_of(progress: Reporter | bool) -> Reporter:
    """Take a reporter as it is, `True` for one on standard error, `False` for silence."""
    if isinstance(progress, bool):
        return reporter_for() if progress else SilentReporter()
    return progress


class _Pace:
    """Speed and time left of a job."""

    def __init__(self, total: int, unit: str, done: int) -> None:
        self.total, self.unit, self.first = total, unit, done
        self.started = time.monotonic()

    def describe(self, done: int) -> str:
        per_s = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        left = f", {format_duration((self.total - done) / per_s)} left" if per_s and done < self.total else ""
        return f"{per_s:.0f} {self.unit}/s{left}"


class PlainReporter:
    """Shows lines, and for a job one line every few seconds."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = _LINE_EVERY_S) -> None:
        self.stream = stream or sys.stderr
        self.every_s = every_s

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self.stream, flush=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Write a job's progress, beginning when it has run for a while."""
        yield _PlainTask(self, title, _Pace(total, unit, done))


class _PlainTask:
    def __init__(self, reporter: PlainReporter, title: str, pace: _Pace) -> None:
        self.reporter, self.title, self.pace = reporter, title, pace
        self.said = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        if time.monotonic() - self.said >= self.reporter.every_s:
            self.said = time.monotonic()
            extra = f", {note}" if note else ""
            self.reporter.say(f"{self.title}: {done}/{self.pace.total}, {self.pace.describe(done)}{extra}")


class RichReporter:
    """Shows bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, highlight=False)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Show a bar while the job runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield _RichTask(progress, progress.add_task(title, total=total, completed=done, note=""), total, unit, done)


class _RichTask:
    def __init__(self, progress: object, task_id: int, total: int, unit: str, done: int) -> None:
        from rich.progress import Progress, TaskID

        assert isinstance(progress, Progress)
        self.progress, self.task_id, self.pace = progress, TaskID(task_id), _Pace(total, unit, done)

    def update(self, done: int, note: str = "") -> None:
        text = self.pace.describe(done) + (f", {note}" if note else "")
        self.progress.update(self.task_id, completed=done, note=text)
