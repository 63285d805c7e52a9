"""Sizes of the 2016 storage scheme, for the report: Huffman-coded codes and relative indices.

Source: Han et al. 2015, sections 2 and 4.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LayerSizes", "SparseSizes", "huffman_bits", "relative_gaps", "sparse_sizes"]

_GAP_BITS = 4  # the authors' choice for convolutions: a gap of up to 16 in four bits


@dataclass(frozen=True, kw_only=True)
class SparseSizes:
    """Bits of one layer's weights after each step."""

    n_entries: int
    """Kept weights plus fillers."""
    fillers: int
    """Zeros stored because a gap was larger than an index can hold."""
    fixed_bits: int
    """Codes of `index_bits` and gaps of four bits, before entropy coding."""
    huffman_bits: int
    """The same, both Huffman-coded; tables not counted."""


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """One layer in the terms of the paper's table 1 and of the 2016 storage scheme."""

    name: str
    params: int
    n_weights: int
    n_kept: int
    n_centroids: int
    sizes: SparseSizes

    @property
    def density(self) -> float:
        """Share of the weights that is kept; the paper's column headed "sparsity"."""
        return self.n_kept / self.n_weights

    @property
    def params_kept(self) -> int:
        """Kept weights, and all biases."""
        return self.n_kept + self.params - self.n_weights

    @property
    def fillers(self) -> int:
        """Zeros stored because a gap was larger than an index can hold."""
        return self.sizes.fillers

    @property
    def huffman_bytes(self) -> int:
        """Weights, codebook and biases (both float32) as the 2016 scheme stores them."""
        n_biases = self.params - self.n_weights
        return -(-self.sizes.huffman_bits // 8) + 4 * (self.n_centroids + n_biases)


def relative_gaps(positions: NDArray[np.int64], *, max_gap: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Turn rising positions of kept weights, shape (n,), into gaps in [1, max_gap], and which of them lead to a filler.

    Example:
        >>> gaps, is_filler = relative_gaps(np.array([0, 1, 40]), max_gap=16)
        >>> gaps.tolist(), is_filler.tolist()
        ([1, 1, 16, 16, 7], [False, False, True, True, False])

    Source: Han et al. 2015, section 2 (relative index, zero padding).
    """
    gaps = np.diff(positions, prepend=-1)
    fillers = (gaps - 1) // max_gap
    counts = fillers + 1
    ends = np.cumsum(counts) - 1
    expanded = np.full(int(counts.sum()), max_gap, np.int64)
    expanded[ends] = gaps - fillers * max_gap
    is_filler = np.ones(len(expanded), np.bool_)
    is_filler[ends] = False
    return expanded, is_filler


def huffman_bits(symbols: NDArray[np.int64]) -> int:
    """Count the bits of a sequence (n,) of non-negative symbols under its own Huffman code; at least one bit each.

    Example:
        >>> huffman_bits(np.array([0, 0, 0, 1, 2]))
        7
    """
    counts = np.bincount(symbols)
    heap = counts[counts > 0].tolist()
    if len(heap) < 2:
        return len(symbols)
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:  # each merge adds one bit to every symbol below it
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def sparse_sizes(codes: NDArray[np.int64], *, index_bits: int) -> SparseSizes:
    """Measure a layer by the codes of its weights in storage order, shape (n,); 0 is a weight that is not kept."""
    positions = np.flatnonzero(codes)
    gaps, is_filler = relative_gaps(positions, max_gap=1 << _GAP_BITS)
    stored = np.zeros(len(gaps), np.int64)
    stored[~is_filler] = codes[positions]
    return SparseSizes(
        n_entries=len(gaps),
        fillers=int(is_filler.sum()),
        fixed_bits=len(gaps) * (index_bits + _GAP_BITS),
        huffman_bits=huffman_bits(stored) + huffman_bits(gaps - 1),
    )
