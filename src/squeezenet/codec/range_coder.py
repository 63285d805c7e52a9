"""A binary adaptive range coder in integer arithmetic.

`RangeEncoder` and `RangeDecoder` share one interface, so that a model is written once and serves both: `bit` codes a
decision under an adaptive probability of `Contexts`, `raw` codes bits that are worth no model. docs/coding.md states
every step; the C engine repeats them.

State, both sides: `range` in [2^24, 2^32) between calls, renormalised a byte at a time. Encoder: `low` < 2^32 with
carries pushed into bytes already written. Decoder: `code` = value - low, always below `range`. The last three bytes of
a stream are zero by construction and not stored: a decoder needs exactly three bytes past the end, neither more
(truncated) nor fewer (something follows). The encoding is canonical: what decodes re-encodes to the same bytes.

Source: Martin 1979 (range encoding); Mahoney 2005 (adaptation by 1 / count).
"""

from __future__ import annotations

from ..errors import BadTable, Truncated

__all__ = ["Contexts", "RangeDecoder", "RangeEncoder"]

_TOP = 1 << 24
_MASK = (1 << 32) - 1
_UNSTORED_BYTES = 3
_MAX_COUNT = 255
_RELAXED_COUNT = 30
# A context that has seen n decisions moves 1 / (n + 1.8) of the way to the next one, in units of 2^-16.
_RATES = [655360 // (10 * count + 18) for count in range(_MAX_COUNT + 1)]


class Contexts:
    """Adaptive probabilities that a bit is 1, in units of 2^-16, and how many decisions each has seen (up to 255)."""

    __slots__ = ("count", "probability")

    def __init__(self, size: int) -> None:
        self.probability = [1 << 15] * size
        self.count = [0] * size

    def relax(self) -> None:
        """Keep the probabilities but let them adapt faster again, for a new layer."""
        self.count = [min(count, _RELAXED_COUNT) for count in self.count]


class RangeEncoder:
    """Writes decisions; `finish` returns the bytes."""

    __slots__ = ("_low", "_out", "_range")

    def __init__(self) -> None:
        self._low = 0
        self._range = _MASK
        self._out = bytearray()

    def bit(self, contexts: Contexts, index: int, value: int) -> int:
        """Code one decision (0 or 1) and adapt its context; returns the decision."""
        probability = contexts.probability[index]
        count = contexts.count[index]
        bound = (self._range >> 16) * probability
        if value:
            span = bound
            contexts.probability[index] = probability + (((65536 - probability) * _RATES[count] + 32768) >> 16)
        else:
            self._low += bound
            span = self._range - bound
            contexts.probability[index] = probability - ((probability * _RATES[count] + 32768) >> 16)
        if count < _MAX_COUNT:
            contexts.count[index] = count + 1
        self._range = span
        if span < _TOP:
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
        """Close the stream with the one value of [low, low + range) that is the lowest multiple of 2^24."""
        self._low = (self._low + _TOP - 1) & ~(_TOP - 1)
        self._shift()
        return bytes(self._out)

    def _renormalise(self) -> None:
        while self._range < _TOP:
            self._shift()
            self._range <<= 8

    def _shift(self) -> None:
        if self._low > _MASK:
            self._low &= _MASK
            position = len(self._out) - 1
            while self._out[position] == 255:
                self._out[position] = 0
                position -= 1
            self._out[position] += 1
        self._out.append(self._low >> 24)
        self._low = (self._low << 8) & _MASK


class RangeDecoder:
    """Reads the decisions that a `RangeEncoder` wrote, given the same contexts in the same order.

    Raises:
        BadTable: If no encoder writes such a beginning.
    """

    __slots__ = ("_code", "_data", "_position", "_range")

    def __init__(self, data: bytes) -> None:
        self._data = data + bytes(_UNSTORED_BYTES)
        self._code = int.from_bytes(self._data[:4].ljust(4, b"\0"), "big")
        self._position = 4
        self._range = _MASK
        if self._code >= self._range:
            raise BadTable("a weight stream starts with a value outside its range")

    def bit(self, contexts: Contexts, index: int, value: int = 0) -> int:
        """Decode one decision and adapt its context; `value` is not read.

        Raises:
            Truncated: If the stream ends before the decision.
        """
        probability = contexts.probability[index]
        count = contexts.count[index]
        bound = (self._range >> 16) * probability
        if self._code < bound:
            value = 1
            span = bound
            contexts.probability[index] = probability + (((65536 - probability) * _RATES[count] + 32768) >> 16)
        else:
            value = 0
            self._code -= bound
            span = self._range - bound
            contexts.probability[index] = probability - ((probability * _RATES[count] + 32768) >> 16)
        if count < _MAX_COUNT:
            contexts.count[index] = count + 1
        self._range = span
        if span < _TOP:
            self._renormalise()
        return value

    def raw(self, bits: int, value: int = 0) -> int:
        """Decode `bits` (0 to 8) equally likely bits; `value` is not read.

        Raises:
            Truncated: If the stream ends before the bits.
            BadTable: If no encoder writes such bits.
        """
        self._range >>= bits
        value = self._code // self._range
        if value >> bits:
            raise BadTable("a weight stream holds a value outside its range")
        self._code -= value * self._range
        if self._range < _TOP:
            self._renormalise()
        return value

    def finish(self) -> None:
        """Check that the stream ends here.

        Raises:
            Truncated: If bytes are missing.
            BadTable: If bytes follow, or no encoder ends a stream like this.
        """
        if self._position > len(self._data):
            raise Truncated("a weight stream ends before its last weight")
        if self._position < len(self._data) or self._code >= _TOP:
            raise BadTable("a weight stream goes on after its last weight")

    def _renormalise(self) -> None:
        try:
            while self._range < _TOP:
                self._code = (self._code << 8) | self._data[self._position]
                self._position += 1
                self._range <<= 8
        except IndexError:
            raise Truncated("a weight stream ends before its last weight") from None
