"""`squeezenet bench`: how fast a file runs on this machine, and how near that is to what the processor can do."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ..text import format_bytes, table
from .model_names import resolve_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engine import NativeEngine
    from ..network import IntegerNetwork

_LOADS = 7
_BATCH = 32


@click.command()
@click.argument("model", metavar="FILE.sqz")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="Threads to use.  [default: one a core]")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Time a measurement.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON object.")
def command(model: str, threads: int | None, seconds: float, as_json: bool) -> None:
    """Time a compressed network.

    \b
    Latency is of one image at a time, throughput of batches of 32; both from raw pixels.
    The share of the peak compares with multiply-accumulates in registers alone, measured
    here and now on one thread.
    """
    from ..accounting import network_cost
    from ..engine import native_kernels
    from ..fileformat import read_sqz
    from ..process import usable_cores

    if not native_kernels():
        raise click.ClickException("the native engine is not built here: install a C compiler and reinstall squeezenet")
    path = resolve_model(model)
    contents = read_sqz(path)
    size = contents.network.spec.input_size
    macs = network_cost(contents.network.spec).macs
    load_ms, engine = _time_load(path)
    pixels = _pixels(_BATCH, size)
    figures: dict[str, Any] = {
        "model": model,
        "kernels": engine.kernels,
        "macs": macs,
        "load_ms": load_ms,
        "memory_bytes": engine.memory_bytes,
        "peak_rss_bytes": None,
        "peak_gmacs": measure_peak(engine.kernels),
        "runs": [],
    }
    for count in sorted({1, threads or usable_cores()}):
        figures["runs"].append(_measure(contents.network, count, pixels, macs, seconds, figures["peak_gmacs"]))
    figures["peak_rss_bytes"] = _peak_rss_bytes()
    click.echo(json.dumps(figures) if as_json else _report(figures))


def _time_load(model: str) -> tuple[float, NativeEngine]:
    """Median milliseconds from a path to an engine that is ready, and the engine."""
    from ..engine import NativeEngine
    from ..fileformat import read_sqz

    times = []
    for _ in range(_LOADS):
        start = time.perf_counter()
        engine = NativeEngine(read_sqz(model).network, threads=1)
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 2), engine


def _pixels(count: int, size: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def _measure(
    network: IntegerNetwork, threads: int, pixels: NDArray[np.uint8], macs: int, seconds: float, peak: float | None
) -> dict[str, Any]:
    import numpy as np

    from ..engine import NativeEngine

    engine = NativeEngine(network, threads=threads)
    single = np.array(_times(lambda: engine.logits(pixels[:1]), seconds)) * 1e3
    batch = np.array(_times(lambda: engine.logits(pixels), seconds)) / len(pixels)
    median = float(np.median(single))
    gmacs = macs / median / 1e6
    return {
        "threads": threads,
        "n_runs": len(single),
        "latency_ms": round(median, 3),
        "p95_ms": round(float(np.percentile(single, 95)), 3),
        "images_per_s": round(1 / float(np.median(batch)), 1),
        "gmacs": round(gmacs, 1),
        "share_of_peak": round(gmacs / (peak * threads), 3) if peak else None,
    }


def _times(run: Callable[[], object], seconds: float) -> list[float]:
    """Durations of repeated calls, in seconds, after some to warm up."""
    for _ in range(3):
        run()
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        run()
        times.append(time.perf_counter() - start)
    return times


def measure_peak(kernels: str) -> float | None:
    """Billions of multiply-accumulates a second in registers, on one thread; None for sets without such a loop."""
    from ..native_library import load_library

    library = load_library()
    assert library is not None
    rates = []
    for _ in range(20):
        start = time.perf_counter()
        macs = library.sqz_peak(kernels.encode(), 200_000)
        rates.append(macs / (time.perf_counter() - start))
    return round(max(rates) / 1e9, 1) or None


def _peak_rss_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _report(figures: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "" if value is None else f"{100 * value:.0f} %"

    rows = [
        [
            str(run["threads"]), f"{run['latency_ms']:.2f} ms", f"{run['p95_ms']:.2f} ms", f"{run['images_per_s']:.0f}",
            f"{run['gmacs']:.0f}", share(run["share_of_peak"]),
        ]
        for run in figures["runs"]
    ]  # fmt: skip
    facts = [
        ["kernels", figures["kernels"]],
        ["load and decode", f"{figures['load_ms']:.1f} ms"],
        ["weights and activations", format_bytes(figures["memory_bytes"])],
        ["multiply-accumulates an image", f"{figures['macs']:,}"],
        ["peak of one thread", f"{figures['peak_gmacs']} GMAC/s" if figures["peak_gmacs"] else "not measured"],
    ]
    if figures["peak_rss_bytes"]:
        facts.append(["peak memory of the process", format_bytes(figures["peak_rss_bytes"])])
    header = ["threads", "median", "p95", "images/s", "GMAC/s", "of peak"]
    return table(["", figures["model"]], facts) + "\n\n" + table(header, rows)
