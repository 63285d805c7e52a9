"""A binary adaptive range coder in integer arithmetic.

`RangeEncoder` and `RangeDecoder` share one interface, so that a model is written once and serves both: `bit` codes a
decision under an adaptive probability of `Contexts`, `raw` codes bits that are worth no model. docs/format.md states
every step; the C engine repeats them.

State, both sides: `range` in [2^24, 2^32) between calls, renormalised a byte at a time. Encoder: `low` < 2^32 with
carries pushed into bytes already written. Decoder: `code` = value - low. Bytes past the end of a stream read as zero;
the encoder leaves trailing zeros out, and a decoder that needs more than four of them has left the stream.

Use this when you have decisions and contexts; `weights` has the model for networks.

Source: Martin 1979 (range encoding); Mahoney 2005 (two adaptation speeds, averaged).
"""

from __future__ import annotations

from ..errors import Truncated

__all__ = ["Contexts", "RangeDecoder", "RangeEncoder"]

_TOP = 1 << 24
_MASK = (1 << 32) - 1
_HALF = 1 << 15
_FAST = 4
_SLOW = 7
_MAX_MISSING_BYTES = 4


class Contexts:
    """Adaptive probabilities that a bit is 1: a fast and a slow one per context, in units of 2^-16, averaged in use."""

    __slots__ = ("fast", "slow")

    def __init__(self, count: int) -> None:
        self.fast = [_HALF] * count
        self.slow = [_HALF] * count


class RangeEncoder:
    """Writes decisions; `finish` returns the bytes."""

    __slots__ = ("_low", "_out", "_range")

    def __init__(self) -> None:
        self._low = 0
        self._range = _MASK
        self._out = bytearray()

    def bit(self, contexts: Contexts, index: int, value: int) -> int:
        """Code one decision (0 or 1) and adapt its context; returns the decision."""
        fast, slow = contexts.fast[index], contexts.slow[index]
        bound = (self._range >> 15) * ((fast + slow) >> 2)
        if value:
            self._range = bound
            contexts.fast[index] = fast + ((65536 - fast) >> _FAST)
            contexts.slow[index] = slow + ((65536 - slow) >> _SLOW)
        else:
            self._low += bound
            self._range -= bound
            contexts.fast[index] = fast - (fast >> _FAST)
            contexts.slow[index] = slow - (slow >> _SLOW)
        if self._range < _TOP:
            self._renormalise()
        return value

    def raw(self, bits: int, value: int) -> int:
        """Code `bits` (0 to 8) equally likely bits; returns the value."""
        self._range >>= bits
        self._low += value * self._range
        if self._range < _TOP:
            self._renormalise()
        return value

    def finish(self) -> bytes:
        """Close the stream with the fewest bytes that no continuation by zeros can change."""
        # Of the values in [low, low + range), take one that ends in as many zero bits as fit.
        for zeros in range(32, -1, -1):
            value = (self._low + (1 << zeros) - 1) >> zeros << zeros
            if value < self._low + self._range:
                break
        self._low = value
        for _ in range(4):
            self._shift()
        if self._low > _MASK:
            self._carry()
        return bytes(self._out).rstrip(b"\0")

    def _renormalise(self) -> None:
        while self._range < _TOP:
            self._shift()
            self._range <<= 8

    def _shift(self) -> None:
        if self._low > _MASK:
            self._carry()
        self._out.append(self._low >> 24)
        self._low = (self._low << 8) & _MASK

    def _carry(self) -> None:
        self._low &= _MASK
        position = len(self._out) - 1
        while self._out[position] == 255:
            self._out[position] = 0
            position -= 1
        self._out[position] += 1


class RangeDecoder:
    """Reads the decisions that a `RangeEncoder` wrote, given the same contexts in the same order."""

    __slots__ = ("_code", "_data", "_position", "_range")

    def __init__(self, data: bytes) -> None:
        self._data = data + bytes(_MAX_MISSING_BYTES)
        self._code = int.from_bytes(self._data[:4], "big")
        self._position = 4
        self._range = _MASK

    def bit(self, contexts: Contexts, index: int, value: int = 0) -> int:
        """Decode one decision and adapt its context; `value` is not read.

        Raises:
            Truncated: If the stream ends before the decision.
        """
        fast, slow = contexts.fast[index], contexts.slow[index]
        bound = (self._range >> 15) * ((fast + slow) >> 2)
        if self._code < bound:
            value = 1
            span = bound
            contexts.fast[index] = fast + ((65536 - fast) >> _FAST)
            contexts.slow[index] = slow + ((65536 - slow) >> _SLOW)
        else:
            value = 0
            self._code -= bound
            span = self._range - bound
            contexts.fast[index] = fast - (fast >> _FAST)
            contexts.slow[index] = slow - (slow >> _SLOW)
        self._range = span
        if span < _TOP:
            self._renormalise()
        return value

    def raw(self, bits: int, value: int = 0) -> int:
        """Decode `bits` (0 to 8) equally likely bits; `value` is not read.

        Raises:
            Truncated: If the stream ends before the bits.
        """
        self._range >>= bits
        value = min(self._code // self._range, (1 << bits) - 1)
        self._code -= value * self._range
        if self._range < _TOP:
            self._renormalise()
        return value

    @property
    def is_exhausted(self) -> bool:
        """Whether every byte of the stream was needed."""
        return self._position >= len(self._data) - _MAX_MISSING_BYTES

    def _renormalise(self) -> None:
        try:
            while self._range < _TOP:
                self._code = (self._code << 8) | self._data[self._position]
                self._position += 1
                self._range <<= 8
        except IndexError:
            raise Truncated("a weight stream ends before its last weight") from None
