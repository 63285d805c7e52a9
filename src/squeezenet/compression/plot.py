"""The search of a compression as a picture: every network it looked at, by bytes and by distance to the float network.

Use this with the points of an `Outcome`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from .outcome import RDPoint

__all__ = ["plot_points"]

_STAGES = {"round": ("rounded", "o", "#2a6fdb"), "distil": ("trained", "D", "#d1495b")}


def plot_points(points: Sequence[RDPoint], *, file_bytes: int, kl: float | None, title: str) -> bytes:
    """Draw KL over bytes.

    Args:
        points: What the search looked at, at least one.
        file_bytes: Of the file that was written.
        kl: Of that file by the engine, nats, where it was measured.
        title: Above the plot.

    Returns:
        An SVG image.
    """
    import matplotlib  # here, since it takes longer to import than everything else together
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    with matplotlib.rc_context({"svg.hashsalt": "squeezenet", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.add_subplot()
        front = _pareto_front(points)
        axes.plot([p.file_bytes for p in front], [p.kl for p in front], color="0.7", zorder=1, label="Pareto front")
        for stage, (label, marker, color) in _STAGES.items():
            chosen = [p for p in points if p.stage == stage]
            if chosen:
                axes.scatter([p.file_bytes for p in chosen], [p.kl for p in chosen], marker=marker, c=color,
                             label=label, zorder=2)  # fmt: skip
        if kl is not None:
            axes.scatter([file_bytes], [kl], marker="*", s=180, c="#e9a820", edgecolors="black", linewidths=0.6,
                         label=f"the file: {file_bytes / 1000:,.1f} kB, {kl:.3f} nats", zorder=3)  # fmt: skip
        axes.set(xscale="log", yscale="log", title=title)
        axes.set_xlabel("file, kB (1000 bytes)")
        axes.set_ylabel("mean KL(float || compressed), nats")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(which="both", color="0.92")
        axes.legend(frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _pareto_front(points: Sequence[RDPoint]) -> list[RDPoint]:
    """The points that no other beats in both bytes and KL, smallest first."""
    front: list[RDPoint] = []
    for point in sorted(points, key=lambda p: (p.file_bytes, p.kl)):
        if not front or point.kl < front[-1].kl:
            front.append(point)
    return front
