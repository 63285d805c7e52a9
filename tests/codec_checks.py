"""Layers for the weight coder, and the check that all of them go through."""

import numpy as np

from squeezenet.codec.weights import decode_convs, encode_convs
from squeezenet.network import ConvParams
from squeezenet.spec import Op


def conv_op(out_channels: int, in_channels: int, kernel: int, name: str = "conv") -> Op:
    return Op(
        name=name, kind="conv", inputs=("x",), output=name, in_channels=in_channels, out_channels=out_channels,
        in_size=16, out_size=16, kernel=kernel,
    )  # fmt: skip


def conv_params(weight, bias=None, multiplier=None) -> ConvParams:
    count = len(weight)
    return ConvParams(
        np.asarray(weight, np.int8),
        np.zeros(count, np.int32) if bias is None else np.asarray(bias, np.int32),
        np.full(count, 2.0**-8, np.float32) if multiplier is None else np.asarray(multiplier, np.float32),
    )


def check_round_trip(*layers: ConvParams) -> list[bytes]:
    """Encode the layers as one network, compare what comes back, return the streams."""
    ops = [conv_op(*params.weight.shape[:3], name=f"conv{index}") for index, params in enumerate(layers)]
    streams = encode_convs(ops, {op.name: params for op, params in zip(ops, layers, strict=True)})
    decoded = decode_convs(ops, streams)
    for op, params in zip(ops, layers, strict=True):
        for field in ("weight", "bias", "multiplier"):
            expected, got = getattr(params, field), getattr(decoded[op.name], field)
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
    return streams


def laplacian(shape: tuple[int, ...], scale: float, seed: int) -> np.ndarray:
    return np.clip(np.rint(np.random.default_rng(seed).laplace(0, scale, shape)), -127, 127).astype(np.int8)
