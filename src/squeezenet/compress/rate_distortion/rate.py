"""What a weight costs: an estimate of the coder's bits from the integers themselves.

The coder's context of a weight is how large the weights around it are: in the same row, and in the same column of other
rows. Tables of bits for each context are counted on one set of integers and used to round the next.

Use this for the rate term of rounding, and to search without coding; file sizes are measured with the coder.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MAGNITUDES", "context_map", "layer_bits", "rate_table"]

MAGNITUDES = 128
_LEVELS = 12
_SAMPLE = 10_000
_PRIOR = 0.4


def context_map(weight: Tensor) -> Tensor:
    """Context of each weight, (O, K) int64, from the mean magnitude of its row and of its column without itself."""
    magnitude = weight.abs().clamp(max=15)
    rows, columns = magnitude.shape
    row_mean = (magnitude.sum(1, keepdim=True) - magnitude) / max(columns - 1, 1)
    column_mean = (magnitude.sum(0, keepdim=True) - magnitude) / max(rows - 1, 1)
    energy = (row_mean + 0.05) * (column_mean + 0.05)
    some = energy.flatten()[:: max(1, energy.numel() // _SAMPLE)].contiguous()
    bounds = some.quantile(torch.linspace(0, 1, _LEVELS + 1)[1:-1])
    return torch.bucketize(energy, bounds)


def rate_table(weight: Tensor, contexts: Tensor | None = None) -> Tensor:
    """Bits for each magnitude, sign included, (contexts, 128), from smoothed counts of a layer's integers."""
    magnitudes = weight.abs().long().flatten()
    levels = 1 if contexts is None else _LEVELS
    index = magnitudes if contexts is None else contexts.flatten() * MAGNITUDES + magnitudes
    counts = torch.bincount(index, minlength=levels * MAGNITUDES).reshape(levels, MAGNITUDES).double()
    # Large magnitudes are rare: their counts are spread by a geometric tail, so that no bit count is infinite.
    tail = torch.logspace(0, -MAGNITUDES + 1, MAGNITUDES, base=1.3, dtype=torch.float64)
    counts += _PRIOR * tail + 0.05 * counts.mean(0)
    bits = -(counts / counts.sum(1, keepdim=True)).log2()
    bits[:, 1:] += 1
    return bits.float()


def layer_bits(weight: Tensor) -> float:
    """Estimate the bits of a layer's weights."""
    contexts = context_map(weight)
    table = rate_table(weight, contexts)
    return float(table[contexts, weight.abs().long()].sum())
