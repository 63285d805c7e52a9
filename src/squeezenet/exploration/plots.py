"""The charts of a study's page: accuracy against bytes, and along one metaparameter."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from ..reports.charts import Chart, Color, Line, Style, chart
from ..reports.plots import front
from ..text import format_bytes
from .findings import Finding
from .space import Value

__all__ = ["curve_chart", "front_chart"]

_WIDTH, _HEIGHT = 840, 380


def front_chart(
    findings: Sequence[Finding], unbeaten: Sequence[Finding], winner: Finding | None, *, max_bytes: int | None
) -> Chart:
    """Lay out top-1 over file bytes, with 95 % intervals.

    Args:
        findings: All, at least one.
        unbeaten: Those on the front of all that a study compares.
        winner: The most accurate within the limits.
        max_bytes: The limit of a file, drawn as a line.
    """
    best = sorted(front(findings, [_kilobytes, lambda finding: -finding.measured.top1]), key=_kilobytes)
    lines = [
        Line(name="", x=[_kilobytes(f) for f in best], y=[f.measured.top1 for f in best], style="thin"),
        _dots("beaten", [f for f in findings if f not in unbeaten and f is not winner], color="faint"),
        _dots("not beaten in all four", [f for f in unbeaten if f is not winner], color="one"),
    ]
    if winner is not None:
        lines.append(_dots(f"winner: trial {winner.number}", [winner], color="two", style="star"))
    limit = None if max_bytes is None else max_bytes / 1000
    return chart(
        "Top-1, %", [line for line in lines if line.x], x_label="file in int8, kB (1000 bytes)", is_x_log=True,
        width=_WIDTH, height=_HEIGHT, mark=limit,
        mark_text="" if limit is None else f"at most {limit:g} kB",
    )  # fmt: skip


def _kilobytes(finding: Finding) -> float:
    return finding.measured.file_bytes / 1000


def _dots(name: str, findings: Sequence[Finding], *, color: Color, style: Style = "dots") -> Line:
    return Line(
        name=name, x=[_kilobytes(f) for f in findings], y=[f.measured.top1 for f in findings], color=color, style=style,
        ranges=[_interval(f) for f in findings],
        texts=[f"trial {f.number}: {f.measured.top1:.2f} % in {f.measured.file_bytes:,} bytes" for f in findings],
    )  # fmt: skip


def _interval(finding: Finding) -> tuple[float, float]:
    low, high = finding.measured.top1_interval
    # At 0 and 100 % a bound can lie past the measurement by a rounding.
    return min(finding.measured.top1, low), max(finding.measured.top1, high)


def curve_chart(name: str, groups: Mapping[Value, Sequence[Finding]], label: str) -> Chart:
    """Lay out top-1 along one metaparameter, with file sizes below its values.

    Error bars are the standard deviation over seeds where there are several, else the 95 % interval of one measurement.

    Args:
        name: Of the metaparameter.
        groups: Its values in order, each with the findings of all seeds.
        label: What the metaparameter is, below the axis; by default its name.
    """
    is_numeric = not any(isinstance(value, (str, bool)) for value in groups)
    x = [float(value) if is_numeric else float(index) for index, value in enumerate(groups)]
    seeds = list(groups.values())
    float_top1, top1 = (
        [statistics.fmean(getattr(f.measured, attribute) for f in group) for group in seeds]
        for attribute in ("float_top1", "top1")
    )
    ticks = {
        at: (f"{value:g}" if is_numeric else str(value), format_bytes(group[0].measured.file_bytes))
        for at, (value, group) in zip(x, groups.items(), strict=True)
    }
    style: Style = "line" if is_numeric else "dots"
    return chart(
        "Top-1, %",
        [
            Line(name="float", x=x, y=float_top1, texts=_texts(groups, float_top1), color="faint", style=style),
            Line(name="int8 file", x=x, y=top1, texts=_texts(groups, top1), style=style,
                 ranges=[_spread(group, mean) for group, mean in zip(seeds, top1, strict=True)]),
        ],
        x_label=label or name, x_ticks=ticks, width=_WIDTH, height=_HEIGHT,
    )  # fmt: skip


def _texts(groups: Mapping[Value, Sequence[Finding]], means: Sequence[float]) -> list[str]:
    return [f"{value}: {mean:.2f} %" for value, mean in zip(groups, means, strict=True)]


def _spread(group: Sequence[Finding], mean: float) -> tuple[float, float]:
    if len(group) == 1:
        return _interval(group[0])
    deviation = statistics.stdev(f.measured.top1 for f in group)
    return mean - deviation, mean + deviation
