"""`squeezenet.benchmark`: the speed of a compressed network on this machine, and its share of the peak speed."""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .accounting import network_cost
from .classifier import sqz_path
from .engine import NativeEngine, native_kernels
from .fileformat import SqzFile, read_sqz
from .native_library import load_library, why_not_loaded
from .network import IntegerNetwork
from .process import usable_cores
from .text import html_table

__all__ = ["Benchmark", "BenchmarkRun", "benchmark", "measure_peak"]

_LOADS = 7
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class BenchmarkRun:
    """Speed of one network with a number of threads."""

    threads: int
    n_runs: int
    latency_ms: float
    """Median time of one image, from raw pixels to class scores."""
    p95_ms: float
    images_per_s: float
    """Throughput in batches of 32."""
    gmacs: float
    """Billions of multiply-accumulates per second, one image at a time."""
    share_of_peak: float | None
    """`gmacs` divided by the peak for this number of threads, 0 to 1; None if the peak is not known."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Speed and memory of a network on this machine."""

    model: str
    kernels: str
    """Name of the kernel set that is used on this processor."""
    macs: int
    """Multiply-accumulates per image."""
    load_ms: float | None
    """Median time to load the network from its file; None if it was given as contents in memory."""
    memory_bytes: int
    """Bytes of weights and activations, with one thread."""
    peak_rss_bytes: int | None
    """Peak memory of the process so far; None on Windows."""
    peak_gmacs: float | None
    """Billions of multiply-accumulates per second of a loop in registers, one thread; None if the kernel set has
    none."""
    runs: tuple[BenchmarkRun, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Rows of a table: threads, median, 95th percentile, images per second, GMAC/s, share of the peak."""
        return [
            (
                str(run.threads), f"{run.latency_ms:.2f} ms", f"{run.p95_ms:.2f} ms", f"{run.images_per_s:.0f}",
                f"{run.gmacs:.0f}", "" if run.share_of_peak is None else f"{100 * run.share_of_peak:.0f} %",
            )
            for run in self.runs
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        return html_table(("threads", "median", "p95", "images/s", "GMAC/s", "of peak"), self.rows())


def benchmark(
    model: str | os.PathLike[str] | SqzFile, *, threads: int | None = None, seconds: float = 2.0
) -> Benchmark:
    """Time a compressed network with one thread and with several.

    Args:
        model: The path of a `.sqz` file, the name of a network of the package, or the contents of a file.
        threads: Number of threads of the second measurement; by default one per core.
        seconds: Duration of each measurement.

    Raises:
        ModelNotFoundError: If there is no such file or name, or it is a float network.
        FormatError: If the file is damaged.
        ImportError: If the native engine was not built, or was built from other sources.

    Example:
        >>> result = benchmark("cifar10", threads=1, seconds=0.1)
        >>> result.runs[0].latency_ms > 0
        True
    """
    if not native_kernels():
        raise ImportError(why_not_loaded())
    contents, load_ms = (model, None) if isinstance(model, SqzFile) else _time_load(model)
    network = contents.network
    engine = NativeEngine(network, threads=1)
    size = network.spec.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, size, size, 3)).astype(np.uint8)
    macs = network_cost(network.spec).macs
    peak = measure_peak(engine.kernels)
    counts = sorted({1, threads or usable_cores()})
    runs = tuple(_measure(network, count, pixels, macs, seconds, peak) for count in counts)
    return Benchmark(
        model="SqzFile" if isinstance(model, SqzFile) else os.fspath(model), kernels=engine.kernels, macs=macs,
        load_ms=load_ms, memory_bytes=engine.memory_bytes, peak_rss_bytes=_peak_rss_bytes(), peak_gmacs=peak, runs=runs,
    )  # fmt: skip


def measure_peak(kernels: str) -> float | None:
    """Measure the multiply-accumulates of a kernel set in registers, on one thread.

    Returns:
        Billions per second; None for kernel sets without a loop for this measurement.
    """
    library = load_library()
    assert library is not None
    rates = []
    for _ in range(20):
        start = time.perf_counter()
        macs = library.sqz_peak(kernels.encode(), 200_000)
        rates.append(macs / (time.perf_counter() - start))
    return round(max(rates) / 1e9, 1) or None


def _time_load(model: str | os.PathLike[str]) -> tuple[SqzFile, float]:
    path = sqz_path(model)
    times = []
    for _ in range(_LOADS):
        start = time.perf_counter()
        contents = read_sqz(path)
        NativeEngine(contents.network, threads=1)
        times.append(time.perf_counter() - start)
    return contents, round(statistics.median(times) * 1e3, 2)


def _measure(
    network: IntegerNetwork, threads: int, pixels: NDArray[np.uint8], macs: int, seconds: float, peak: float | None
) -> BenchmarkRun:
    engine = NativeEngine(network, threads=threads)
    single = np.array(_times(lambda: engine.logits(pixels[:1]), seconds)) * 1e3
    batch = np.array(_times(lambda: engine.logits(pixels), seconds)) / len(pixels)
    median = float(np.median(single))
    gmacs = macs / median / 1e6
    return BenchmarkRun(
        threads=threads, n_runs=len(single), latency_ms=round(median, 3),
        p95_ms=round(float(np.percentile(single, 95)), 3), images_per_s=round(1 / float(np.median(batch)), 1),
        gmacs=round(gmacs, 1), share_of_peak=round(gmacs / (peak * threads), 3) if peak else None,
    )  # fmt: skip


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


def _peak_rss_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
