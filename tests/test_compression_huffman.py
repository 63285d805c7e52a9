"""Sizes of the 2016 storage scheme."""

import heapq

import numpy as np
import pytest

from squeezenet.compression.deep.huffman import huffman_bits, relative_gaps, sparse_sizes


def test_gap_of_exactly_max_needs_no_filler():
    gaps, is_filler = relative_gaps(np.array([15, 31]), max_gap=16)
    assert gaps.tolist() == [16, 16]
    assert not is_filler.any()


def test_gap_beyond_max_is_split_with_a_filler():
    gaps, is_filler = relative_gaps(np.array([16]), max_gap=16)
    assert gaps.tolist() == [16, 1]
    assert is_filler.tolist() == [True, False]


@pytest.mark.parametrize("seed", range(5))
def test_positions_come_back_from_gaps(seed):
    positions = np.flatnonzero(np.random.default_rng(seed).random(2000) < 0.04)
    gaps, is_filler = relative_gaps(positions, max_gap=16)
    assert gaps.min() >= 1
    assert gaps.max() <= 16
    assert (np.cumsum(gaps)[~is_filler] - 1).tolist() == positions.tolist()


def test_huffman_of_one_symbol_takes_one_bit_each():
    assert huffman_bits(np.array([3, 3, 3])) == 3


def test_huffman_matches_code_lengths_from_a_tree():
    symbols = np.random.default_rng(0).geometric(0.3, 500) - 1
    counts = np.bincount(symbols)
    heap = [(count, index, [index]) for index, count in enumerate(counts.tolist()) if count]
    lengths = dict.fromkeys(range(len(counts)), 0)
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for leaf in left + right:
            lengths[leaf] += 1
        heapq.heappush(heap, (a + b, i, left + right))
    assert huffman_bits(symbols) == sum(counts[index] * length for index, length in lengths.items())


def test_layer_without_weights_takes_nothing():
    sizes = sparse_sizes(np.zeros(100, np.int64), index_bits=6)
    assert (sizes.n_entries, sizes.fillers, sizes.fixed_bits, sizes.huffman_bits) == (0, 0, 0, 0)


def test_fixed_size_counts_codes_and_gaps_of_fillers_too():
    codes = np.zeros(40, np.int64)
    codes[39] = 5  # a gap of 40: two fillers and the weight
    sizes = sparse_sizes(codes, index_bits=6)
    assert (sizes.n_entries, sizes.fillers, sizes.fixed_bits) == (3, 2, 30)
