"""Labels that a photo's features contradict: ridge regression on all other photos, in closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["leave_one_out"]

_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # of the mean squared length of a feature vector


def leave_one_out(features: NDArray[np.integer], labels: NDArray[np.integer], n_classes: int) -> NDArray[np.float64]:
    """Score each photo by what all others say.

    The regularisation is that of `_RIDGES` with the least error over all photos, each left out.

    Args:
        features: (N, channels).
        labels: Classes, (N,), from 0.
        n_classes: C.

    Returns:
        (N, C): about 1 for the class that a photo's features belong to, 0 for others; 0 where photos are alike.
    """
    x = features.astype(np.float64)
    x /= np.sqrt(max((x * x).sum(axis=1).mean(), 1e-30))
    x -= x.mean(axis=0)
    wanted = np.zeros((len(x), n_classes))
    wanted[np.arange(len(x)), labels] = 1
    counts = np.bincount(labels, minlength=n_classes)
    weight = np.sqrt(1 / np.maximum(counts, 1))[labels][:, None]  # each class with the same weight in all
    share = weight[:, 0] ** 2 / (weight**2).sum()
    mean = share @ x
    prior = share @ wanted
    z, t = (x - mean) * weight, (wanted - prior) * weight
    left, singular, _ = np.linalg.svd(z, full_matrices=False)
    projected = left.T @ t
    best, least = np.zeros_like(wanted), np.inf
    scale = float((singular**2).sum()) / len(x) or 1.0
    for ridge in _RIDGES:
        kept = singular**2 / (singular**2 + ridge * scale * len(x))
        leverage = ((left * kept) * left).sum(axis=1) + share
        errors = (t - (left * kept) @ projected) / np.maximum(1 - leverage, 1e-9)[:, None]
        if (error := float((errors * errors).sum())) < least:
            best, least = wanted - errors / weight, error
    return best
