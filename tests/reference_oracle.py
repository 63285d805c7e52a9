"""The integer network a second time, slow and plain: Python loops over int64 arrays, straight from docs/format.md.

Shares nothing with `engine.reference` but `ArchSpec.graph()`.
"""

import struct

import numpy as np


def float32(value):
    """Round a number to the nearest float32, halves to even."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def round_half_even(value):
    return round(value)  # Python's own rule


def oracle_logits(network, image):
    """Class scores of one image (H, W, 3) as a list of floats; also every tensor as (C, H, W) int64."""
    spec = network.spec
    tensors = {"input": image.astype(np.int64).transpose(2, 0, 1)}
    zero = {"input": network.tensors["input"].zero_point}
    scale = {"input": network.tensors["input"].scale}
    for op in spec.graph():
        source = tensors[op.inputs[0]]
        if op.kind == "max_pool":
            tensors[op.output] = pool(source, op)
            zero[op.output], scale[op.output] = zero[op.inputs[0]], scale[op.inputs[0]]
            continue
        if not op.is_head:
            zero[op.output], scale[op.output] = network.tensors[op.output].zero_point, network.tensors[op.output].scale
        if op.kind == "add":
            tensors[op.output] = add(op, tensors, zero, scale)
            continue
        params = network.convs[op.name]
        sums = convolve(source, zero[op.inputs[0]], params.weight.astype(np.int64), params.bias.astype(np.int64), op)
        if op.is_head:
            if op.relu:
                sums = np.maximum(sums, 0)
            totals = [int(total) for total in sums.reshape(len(sums), -1).sum(axis=1)]
            positions = op.out_size * op.out_size
            return [total * float(m) / positions for total, m in zip(totals, params.multiplier, strict=True)], tensors
        y = np.empty_like(sums)
        for index, acc in np.ndenumerate(sums):
            product = float32(float32(int(acc)) * float(params.multiplier[index[0]]))
            y[index] = min(max(round_half_even(product) + zero[op.output], 0), 255)
        tensors[op.output] = np.concatenate([tensors[op.output], y]) if op.channel_offset else y
    raise AssertionError


def convolve(x, zero_point, weight, bias, op):
    padded = np.full((x.shape[0], op.in_size + 2 * op.padding, op.in_size + 2 * op.padding), zero_point, np.int64)
    padded[:, op.padding : op.padding + op.in_size, op.padding : op.padding + op.in_size] = x
    sums = np.empty((op.out_channels, op.out_size, op.out_size), np.int64)
    for row in range(op.out_size):
        for column in range(op.out_size):
            top, left = row * op.stride, column * op.stride
            window = padded[:, top : top + op.kernel, left : left + op.kernel] - zero_point
            sums[:, row, column] = (weight * window).sum(axis=(1, 2, 3)) + bias
    assert np.abs(sums).max() < 2**31
    return sums


def pool(x, op):
    y = np.empty((x.shape[0], op.out_size, op.out_size), np.int64)
    for row in range(op.out_size):
        for column in range(op.out_size):
            # Slices end at the edge: what hangs over it does not count.
            y[:, row, column] = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max(axis=(1, 2))
    return y


def add(op, tensors, zero, scale):
    y = np.empty_like(tensors[op.inputs[0]])
    factors = [float32(scale[name] / scale[op.output]) for name in op.inputs]
    for index in np.ndindex(y.shape):
        terms = [
            float32((int(tensors[name][index]) - zero[name]) * f) for name, f in zip(op.inputs, factors, strict=True)
        ]
        y[index] = min(max(round_half_even(float32(terms[0] + terms[1])) + zero[op.output], 0), 255)
    return y
