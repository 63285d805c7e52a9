"""Progress output of a study: a line for each finished trial, and bars for the running one."""

from __future__ import annotations

import contextlib

from ..progress import Reporter, Task
from ..text import format_duration
from .findings import Finding

__all__ = ["Table", "TasksOnly"]


class TasksOnly:
    """Shows the bars of a training, and none of its lines."""

    def __init__(self, reporter: Reporter, title: str) -> None:
        self._reporter, self._title = reporter, title

    def say(self, text: str) -> None:
        """Drop a line."""

    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> contextlib.AbstractContextManager[Task]:
        """Show a job."""
        return self._reporter.task(f"{self._title}, {title}", total, unit, done)


class Table:
    """A line for each finished trial, under one header."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self._reporter, self._total, self._shown = reporter, total, 0

    def show(self, finding: Finding, is_feasible: bool, left_s: float | None = None) -> None:
        """Add a line; `left_s` is what the rest of the study may take, in seconds."""
        if not self._shown:
            self._reporter.say("  trial    top-1    float      bytes      MACs     memory     time  what was varied")
        self._shown += 1
        m = finding.measured
        left = "" if not left_s else f"; about {format_duration(left_s)} left"
        what = ", ".join(f"{key} {value}" for key, value in finding.point.items())
        limits = "" if is_feasible else " (over the limits)"
        self._reporter.say(
            f"{self._shown:>3}/{self._total:<3}  {m.top1:6.2f}%  {m.float_top1:6.2f}%  {m.file_bytes:>9,}"
            f"  {m.macs / 1e6:7.1f}M  {m.ram_bytes:>9,}  {format_duration(m.seconds):>7}"
            f"  {what}{limits}{left}"
        )
