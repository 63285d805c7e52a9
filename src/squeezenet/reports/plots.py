"""Pictures in files, drawn by matplotlib, and the Pareto front that they and pages show."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "GREY", "ORANGE", "Picture", "drawing", "front", "log_axis"]

BLUE, ORANGE, GREY = "#2563eb", "#e8590c", "#98a2b3"
_Point = TypeVar("_Point")


def front(points: Sequence[_Point], keys: Sequence[Callable[[_Point], float]]) -> tuple[_Point, ...]:
    """Choose the points that no other one beats, in their order.

    A point beats another if none of its `keys` is larger and one is smaller.

    Example:
        >>> front([(1, 9), (2, 5), (3, 6)], [lambda p: p[0], lambda p: p[1]])
        ((1, 9), (2, 5))
    """
    values = [tuple(key(point) for key in keys) for point in points]

    def is_beaten(own: tuple[float, ...]) -> bool:
        return any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in values)

    return tuple(point for point, own in zip(points, values, strict=True) if not is_beaten(own))


@dataclass
class Picture:
    """A matplotlib figure, which `drawing` turns into SVG text."""

    figure: Figure
    panels: Sequence[Axes]
    """One or several axes, side by side."""
    svg: bytes = b""
    """The file, once `drawing` has ended."""

    @property
    def axes(self) -> Axes:
        """The first panel."""
        return self.panels[0]


@contextmanager
def drawing(
    width: float, height: float, *, n_panels: int = 1, n_rows: int = 1, share_y: bool = False
) -> Iterator[Picture]:
    """Draw an SVG file with matplotlib, `n_panels` axes side by side; the same drawing gives the same bytes.

    Args:
        width: Inches.
        height: Inches.
        n_panels: Axes side by side.
        n_rows: Such rows of axes, one below the other; `Picture.panels` has the first row first.
        share_y: Let the panels of a row have one y axis.
    """
    import matplotlib  # here, since it takes longer to import than everything else together
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.hashsalt": "squeezenet", "svg.fonttype": "none", "font.size": 10, "axes.spines.top": False,
        "axes.spines.right": False, "axes.edgecolor": GREY, "axes.grid": True, "axes.grid.which": "both",
        "axes.axisbelow": True, "grid.color": "#eef0f3", "legend.frameon": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        panels = list(figure.subplots(n_rows, n_panels, sharey="row" if share_y else False, squeeze=False).flat)
        picture = Picture(figure, panels)
        yield picture
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="white")
        picture.svg = stream.getvalue()


def log_axis(axes: Axes, name: Literal["x", "y"], *, unit: float = 1.0, digits: str = "123456789") -> None:
    """Make an axis logarithmic, with plain numbers, in `unit`s of the data, at the ticks that begin with `digits`."""
    from matplotlib.ticker import FuncFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda at, _: f"{at / unit:g}" if f"{at:e}"[0] in digits else ""))
