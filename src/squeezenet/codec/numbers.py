"""Whole numbers over a range coder: trees of decisions, magnitudes, and bits that are not modelled.

Each function serves both sides: an encoder codes `value` and returns it, a decoder ignores it and returns what it read.
"""

from __future__ import annotations

from .range_coder import Contexts, RangeDecoder, RangeEncoder

__all__ = ["Coder", "code_magnitude", "code_raw", "code_tree"]

Coder = RangeEncoder | RangeDecoder


def code_tree(coder: Coder, contexts: Contexts, bits: int, value: int) -> int:
    """Code a value of `bits` bits from its highest bit down; each bit's context is the bits above it."""
    node = 1
    for shift in range(bits - 1, -1, -1):
        node = node << 1 | coder.bit(contexts, node, value >> shift & 1)
    return node - (1 << bits)


def code_magnitude(coder: Coder, lengths: Contexts, bits: Contexts, magnitude: int) -> int:
    """Code a magnitude below 2^31: its bit length, then the bits below the leading one, the first two with contexts."""
    length = code_tree(coder, lengths, 5, magnitude.bit_length())
    if length < 2:
        return length
    remaining = length - 2
    value = 2 | coder.bit(bits, length, magnitude >> remaining & 1)
    if remaining:
        remaining -= 1
        value = value << 1 | coder.bit(bits, 32 * (value - 1) + length, magnitude >> remaining & 1)
    return value << remaining | code_raw(coder, remaining, magnitude & ((1 << remaining) - 1))


def code_raw(coder: Coder, bits: int, value: int) -> int:
    """Code any number of equally likely bits, high ones first."""
    result = 0
    while bits:
        step = min(bits, 8)
        bits -= step
        result = result << step | coder.raw(step, value >> bits & ((1 << step) - 1))
    return result
