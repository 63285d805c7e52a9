"""Keeping memory that training frees and takes again with every step.

glibc gives large blocks back to the system when they are freed, and the system hands them out again page by page,
zeroed: three quarters of the page faults of a training step (dev/LOG.md).

Use this once, before a long run in a process of its own.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory for the process.

    Returns:
        Whether it could be asked; elsewhere than on glibc nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, ctypes.c_int(-1)))
