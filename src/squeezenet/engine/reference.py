"""The normative engine: the integer network in NumPy, exact through BLAS.

Convolutions are matrix products of integer-valued floats: float32 while no partial sum can reach 2^24, whatever order
BLAS adds in, else float64. docs/format.md states the arithmetic; every other engine must give the same bits.

Legend: N images, H and W height and width, C channels, P positions (N*H*W), K products per sum, O output channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..network import IntegerNetwork, TensorQuant, largest_sum
from ..spec import Op

__all__ = ["ReferenceEngine"]

# Images are taken in groups whose unfolded inputs stay within a few megabytes, and so are the rows of an image that is
# larger than that, which is both faster and bounded.
_COLUMN_BYTES = 32 << 20
_EXACT_IN_FLOAT32 = 1 << 24


@dataclass(frozen=True)
class _Conv:
    """One convolution, laid out for a matrix product."""

    op: Op
    w_KO: NDArray[np.floating]
    """Integer-valued; float32 where that is exact, else float64."""
    bias: NDArray[np.floating]
    multiplier: NDArray[np.float32]
    in_zero: int
    out_zero: int

    @classmethod
    def build(cls, network: IntegerNetwork, op: Op) -> _Conv:
        params = network.convs[op.name]
        dtype = np.float32 if largest_sum(params) < _EXACT_IN_FLOAT32 else np.float64
        return cls(
            op=op,
            w_KO=np.ascontiguousarray(params.weight.transpose(2, 3, 1, 0).reshape(-1, op.out_channels), dtype=dtype),
            bias=params.bias.astype(dtype),
            multiplier=params.multiplier,
            in_zero=network.tensor(op.inputs[0]).zero_point,
            out_zero=0 if op.is_head else network.tensor(op.output).zero_point,
        )

    def sums(self, x_NHWC: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Exact sums with bias, in bands of output rows.

        Yields:
            The band and its sums, shape (N, band, W, O).
        """
        op = self.op
        row_bytes = len(x_NHWC) * op.out_size * max(op.products_per_sum, op.out_channels) * self.w_KO.itemsize
        height = max(1, _COLUMN_BYTES // row_bytes)
        for top in range(0, op.out_size, height):
            band = slice(top, min(top + height, op.out_size))
            acc = self._unfold(x_NHWC, band) @ self.w_KO
            acc += self.bias
            yield band, acc.reshape(len(x_NHWC), band.stop - band.start, op.out_size, op.out_channels)

    def _unfold(self, x_NHWC: NDArray[np.uint8], band: slice) -> NDArray[np.floating]:
        """Inputs of a band of output rows, one row of the result for each position, one column for each product."""
        op, dtype = self.op, self.w_KO.dtype
        top = op.stride * band.start - op.padding
        bottom = op.stride * (band.stop - 1) - op.padding + op.kernel
        x = x_NHWC[:, max(0, top) : bottom].astype(dtype)
        if self.in_zero:
            x -= self.in_zero
        if op.padding:  # padding is the zero-point, which is 0 here
            above, below = max(0, -top), max(0, bottom - op.in_size)
            x = np.pad(x, ((0, 0), (above, below), (op.padding, op.padding), (0, 0)))
        if op.kernel == 1 and op.stride == 1:
            return x.reshape(-1, op.in_channels)
        height = band.stop - band.start
        down, across = (op.stride * (count - 1) + 1 for count in (height, op.out_size))
        windows = np.empty((len(x), height, op.out_size, op.kernel, op.kernel, op.in_channels), dtype)
        for row in range(op.kernel):
            for column in range(op.kernel):
                windows[:, :, :, row, column] = x[:, row : row + down : op.stride, column : column + across : op.stride]
        return windows.reshape(-1, op.products_per_sum)


class ReferenceEngine:
    """Runs an `IntegerNetwork` on raw pixels."""

    def __init__(self, network: IntegerNetwork) -> None:
        self.network = network
        self._convs = {op.name: _Conv.build(network, op) for op in network.spec.convs}
        self._head = self._convs[network.spec.head_name]
        widest = max(
            conv.op.out_size**2 * conv.op.products_per_sum * conv.w_KO.itemsize for conv in self._convs.values()
        )
        self._group = max(1, _COLUMN_BYTES // widest)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores.

        Args:
            pixels: Raw RGB, shape (N, H, W, 3), uint8, H = W = the network's input size.

        Returns:
            Shape (N, classes), float64; bit-identical on every engine.
        """
        return self.outputs(pixels)[0]

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Compute what the head reads, minus its zero-point, summed over positions.

        Returns:
            Shape (N, channels of the last Fire module), int64; bit-identical on every engine.
        """
        sums = np.empty((self.network.check_pixels(pixels), self.network.spec.num_features), np.int64)
        for images, map_NHWC in self._features(pixels):
            sums[images] = self._sum(map_NHWC)
        return sums

    def outputs(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Compute class scores and features in one run."""
        head = self._head
        count = self.network.check_pixels(pixels)
        totals = np.zeros((count, head.op.out_channels))
        sums = np.empty((count, self.network.spec.num_features), np.int64)
        for images, map_NHWC in self._features(pixels):
            sums[images] = self._sum(map_NHWC)
            for _, acc in self._head_sums(map_NHWC):
                # Whole numbers below 2^53, so their order does not matter.
                totals[images] += acc.sum(axis=(1, 2), dtype=np.float64)
        return totals * head.multiplier.astype(np.float64) / head.op.out_size**2, sums

    def _sum(self, map_NHWC: NDArray[np.uint8]) -> NDArray[np.int64]:
        positions = map_NHWC.shape[1] * map_NHWC.shape[2]
        sums: NDArray[np.int64] = map_NHWC.sum(axis=(1, 2), dtype=np.int64)
        sums -= positions * self._head.in_zero
        return sums

    def activation_map(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation map: the tensor whose mean over positions is `logits`.

        Args:
            pixels: As for `logits`.

        Returns:
            Shape (N, h, w, classes), float64, one map a class.

        Source: Zhou et al. 2016; exact here because conv10 is followed by the average alone.
        """
        head = self._head
        side = head.op.out_size
        maps = np.empty((self.network.check_pixels(pixels), side, side, head.op.out_channels))
        for images, features in self._features(pixels):
            for band, acc in self._head_sums(features):
                maps[images, band] = acc
        maps *= head.multiplier
        return maps

    def tensors(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        """Compute every uint8 tensor of the graph, by name, for checks against other engines."""
        self.network.check_pixels(pixels)
        found: dict[str, NDArray[np.uint8]] = {}
        self._run(pixels, found.__setitem__)
        del found[self._head.op.output]
        return found

    def _features(self, pixels: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
        """Run all but the head, group by group; yields which images and the tensor that the head reads."""
        for start in range(0, len(pixels), self._group):
            images = slice(start, start + self._group)
            yield images, self._run(pixels[images])

    def _head_sums(self, features: NDArray[np.uint8]) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        for band, acc in self._head.sums(features):
            yield band, np.maximum(acc, 0, out=acc) if self._head.op.relu else acc

    def _run(
        self, pixels: NDArray[np.uint8], see: Callable[[str, NDArray[np.uint8]], None] = lambda name, value: None
    ) -> NDArray[np.uint8]:
        """The tensor that the head reads."""
        return self.network.spec.walk(
            pixels, conv=self._convolve, pool=lambda op, x: _max_pool(x, op), add=self._add,
            join=lambda op, a, b: np.concatenate((a, b), axis=3), see=see,
        )  # fmt: skip

    def _convolve(self, op: Op, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if op.is_head:
            return x  # `_head_sums` goes on
        conv, y = self._convs[op.name], np.empty((len(x), op.out_size, op.out_size, op.out_channels), np.uint8)
        for band, acc in conv.sums(x):
            y[:, band] = _requantize(acc, conv.multiplier, conv.out_zero)
        return y

    def _add(self, op: Op, *inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        out = self.network.tensor(op.output)
        y, quants = np.empty_like(inputs[0]), [self.network.tensor(name) for name in op.inputs]
        height = max(1, _COLUMN_BYTES // (4 * y[:, 0].size))
        for top in range(0, op.out_size, height):
            band = slice(top, top + height)
            terms = [_rescale(x[:, band], quant, out) for x, quant in zip(inputs, quants, strict=True)]
            y[:, band] = _round_and_clamp(terms[0] + terms[1], out.zero_point)
        return y


def _rescale(x: NDArray[np.uint8], quant: TensorQuant, out: TensorQuant) -> NDArray[np.float32]:
    """One float32 product: (x - zero) in steps of the output tensor."""
    values = x.astype(np.float32)
    values -= np.float32(quant.zero_point)
    values *= np.float32(quant.scale / out.scale)  # a float64 quotient, rounded once
    return values


def _requantize(acc: NDArray[np.floating], multiplier: NDArray[np.float32], zero: int) -> NDArray[np.uint8]:
    scaled = acc.astype(np.float32, copy=False)  # the one int -> float rounding; exact below 2^24
    scaled *= multiplier
    return _round_and_clamp(scaled, zero)


def _round_and_clamp(values: NDArray[np.float32], zero: int) -> NDArray[np.uint8]:
    np.rint(values, out=values)
    np.clip(values, -zero, 255 - zero, out=values)
    values += zero
    return values.astype(np.uint8)


def _max_pool(x_NHWC: NDArray[np.uint8], op: Op) -> NDArray[np.uint8]:
    # Windows of a pool that rounds up may hang over the edge; 0 is neutral for a maximum of uint8.
    size = op.stride * (op.out_size - 1) + op.kernel
    overhang = max(0, size - op.in_size)
    x = np.pad(x_NHWC, ((0, 0), (0, overhang), (0, overhang), (0, 0))) if overhang else x_NHWC
    span = op.stride * (op.out_size - 1) + 1
    rows = x[:, 0 : span : op.stride]
    for row in range(1, op.kernel):
        rows = np.maximum(rows, x[:, row : row + span : op.stride])
    y = rows[:, :, 0 : span : op.stride]
    for column in range(1, op.kernel):
        y = np.maximum(y, rows[:, :, column : column + span : op.stride])
    return y
