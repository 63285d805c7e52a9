"""`compressed_SqueezeNet.net`: the SqueezeNet authors' own Deep-Compression file, decoded exactly.

Layout, little-endian, for the 26 convolutions of SqueezeNet 1.0 in network order:

    uint32[26]            entries stored for each convolution
    then for each convolution:
        float32[256]      centroids; code 0 stands for 0.0 whatever the first says
        float32[out]      biases
        uint8[n]          one code an entry
        uint8[(n + 1)/2]  gaps of two entries a byte, low nibble first

The position of an entry in the flat (out, in, kernel, kernel) weights is the previous position + gap + 1, starting
from -1. Entries of code 0 fill gaps that are too long for four bits.

Source: Han et al. 2015 (relative index); the layout is that of the authors' decoder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..architectures import named_spec
from ..errors import WeightsError
from ..imports.bounded import read_bounded
from ..labels import imagenet_labels
from ..network import FloatConv
from ..preprocess import CAFFE_PREPROCESSING
from ..spec import ArchSpec, Op
from .squeezenet import SqueezeNet
from .tensors import model_from_convs

__all__ = ["NET_SPEC", "decode_net", "load_net"]

NET_SPEC: ArchSpec = named_spec("squeezenet1_0", input_size=CAFFE_PREPROCESSING.crop_size, head_padding=1)
"""The network that the file holds."""

_COUNT_BYTES = 4 * len(NET_SPEC.convs)
_CENTROIDS = 256


def load_net(path: str | os.PathLike[str]) -> SqueezeNet:
    """Read the authors' network, with its first layer converted from BGR to RGB.

    Raises:
        WeightsError: If the file cannot be read or breaks the layout.
    """
    data = read_bounded(path, max_bytes=_file_bytes(_n_weights(op) for op in NET_SPEC.convs))
    try:
        convs = decode_net(data)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    stem = convs["conv1"]
    convs["conv1"] = FloatConv(stem.weight[:, ::-1].copy(), stem.bias)  # Caffe's channels are B, G, R
    model = model_from_convs(NET_SPEC, convs, source=str(path))
    model.labels, model.preprocessing = imagenet_labels(), CAFFE_PREPROCESSING
    model.provenance = {"source": "compressed_SqueezeNet.net"}
    return model


def decode_net(data: bytes) -> dict[str, FloatConv[NDArray[np.float32]]]:
    """Decode the file's bytes without conversion, with channels in Caffe's order.

    Returns:
        Weights and biases by the names of `NET_SPEC.convs`.

    Raises:
        WeightsError: If the bytes are too few or too many, or place a weight outside its layer.
    """
    if len(data) < _COUNT_BYTES:
        raise WeightsError(f"expected {_COUNT_BYTES} bytes of counts, got a file of {len(data)}")
    counts = np.frombuffer(data, "<u4", len(NET_SPEC.convs)).tolist()
    for op, count in zip(NET_SPEC.convs, counts, strict=True):
        if count > _n_weights(op):
            raise WeightsError(f"{op.name}: expected at most {_n_weights(op)} entries, got {count}")
    if len(data) != _file_bytes(counts):
        raise WeightsError(f"expected {_file_bytes(counts)} bytes by the file's own counts, got {len(data)}")
    convs, offset = {}, _COUNT_BYTES
    for op, count in zip(NET_SPEC.convs, counts, strict=True):
        convs[op.name] = _decode_conv(data, offset, op, count)
        offset += _conv_bytes(op, count)
    return convs


def _decode_conv(data: bytes, offset: int, op: Op, count: int) -> FloatConv[NDArray[np.float32]]:
    floats = np.frombuffer(data, "<f4", _CENTROIDS + op.out_channels, offset).astype(np.float32)
    centroids, biases = floats[:_CENTROIDS], floats[_CENTROIDS:]
    centroids[0] = 0.0
    offset += 4 * floats.size
    codes = np.frombuffer(data, np.uint8, count, offset)
    packed = np.frombuffer(data, np.uint8, (count + 1) // 2, offset + count)
    gaps = np.stack([packed & 15, packed >> 4], axis=1).ravel()[:count]
    positions = np.cumsum(gaps.astype(np.int64) + 1) - 1
    weights = np.zeros(_n_weights(op), np.float32)
    if count and positions[-1] >= weights.size:  # positions grow, so the last is the largest
        raise WeightsError(f"{op.name}: expected positions below {weights.size}, got {positions[-1]}")
    weights[positions] = centroids[codes]
    return FloatConv(weights.reshape(op.out_channels, op.in_channels, op.kernel, op.kernel), biases)


def _n_weights(op: Op) -> int:
    return op.params - op.out_channels


def _conv_bytes(op: Op, count: int) -> int:
    return 4 * (_CENTROIDS + op.out_channels) + count + (count + 1) // 2


def _file_bytes(counts: Iterable[int]) -> int:
    return _COUNT_BYTES + sum(_conv_bytes(op, count) for op, count in zip(NET_SPEC.convs, counts, strict=True))
