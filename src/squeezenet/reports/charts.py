"""Charts of a page: values become lines, dots and ticks in pixels, which `parts.html` draws as SVG.

Colours are the page's, so that charts follow its light and dark looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Axis", "Chart", "Dot", "Line", "Series", "Tick", "chart", "line_chart"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 30
Color = Literal["one", "two", "faint"]
Style = Literal["line", "thin", "dots", "star"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of a chart, in units of its axes."""

    name: str
    """For the legend; none where it is empty."""
    x: Sequence[float]
    y: Sequence[float]
    """Points whose y is not finite are left out."""
    ranges: Sequence[tuple[float, float]] = ()
    """Lower and upper end of each point's error bar."""
    texts: Sequence[str] = ()
    """What each point shows on hover; by default its x and y."""
    value: str = ""
    """Beside the name in the legend."""
    color: Color = "one"
    style: Style = "line"
    """`line` has dots as well, `thin` has none."""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    """Pixels."""
    text: str
    note: str = ""
    """A second line."""


@dataclass(frozen=True)
class Dot:
    """A value in pixels, with what it shows on hover."""

    x: float
    y: float
    text: str
    ends: tuple[float, float] | None
    """Of its error bar."""


@dataclass(frozen=True)
class Series:
    """A line of a chart, laid out."""

    line: Line
    points: str
    """As `points` of an SVG polyline."""
    dots: tuple[Dot, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What `parts.html` draws; sizes in pixels."""

    title: str
    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    """Below the ticks; none where it is empty."""
    mark: float | None
    """Where a vertical line stands."""
    mark_text: str
    is_mark_text_high: bool
    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Axis:
    """Maps a range of values to a range of pixels."""

    low: float
    high: float
    start: float
    """Pixel of `low`."""
    end: float
    is_log: bool = False
    n_ticks: int = 5
    """About how many there should be."""
    ticks: tuple[Tick, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Choose the ticks."""
        values = (_log_values if self.is_log else _nice_values)(self.low, self.high, self.n_ticks)
        object.__setattr__(self, "ticks", tuple(Tick(self(value), f"{value:g}") for value in values))

    def __call__(self, value: float) -> float:
        """Place a value, in pixels."""
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        share = (at - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    @classmethod
    def around(
        cls, values: Sequence[float], start: float, end: float, *, margin: float, is_log: bool = False, n_ticks: int = 5
    ) -> Axis:
        """Span values, with a margin on both sides as a share of their range."""
        low, high = min(values), max(values)
        if is_log:
            factor = (high / low) ** margin if high > low else 2.0
            return cls(low / factor, high * factor, start, end, is_log, n_ticks)
        beyond = margin * (high - low) or 0.5
        return cls(low - beyond, high + beyond, start, end, n_ticks=n_ticks)


def line_chart(
    title: str, x: Sequence[float], lines: Sequence[tuple[str, Sequence[float]]], *, x_label: str = "epoch",
    is_x_log: bool = False, from_zero: bool = False, mark: float | None = None, mark_text: str = "",
) -> Chart:  # fmt: skip
    """Lay out one or two lines over a common x; the legend shows their last values.

    Args:
        title: Of the chart.
        x: Increasing; for logarithmic axes positive.
        lines: Name and values of each line; values that are not finite leave a gap.
        x_label: What x is, for the values on hover.
        is_x_log: Space x by its logarithm.
        from_zero: Begin the y axis at 0.
        mark: An x to mark with a vertical line.
        mark_text: What stands at it.
    """
    colors: tuple[Color, ...] = ("one", "two")
    made = []
    for color, (name, values) in zip(colors, lines, strict=False):
        finite = [value for value in values if math.isfinite(value)]
        texts = [f"{x_label} {at:g}: {value:.4g}" for at, value in zip(x, values, strict=True)]
        last = f"{finite[-1]:.4g}" if finite else ""
        made.append(Line(name=name, x=x, y=values, texts=texts, value=last, color=color))
    return chart(title, made, x_range=(x[0], x[-1]), is_x_log=is_x_log, from_zero=from_zero, mark=mark,
                 mark_text=mark_text)  # fmt: skip


def chart(
    title: str, lines: Sequence[Line], *, x_label: str = "", x_range: tuple[float, float] | None = None,
    x_ticks: Mapping[float, tuple[str, str]] | None = None, is_x_log: bool = False, from_zero: bool = False,
    mark: float | None = None, mark_text: str = "", width: int = 520, height: int = 240,
) -> Chart:  # fmt: skip
    """Lay out lines and points.

    Args:
        title: Of the chart.
        lines: What to draw, the first one lowest.
        x_label: Below the axis.
        x_range: Ends of the x axis; by default what the points need, and a margin.
        x_ticks: Text and note of each tick; by default round numbers.
        is_x_log: Space x by its logarithm.
        from_zero: Begin the y axis at 0.
        mark: An x to mark with a vertical line.
        mark_text: What stands at it.
        width: Pixels.
        height: Pixels.
    """
    below = _BOTTOM + 20 * bool(x_label) + 14 * bool(x_ticks)
    left, right, top, bottom = _LEFT, width - _RIGHT, _TOP, height - below
    y = [value for line in lines for value in (*line.y, *(end for ends in line.ranges for end in ends))]
    y = [value for value in y if math.isfinite(value)] or [0.0, 1.0]
    if from_zero:
        y.append(0.0)
    vertical = Axis.around(y, bottom, top, margin=0.05, n_ticks=(bottom - top) // 38)
    if from_zero:
        vertical = Axis(0.0, vertical.high, bottom, top)
    if x_range:
        horizontal = Axis(*x_range, left, right, is_x_log)
    else:
        x = [*(value for line in lines for value in line.x), *([] if mark is None else [mark])]
        horizontal = Axis.around(x, left, right, margin=0.06, is_log=is_x_log)
    ticks = horizontal.ticks
    if x_ticks:
        ticks = tuple(Tick(horizontal(at), text, note) for at, (text, note) in x_ticks.items())
    series = tuple(_laid_out(line, horizontal, vertical) for line in lines)
    at = None if mark is None else horizontal(mark)
    # The mark's text stands where the first line is not.
    beside = [] if at is None else sorted((abs(dot.x - at), dot.y) for dot in series[0].dots)[:1]
    return Chart(
        title=title, series=series, x_ticks=ticks, y_ticks=vertical.ticks, x_label=x_label, mark=at,
        mark_text=mark_text, is_mark_text_high=bool(beside) and beside[0][1] > (top + bottom) / 2, width=width,
        height=height, left=left, right=right, top=top, bottom=bottom,
    )  # fmt: skip


def _laid_out(line: Line, horizontal: Axis, vertical: Axis) -> Series:
    dots = []
    for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if math.isfinite(y):
            low, high = line.ranges[index] if line.ranges else (y, y)
            ends = (vertical(low), vertical(high)) if line.ranges else None
            text = line.texts[index] if line.texts else f"{x:g}: {y:.4g}"
            dots.append(Dot(horizontal(x), vertical(y), text, ends))
    return Series(line, " ".join(f"{dot.x},{dot.y}" for dot in dots), tuple(dots))


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
