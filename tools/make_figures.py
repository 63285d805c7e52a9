"""Draw the figures of docs/paper.md from the package's own counts.

python tools/make_figures.py
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from squeezenet.accounting import network_cost
from squeezenet.spec import named_spec

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SQUEEZE, EXPAND1, EXPAND3, OTHER = "#98a2b3", "#60a5fa", "#1d4ed8", "#e8590c"
PARTS = {"squeeze": SQUEEZE, "expand1x1": EXPAND1, "expand3x3": EXPAND3, "": OTHER}
LABELS = {"squeeze": "squeeze 1x1", "expand1x1": "expand 1x1", "expand3x3": "expand 3x3", "": "conv1, conv10"}


def strategies() -> bytes:
    """Weights and work of SqueezeNet 1.0 by layer and kind of filter."""
    spec = named_spec("squeezenet1_0", input_size=227)
    names = [layer.name for layer in network_cost(spec).layers if layer.kind in ("conv", "fire")]
    settings = {"svg.hashsalt": "squeezenet", "svg.fonttype": "none", "font.size": 10,
                "axes.spines.top": False, "axes.spines.right": False}  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, key, unit, title in zip(
            figure.subplots(1, 2), ("params", "macs"), (1e3, 1e6),
            ("parameters, thousands", "multiply-accumulates, millions"), strict=True,
        ):  # fmt: skip
            base = dict.fromkeys(names, 0.0)
            for part, color in PARTS.items():
                heights = [
                    sum(getattr(op, key) for op in spec.convs if op.name == (f"{name}.{part}" if part else name)) / unit
                    for name in names
                ]
                axes.bar(names, heights, bottom=list(base.values()), color=color, label=LABELS[part], width=0.7)
                base = {name: base[name] + height for name, height in zip(names, heights, strict=True)}
            axes.set_title(title, loc="left", fontsize=10)
            axes.tick_params(axis="x", rotation=60)
        figure.axes[0].legend(frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="white")
    return stream.getvalue()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "strategies.svg").write_bytes(strategies())
