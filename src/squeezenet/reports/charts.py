"""Charts of a page: lines and points with their axes, which `parts.html` draws as SVG in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Axis", "Chart", "Line", "Point", "Tick", "chart", "line_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 30
Color = Literal["one", "two", "faint"]
Style = Literal["line", "thin", "dots", "star"]


@dataclass(frozen=True)
class Point:
    """A finite value, in units of the axes."""

    x: float
    y: float
    text: str
    """Shown on hover."""
    ends: tuple[float, float] | None = None
    """Ends of the error bar."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points that belong together."""

    name: str
    """For the legend; none where it is empty."""
    points: Sequence[Point]
    value: str = ""
    """Beside the name in the legend."""
    color: Color = "one"
    style: Style = "line"
    """`line` has dots as well, `thin` has none."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    value: float
    text: str
    note: str = ""
    """A second line."""


@dataclass(frozen=True)
class Axis:
    """Maps a range of values to a range of pixels."""

    low: float
    high: float
    start: int
    """Pixel of `low`."""
    end: int
    is_log: bool = False
    n_ticks: int = 5
    """About how many there should be."""

    def __call__(self, value: float) -> float:
        """Place a value, in pixels."""
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[Tick]:
        """Round numbers within the range."""
        values = (_log_values if self.is_log else _nice_values)(self.low, self.high, self.n_ticks)
        return [Tick(value, f"{value:g}") for value in values]

    @classmethod
    def around(cls, values: Iterable[float], start: int, end: int, *, margin: float, is_log: bool = False) -> Axis:
        """Span values, with a margin on both sides as a share of their range."""
        values = list(values) or [0.0, 1.0]
        low, high = min(values), max(values)
        if is_log:
            factor = (high / low) ** margin if high > low else 2.0
            return cls(low / factor, high * factor, start, end, is_log)
        beyond = margin * (high - low) or 0.5
        return cls(low - beyond, high + beyond, start, end, n_ticks=max(5, (start - end) // 38))


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart for `parts.html`; the fields are the arguments of `chart`, with defaults filled in."""

    title: str
    lines: Sequence[Line]
    x: Axis
    y: Axis
    x_ticks: Sequence[Tick]
    x_label: str
    mark: float | None
    mark_text: str
    width: int
    height: int

    @property
    def is_mark_text_high(self) -> bool:
        """Whether the first line is low beside the mark, so that the text stands above it."""
        distances = [(abs(self.x(point.x) - self.x(self.mark or 0)), self.y(point.y)) for point in self.lines[0].points]
        return bool(distances) and min(distances)[1] > (self.y.start + self.y.end) / 2


def line_chart(
    title: str, x: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], *, x_label: str = "epoch",
    is_x_log: bool = False, from_zero: bool = False, mark: float | None = None, mark_text: str = "",
) -> Chart:  # fmt: skip
    """Lay out one or two lines, of names and values, over a common x; the legend shows their last values.

    `x` increases, and is positive for logarithmic axes. Values that are not finite leave a gap. `x_label` is for the
    values on hover. The other arguments are those of `chart`.
    """
    colors: tuple[Color, ...] = ("one", "two")
    made: list[Line] = []
    for color, (name, values) in zip(colors, lines, strict=False):
        finite = [(at, value) for at, value in zip(x, values, strict=True) if math.isfinite(value)]
        points = [Point(at, value, f"{x_label} {at:g}: {value:.4g}") for at, value in finite]
        made.append(Line(name=name, points=points, value=f"{finite[-1][1]:.4g}" if finite else "", color=color))
    return chart(title, made, x_range=(x[0], x[-1]), is_x_log=is_x_log, from_zero=from_zero, mark=mark,
                 mark_text=mark_text)  # fmt: skip


def chart(
    title: str, lines: Sequence[Line], *, x_label: str = "", x_range: tuple[float, float] | None = None,
    x_ticks: Sequence[Tick] = (), is_x_log: bool = False, from_zero: bool = False, mark: float | None = None,
    mark_text: str = "", width: int = 520, height: int = 240,
) -> Chart:  # fmt: skip
    """Choose the axes for lines and points.

    Args:
        title: Of the chart.
        lines: What to draw, the first one lowest.
        x_label: Below the axis.
        x_range: Ends of the x axis; by default what the points and the mark need, and a margin.
        x_ticks: By default round numbers.
        is_x_log: Space x by its logarithm.
        from_zero: Begin the y axis at 0.
        mark: An x to mark with a vertical line.
        mark_text: What stands at it.
        width: Pixels.
        height: Pixels.
    """
    right, bottom = width - _RIGHT, height - _BOTTOM - 20 * bool(x_label) - 14 * bool(x_ticks)
    points = [point for line in lines for point in line.points]
    values = [value for point in points for value in (point.y, *(point.ends or ()))]
    vertical = Axis.around([*values, 0.0] if from_zero else values, bottom, _TOP, margin=0.05)
    if from_zero:
        vertical = Axis(0.0, vertical.high, bottom, _TOP)
    marked = [] if mark is None else [mark]
    horizontal = (
        Axis(*x_range, _LEFT, right, is_x_log)
        if x_range
        else Axis.around([*(point.x for point in points), *marked], _LEFT, right, margin=0.06, is_log=is_x_log)
    )
    return Chart(
        title=title, lines=lines, x=horizontal, y=vertical, x_ticks=x_ticks or horizontal.ticks, x_label=x_label,
        mark=mark, mark_text=mark_text, width=width, height=height,
    )  # fmt: skip


def _nice_values(low: float, high: float, about: int) -> list[float]:
    """Round numbers within a range, steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + i) * step, 12) for i in range(count)]


def _log_values(low: float, high: float, about: int) -> list[float]:
    """Powers of ten within a range; where they are few, 2 and 5 times them as well, or round numbers."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        values = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(values) > 2:
            return values
    return _nice_values(low, high, about)
