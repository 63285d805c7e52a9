"""Settings of this process: usable cores, keeping freed memory, deferred signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = [
    "EXIT_INTERRUPTED", "StopSignals", "ending_at_ctrl_c", "keep_freed_memory", "keeping_signal_handlers",
    "spare_blas_threads", "usable_cores",
]  # fmt: skip

EXIT_INTERRUPTED = 130
"""Exit code that shells report for a command that Ctrl-C ended."""

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory; for long runs in a process of their own.

    By default, glibc returns large blocks to the system and gets them back page by page, zeroed. That causes three
    quarters of the page faults of a training step (dev/LOG.md). Returns False, without effect, if this is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(-1)))


def spare_blas_threads() -> None:
    """Start NumPy's BLAS without a thread pool, which saves a fifth of a cold start. Call before NumPy is imported."""
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def usable_cores() -> int:
    """Count the processor cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1


@contextlib.contextmanager
def ending_at_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process immediately while heavy modules are imported; some of them suppress
    KeyboardInterrupt.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def keeping_signal_handlers() -> Iterator[None]:
    """Restore the handlers of SIGINT and SIGTERM after the block, even if a library has changed them."""
    is_main = threading.current_thread() is threading.main_thread()  # it alone can set handlers
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, so Python cannot set it again
                signal.signal(number, handler)


class StopSignals:
    """While this is open, SIGINT and SIGTERM only set a flag; a second signal acts as usual."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python delivers signals to the main thread alone, and lets it alone set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: object) -> None:
        self.is_set = True
        signal.signal(number, self._before[number])
