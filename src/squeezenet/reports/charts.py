"""Geometry of the report's charts: numbers become points, bars and ticks in pixels; the template draws them as SVG.

Nothing here knows colours or fonts: those are the page's, so that charts follow its light and dark looks.

Use this when you add a chart to the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Axis", "LineChart", "Series", "Tick", "line_chart"]

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 30


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    """Pixels."""
    text: str


@dataclass(frozen=True)
class Series:
    """A line and its legend."""

    name: str
    points: str
    """As `points` of an SVG polyline."""
    dots: tuple[tuple[float, float, str], ...]
    """Place and text of each value."""
    last: str
    """The last value, for the legend."""


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Lines over epochs."""

    title: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    mark: float | None = None
    """Where a vertical line stands, pixels."""
    mark_text: str = ""
    is_falling: bool = False
    """Whether the first line ends lower than it begins, which leaves the upper right free for text."""
    x_label: str = "epoch"
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Axis:
    """Maps a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    is_log: bool = False
    ticks: tuple[Tick, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Choose the ticks."""
        values = _decades(self.low, self.high) if self.is_log else _nice_values(self.low, self.high)
        object.__setattr__(self, "ticks", tuple(Tick(self(value), f"{value:g}") for value in values))

    def __call__(self, value: float) -> float:
        """Place a value, in pixels."""
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def line_chart(
    title: str,
    x: Sequence[float],
    lines: Sequence[tuple[str, Sequence[float]]],
    *,
    mark: float | None = None,
    mark_text: str = "",
    x_label: str = "epoch",
    is_x_log: bool = False,
    from_zero: bool = False,
) -> LineChart:
    """Lay out lines over a common x; values that are no numbers leave a gap.

    Args:
        title: Of the chart.
        x: Increasing; for logarithmic axes positive.
        lines: Name and values of each line.
        mark: An x to mark with a vertical line.
        mark_text: What stands at it.
        x_label: What x is.
        is_x_log: Space x by its logarithm.
        from_zero: Begin the y axis at 0.
    """
    values = [value for _, row in lines for value in row if math.isfinite(value)] or [0.0, 1.0]
    low, high = (0.0 if from_zero else min(values)), max(values)
    margin = 0.05 * (high - low) or 0.5
    horizontal = Axis(x[0], x[-1], LEFT, WIDTH - RIGHT, is_x_log)
    vertical = Axis(low if from_zero else low - margin, high + margin, HEIGHT - BOTTOM, TOP)
    series = []
    for name, row in lines:
        dots = tuple(
            (horizontal(at), vertical(value), f"{x_label} {at:g}: {value:.4g}")
            for at, value in zip(x, row, strict=True)
            if math.isfinite(value)
        )
        finite = [value for value in row if math.isfinite(value)]
        last = f"{finite[-1]:.4g}" if finite else ""
        series.append(Series(name, " ".join(f"{px},{py}" for px, py, _ in dots), dots, last))
    return LineChart(
        title=title, series=tuple(series), x_ticks=horizontal.ticks, y_ticks=vertical.ticks,
        mark=None if mark is None else horizontal(mark), mark_text=mark_text, x_label=x_label,
        is_falling=bool(lines) and lines[0][1][-1] < lines[0][1][0],
    )  # fmt: skip


def _nice_values(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range, steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
