"""The solver in C: the bits of `solver.fit_numpy` and `solver.quantize_head`, faster."""

from __future__ import annotations

import ctypes

import numpy as np
from numpy.typing import NDArray

from ..native_library import Taught, check_status, load_library
from .solver import FeatureCode, Fit, fit_numpy

__all__ = ["fit"]


def fit(
    codes: NDArray[np.uint8], code: FeatureCode, classes: NDArray[np.int64], n_classes: int,
    levels: NDArray[np.float64] | None = None,
) -> Fit:  # fmt: skip
    """Fit a head to photos; in C where the library was built.

    Args:
        codes: (n, d), from `FeatureCode.encode`.
        code: What they mean.
        classes: (n,), ascending; every class occurs.
        n_classes: C.
        levels: The largest logit of the classes that are kept, for each photo, (n,); None if none are.
    """
    library = load_library()
    if library is None:
        return fit_numpy(code.decode(codes), classes, n_classes, levels)
    n, d = codes.shape
    codes, of_photos = np.ascontiguousarray(codes), classes.astype(np.int32)
    weight = np.empty((d, n_classes + (levels is not None)))
    scores, centre = np.empty((n, n_classes)), np.empty(d, np.int32)
    memory = np.empty(library.sqz_teach_bytes(n, d, n_classes), np.uint8)
    taught = Taught(weight.ctypes.data, centre.ctypes.data, scores.ctypes.data)
    status = library.sqz_teach(
        codes.ctypes.data, int(code.is_signed), of_photos.ctypes.data,
        None if levels is None else np.ascontiguousarray(levels).ctypes.data, n, d, n_classes, memory.ctypes.data,
        memory.nbytes, ctypes.byref(taught),
    )  # fmt: skip
    check_status(library, status, "teaching")
    base = None if levels is None else taught.base
    return Fit(weight, centre.astype(np.int64), scores, taught.exponent, taught.gain, base)
