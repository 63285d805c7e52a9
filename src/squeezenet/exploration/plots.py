"""The charts of a study's page: accuracy against bytes, and along one metaparameter."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..reports.charts import Chart, Color, Line, Point, Style, Tick, chart
from ..reports.plots import front
from ..text import format_bytes
from .findings import Finding
from .space import Value

__all__ = ["curve_chart", "front_chart"]

_WIDTH, _HEIGHT = 840, 380


def front_chart(
    findings: Sequence[Finding], unbeaten: Sequence[Finding], winner: Finding | None, *, max_bytes: int | None
) -> Chart:
    """Lay out top-1 over file bytes, with 95 % intervals; `unbeaten` are those on the front of all objectives."""
    best = sorted(front(findings, [_kilobytes, lambda finding: -finding.measured.top1]), key=_kilobytes)
    lines = [
        _line("", best, style="thin"),
        _line("other networks", [f for f in findings if f not in unbeaten and f is not winner], color="faint"),
        _line("Pareto front", [f for f in unbeaten if f is not winner]),
    ]
    if winner is not None:
        lines.append(_line(f"winner: trial {winner.number}", [winner], color="two", style="star"))
    limit = None if max_bytes is None else max_bytes / 1000
    return chart(
        "Top-1, %", [line for line in lines if line.points], x_label="file in int8, kB (1000 bytes)", is_x_log=True,
        mark=limit, mark_text="" if limit is None else f"at most {limit:g} kB", width=_WIDTH, height=_HEIGHT,
    )  # fmt: skip


def _kilobytes(finding: Finding) -> float:
    return finding.measured.file_bytes / 1000


def _line(name: str, findings: Sequence[Finding], *, color: Color = "one", style: Style = "dots") -> Line:
    points = [
        Point(_kilobytes(f), m.top1, f"trial {f.number}: {m.top1:.2f} % in {m.file_bytes:,} bytes", m.top1_interval)
        for f, m in ((f, f.measured) for f in findings)
    ]
    return Line(name=name, points=points, color=color, style=style)


def curve_chart(name: str, groups: Mapping[Value, Sequence[Finding]], label: str) -> Chart:
    """Lay out top-1 along one metaparameter, whose values each have the findings of all seeds, above file sizes.

    Error bars are the standard deviation over seeds where there are several, else the 95 % interval of one measurement.
    """
    is_numeric = not any(isinstance(value, (str, bool)) for value in groups)
    ticks, float_points, points = [], [], []
    for index, (value, group) in enumerate(groups.items()):
        x = float(value if is_numeric else index)
        ticks.append(Tick(x, f"{value:g}" if is_numeric else str(value), format_bytes(group[0].measured.file_bytes)))
        float_top1, top1 = (statistics.fmean(getattr(f.measured, key) for f in group) for key in ("float_top1", "top1"))
        float_points.append(Point(x, float_top1, f"{value}: {float_top1:.2f} %"))
        deviation = statistics.stdev(f.measured.top1 for f in group) if len(group) > 1 else 0
        spread = (top1 - deviation, top1 + deviation) if len(group) > 1 else group[0].measured.top1_interval
        points.append(Point(x, top1, f"{value}: {top1:.2f} %", spread))
    style: Style = "line" if is_numeric else "dots"
    float_line = Line(name="float", points=float_points, color="faint", style=style)
    lines = [float_line, Line(name="int8 file", points=points, style=style)]
    return chart("Top-1, %", lines, x_label=label or name, x_ticks=ticks, width=_WIDTH, height=_HEIGHT)
