"""The search of a compression as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from ..reports.plots import BLUE, GREY, ORANGE, drawing, front, log_axis
from .outcome import RDPoint

__all__ = ["plot_points"]

_STAGES = {"round": ("rounded", "o", BLUE), "distil": ("trained", "D", "#d1495b")}


def plot_points(points: Sequence[RDPoint], *, file_bytes: int, kl: float | None, title: str) -> bytes:
    """Draw KL over bytes of every network that a search tried, as SVG; the file itself, where its `kl` was measured."""
    best = sorted(front(points, [lambda p: p.file_bytes, lambda p: p.kl]), key=lambda p: p.file_bytes)
    with drawing(7, 4.5) as picture:
        axes = picture.axes
        axes.plot([p.file_bytes for p in best], [p.kl for p in best], color=GREY, zorder=1, label="Pareto front")
        for stage, (label, marker, color) in _STAGES.items():
            chosen = [p for p in points if p.stage == stage]
            if chosen:
                axes.scatter([p.file_bytes for p in chosen], [p.kl for p in chosen], marker=marker, c=color,
                             label=label, zorder=2)  # fmt: skip
        if kl is not None:
            axes.scatter([file_bytes], [kl], marker="*", s=280, c=ORANGE, edgecolors="white",
                         label=f"the file: {file_bytes / 1000:,.1f} kB, {kl:.3f} nats", zorder=3)  # fmt: skip
        log_axis(axes, "x", unit=1000)
        log_axis(axes, "y", digits="125")
        axes.set(title=title, xlabel="file, kB (1000 bytes)", ylabel="mean KL(float || compressed), nats")
        axes.legend()
    return picture.svg
