"""Showing the progress of a long job: a bar on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Protocol, TextIO

from .text import format_duration, printable

__all__ = ["PlainReporter", "Reporter", "RichReporter", "SilentReporter", "Task", "reporter_for", "reporter_of"]


class Task:
    """A job of known length under way."""

    def __init__(self, show: Callable[[int, str], None], total: int, unit: str, done: int) -> None:
        """Start a job of `total` units, of which `done` were finished earlier; `show` is called with units and a
        text.
        """
        self._show, self._total, self._unit, self._first = show, total, unit, done
        self._started = time.monotonic()

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` of all units are finished, with `note` beside it."""
        per_s = (done - self._first) / max(time.monotonic() - self._started, 1e-9)
        is_known = per_s and done < self._total
        left = f", {format_duration((self._total - done) / per_s)} left" if is_known else ""
        self._show(done, f"{per_s:.0f} {self._unit}/s{left}" + (f", {note}" if note else ""))


class Reporter(Protocol):
    """A place for messages and progress."""

    def say(self, text: str) -> None:
        """Show a line; control characters, which may come from names of files or classes, are shown as escapes."""

    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> contextlib.AbstractContextManager[Task]:
        """Show a job of `total` units, of which `done` were finished earlier."""


def reporter_for(stream: TextIO | None = None) -> Reporter:
    """Choose bars if the stream is a terminal, lines if not."""
    stream = stream or sys.stderr
    return RichReporter() if stream.isatty() and find_spec("rich") else PlainReporter(stream)


def reporter_of(progress: Reporter | bool) -> Reporter:
    """Return a reporter unchanged; `True` gives one on standard error, `False` a silent one."""
    if isinstance(progress, bool):
        return reporter_for() if progress else SilentReporter()
    return progress


class SilentReporter:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Drop a line."""

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Drop a job's progress."""
        yield Task(lambda done, text: None, total, unit, done)


class PlainReporter:
    """Shows lines, and one line every few seconds for a job that has run for a while."""

    def __init__(self, stream: TextIO | None = None, *, every_s: float = 10.0) -> None:
        self.stream, self.every_s = stream or sys.stderr, every_s

    def say(self, text: str) -> None:
        """Write a line."""
        print(printable(text), file=self.stream, flush=True)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Write a job's progress."""
        said = time.monotonic()

        def show(done: int, text: str) -> None:
            nonlocal said
            if time.monotonic() - said >= self.every_s:
                said = time.monotonic()
                self.say(f"{title}: {done}/{total}, {text}")

        yield Task(show, total, unit, done)


class RichReporter:
    """Shows bars on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(printable(text), markup=False, highlight=False)

    @contextlib.contextmanager
    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> Iterator[Task]:
        """Show a bar while the job runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        name, note = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[note]}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), note)
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar = progress.add_task(printable(title), total=total, completed=done, note="")
            yield Task(lambda done, text: progress.update(bar, completed=done, note=printable(text)), total, unit, done)
