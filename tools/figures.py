"""The figures of docs/, from results/*.json and the package's own counts."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tables import VARIED, read

from squeezenet.accounting import network_cost
from squeezenet.architectures import named_spec
from squeezenet.reports.plots import BLUE, GREY, ORANGE, drawing, log_axis
from squeezenet.text import format_bytes

PARTS = {
    "squeeze": ("squeeze 1x1", GREY),
    "expand1x1": ("expand 1x1", "#60a5fa"),
    "expand3x3": ("expand 3x3", "#1d4ed8"),
    "": ("conv1, conv10", ORANGE),
}

# Bytes of a SqueezeNet in files that others published. Their accuracies are for all of ImageNet's validation photos.
PUBLISHED = (
    (288_000, "coresets, 2018"),  # Dubey et al., ECCV 2018, "Coreset-Based Neural Network Compression"
    (470_000, "the paper, 6 bits"),  # Iandola et al. 2016, table 2
    (660_000, "the paper, 8 bits"),
)


def draw_figures(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "strategies.svg").write_bytes(strategies())
    (folder / "rate-distortion.svg").write_bytes(rate_distortion(read("compression")["results"]))
    for preset, result in read("trends").items():
        (folder / f"trend-{preset}.svg").write_bytes(trend(result))


def strategies() -> bytes:
    """Weights and work of SqueezeNet 1.0 by layer and kind of filter."""
    spec = named_spec("squeezenet1_0", input_size=227)
    names = [layer.name for layer in network_cost(spec).layers if layer.kind in ("conv", "fire")]
    shown = (("params", 1e3, "parameters, thousands"), ("macs", 1e6, "multiply-accumulates, millions"))
    with drawing(9, 3.6, n_panels=2) as picture:
        for axes, (key, unit, title) in zip(picture.panels, shown, strict=True):
            base = dict.fromkeys(names, 0.0)
            for part, (label, color) in PARTS.items():
                heights = [
                    sum(getattr(op, key) for op in spec.convs if op.name == (f"{name}.{part}" if part else name)) / unit
                    for name in names
                ]
                axes.bar(names, heights, bottom=list(base.values()), color=color, label=label, width=0.7)
                base = {name: base[name] + height for name, height in zip(names, heights, strict=True)}
            axes.set_title(title, loc="left", fontsize=10)
            axes.tick_params(axis="x", rotation=60)
            axes.grid(axis="x", visible=False)
        picture.axes.legend()
    return picture.svg


def rate_distortion(rows: list[dict[str, Any]]) -> bytes:
    """KL (above) and change of top-1 (below) over bytes, a column for each network, with what others published."""
    versions = list(dict.fromkeys(row["model"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    n_columns = len(versions)
    with drawing(4.6 * n_columns, 7.6, n_panels=n_columns, n_rows=2, share_y=True) as picture:
        for column, version in enumerate(versions):
            fidelity, accuracy = picture.panels[column], picture.panels[column + n_columns]
            for number, method in enumerate(methods):
                chosen = [row for row in rows if row["model"] == version and row["method"] == method]
                for axes, height in ((fidelity, _kl), (accuracy, _top1_change)):
                    points = sorted((row["file_bytes"], height(row)) for row in chosen)
                    marker = "o*sDv^<"[number % 7]
                    axes.plot(*zip(*points, strict=True), marker=marker, markersize=6, label=method)
            for axes in (fidelity, accuracy):
                log_axis(axes, "x", unit=1000)
                for size, name in PUBLISHED if version == "1.0" else ():
                    axes.axvline(size, color=GREY, linestyle=":", linewidth=1.2)
                    fidelity.annotate(name, (size, 0.98), xycoords=("data", "axes fraction"), rotation=90, ha="right",
                                      va="top", fontsize=8, color="#5b6472")  # fmt: skip
            log_axis(fidelity, "y", digits="125")
            fidelity.set_title(f"SqueezeNet {version}", loc="left", fontsize=10)
            accuracy.set(xlabel="kB (1000 bytes)", ylim=(-12, 3))
        picture.panels[0].set_ylabel("mean KL(float || compressed), nats")
        picture.panels[n_columns].set_ylabel("top-1 minus the float network's, points")
        legend = picture.axes.get_legend_handles_labels()
        picture.figure.legend(*legend, loc="outside lower center", ncols=3)
    return picture.svg


def _kl(row: dict[str, Any]) -> float:
    return float(row["kl"])


def _top1_change(row: dict[str, Any]) -> float:
    return float(row["top1"] - row["float_top1"])


def trend(result: dict[str, Any]) -> bytes:
    """Top-1 along one metaparameter: means over seeds, their standard deviation, and file sizes."""
    points = result["points"]
    x = [point["value"] for point in points]
    with drawing(7.6, 4.0) as picture:
        axes = picture.axes
        float_top1 = [statistics.fmean(point["float_top1"]) for point in points]
        axes.plot(x, float_top1, color=GREY, marker="o", markersize=5, linewidth=1.6, label="float")
        axes.errorbar(x, [point["top1_mean"] for point in points], yerr=[point["top1_std"] for point in points],
                      color=BLUE, marker="o", markersize=5, capsize=3, linewidth=1.6, label="int8 file")  # fmt: skip
        for at, point in zip(x, points, strict=True):
            axes.annotate(format_bytes(point["file_bytes"]), (at, max(point["top1"])), xytext=(0, 12), ha="center",
                          textcoords="offset points", color="#5b6472")  # fmt: skip
        axes.set_xticks(x, [f"{at:g}" for at in x])
        axes.margins(x=0.08, y=0.25)
        axes.set(xlabel=VARIED[result["name"]], ylabel="top-1, %")
        axes.legend(loc="lower right")
    return picture.svg
