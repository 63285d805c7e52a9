"""The pictures of a study, as SVG text: the front, curves along one metaparameter, importance.

Use this when you have findings and want to see them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .findings import Finding
from .space import Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_curve", "plot_front", "plot_importance"]

BLUE, ORANGE, GREY, INK = "#2563eb", "#e8590c", "#98a2b3", "#14181f"
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "squeezenet", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": GREY, "axes.labelcolor": "#5b6472",
    "xtick.color": "#5b6472", "ytick.color": "#5b6472", "text.color": INK,
}  # fmt: skip


@contextmanager
def _drawing(width: float, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Give axes to draw on, and a list that holds the SVG text once the block is left."""
    import matplotlib  # here, since it takes longer to import than everything else together
    from matplotlib.figure import Figure

    result: list[str] = []
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color="#eef0f3")
        axes.set_axisbelow(True)
        yield axes, result
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    # As part of a page: no prologue, and as wide as the page lets it be.
    text = text[text.index("<svg") :]
    result.append(re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ', r"<svg \1", text, count=1))


def plot_front(
    findings: Sequence[Finding], front: Sequence[Finding], winner: Finding | None, *, max_bytes: int | None
) -> str:
    """Draw top-1 over file bytes; the line joins what no other beats in these two."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    with _drawing(7.6, 4.4) as (axes, result):
        _scatter(axes, [f for f in findings if f not in front], "beaten", GREY, "o", 26)
        best: list[Finding] = []
        for finding in sorted(findings, key=lambda f: (f.measured.file_bytes, -f.measured.top1)):
            if not best or finding.measured.top1 > best[-1].measured.top1:
                best.append(finding)
        kilobytes = [f.measured.file_bytes / 1000 for f in best]
        axes.plot(kilobytes, [f.measured.top1 for f in best], color=BLUE, alpha=0.35, linewidth=1.5, zorder=1)
        _scatter(axes, [f for f in front if f is not winner], "not beaten in all four", BLUE, "o", 40)
        if winner is not None:
            _scatter(axes, [winner], f"winner: trial {winner.number}", ORANGE, "*", 190)
        if max_bytes is not None:
            axes.axvline(max_bytes / 1000, color=ORANGE, linestyle=":", linewidth=1.2)
        axes.set_xscale("log")
        for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.set_xlabel("file in int8, kB (1000 bytes)")
        axes.set_ylabel("top-1, %")
        axes.legend(frameon=False, loc="lower right")
    return result[0]


def _scatter(axes: Axes, findings: Sequence[Finding], label: str, color: str, marker: str, size: float) -> None:
    if not findings:
        return
    x = [f.measured.file_bytes / 1000 for f in findings]
    y = [f.measured.top1 for f in findings]
    errors = [_interval_widths(f) for f in findings]
    axes.errorbar(x, y, yerr=[[e[0] for e in errors], [e[1] for e in errors]], fmt="none", ecolor=color, alpha=0.35,
                  linewidth=1)  # fmt: skip
    axes.scatter(x, y, s=size, c=color, marker=marker, label=label, zorder=3, edgecolors="white", linewidths=0.6)


def _interval_widths(finding: Finding) -> tuple[float, float]:
    low, high = finding.measured.top1_interval
    # At 0 and 100 % a bound can lie past the measurement by a rounding.
    return max(0.0, finding.measured.top1 - low), max(0.0, high - finding.measured.top1)


def plot_curve(name: str, groups: Mapping[Value, Sequence[Finding]], label: str) -> str:
    """Draw top-1 along one metaparameter, with file sizes beside the points.

    Error bars are the standard deviation over seeds where there are several, else the 95 % interval of one measurement.
    """
    import statistics

    with _drawing(7.6, 4.0) as (axes, result):
        is_numeric = not any(isinstance(value, (str, bool)) for value in groups)
        positions = [float(value) for value in groups] if is_numeric else [float(i) for i in range(len(groups))]
        for attribute, color, text, offset in (("float_top1", GREY, "float", 0.0), ("top1", BLUE, "int8 file", 0.0)):
            values = [[getattr(f.measured, attribute) for f in group] for group in groups.values()]
            means = [statistics.fmean(v) for v in values]
            errors: Any = None
            if attribute == "top1":
                spread = [
                    (statistics.stdev(v),) * 2 if len(v) > 1 else _interval_widths(group[0])
                    for v, group in zip(values, groups.values(), strict=True)
                ]
                errors = [[e[0] for e in spread], [e[1] for e in spread]]
            axes.errorbar(positions, means, yerr=errors, color=color, marker="o", markersize=5, capsize=3, label=text,
                          linewidth=1.6, linestyle="-" if is_numeric else "none", zorder=3 + offset)  # fmt: skip
        for x, group in zip(positions, groups.values(), strict=True):
            top = max(f.measured.top1 for f in group)
            size = f"{group[0].measured.file_bytes / 1000:,.0f} kB"
            axes.annotate(size, (x, top), xytext=(0, 12), textcoords="offset points", ha="center", color="#5b6472")
        if is_numeric:
            axes.set_xticks(positions, [f"{position:g}" for position in positions])
        else:
            axes.set_xticks(positions, [str(value) for value in groups])
        axes.margins(x=0.08, y=0.25)
        axes.set_xlabel(label or name)
        axes.set_ylabel("top-1, %")
        axes.legend(frameon=False, loc="lower right")
    return result[0]


def plot_importance(importance: Mapping[str, float]) -> str:
    """Draw bars, the most important metaparameter on top."""
    with _drawing(7.6, 0.6 + 0.36 * len(importance)) as (axes, result):
        names = list(importance)[::-1]
        values = [100 * importance[name] for name in names]
        bars = axes.barh(names, values, color=BLUE, height=0.62)
        axes.bar_label(bars, [f"{value:.0f} %" for value in values], padding=4, color="#5b6472")
        axes.set_xlim(0, max([*values, 1]) * 1.15)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the variance of top-1, %")
    return result[0]
