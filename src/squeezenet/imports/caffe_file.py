"""Caffe: the layers and weights of a `.caffemodel`, of either generation.

The file of a trained network is complete: it has kernels, strides and padding as well as weights. Layers may overwrite
their input, so each output gets a new name here.

Source: Caffe's caffe.proto (field numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..preprocess import CAFFE_PREPROCESSING, Preprocessing
from ..spec import MAX_WEIGHTS
from ..text import printable
from .conventions import CONVENTIONS, Convention, GraphFile
from .graph import Floats, Graph, Node
from .protobuf_schema import Fields, parse

__all__ = ["read_caffe"]

_WINDOWS: Fields = {
    "Convolution": {
        "pad": (3, "uint32*"), "kernel_size": (4, "uint32*"), "group": (5, "uint32"), "stride": (6, "uint32*"),
        "pad_h": (9, "uint32"), "pad_w": (10, "uint32"), "kernel_h": (11, "uint32"), "kernel_w": (12, "uint32"),
        "stride_h": (13, "uint32"), "stride_w": (14, "uint32"), "dilation": (18, "uint32*"),
    },
    "Pooling": {
        "pool": (1, "int32"), "kernel_size": (2, "uint32"), "stride": (3, "uint32"), "pad": (4, "uint32"),
        "kernel_h": (5, "uint32"), "kernel_w": (6, "uint32"), "stride_h": (7, "uint32"), "stride_w": (8, "uint32"),
        "pad_h": (9, "uint32"), "pad_w": (10, "uint32"), "global_pooling": (12, "bool"), "round_mode": (13, "int32"),
    },
    "Concat": {"concat_dim": (1, "uint32"), "axis": (2, "int32")},
    "Eltwise": {"operation": (1, "int32"), "coeff": (2, "float*")},
}  # fmt: skip
_SCHEMA: Fields = {
    **_WINDOWS,
    "Net": {
        "name": (1, "string"), "layers": (2, "OldLayer*"), "input": (3, "string*"), "input_dim": (4, "int32*"),
        "input_shape": (8, "Shape*"), "layer": (100, "Layer*"),
    },
    "Layer": {
        "name": (1, "string"), "type": (2, "string"), "bottom": (3, "string*"), "top": (4, "string*"),
        "blobs": (7, "Blob*"), "transform_param": (100, "Transform"), "concat_param": (104, "Concat"),
        "convolution_param": (106, "Convolution"), "eltwise_param": (110, "Eltwise"), "pooling_param": (121, "Pooling"),
        "batch_norm_param": (139, "BatchNorm"), "input_param": (143, "Input"),
    },
    "OldLayer": {
        "bottom": (2, "string*"), "top": (3, "string*"), "name": (4, "string"), "type": (5, "int32"),
        "blobs": (6, "Blob*"), "concat_param": (9, "Concat"), "convolution_param": (10, "Convolution"),
        "pooling_param": (19, "Pooling"), "eltwise_param": (24, "Eltwise"), "transform_param": (36, "Transform"),
    },
    "Transform": {"scale": (1, "float"), "crop_size": (3, "uint32"), "mean_value": (5, "float*")},
    "BatchNorm": {"eps": (3, "float")},
    "Input": {"shape": (1, "Shape*")},
    "Shape": {"dim": (1, "int64*")},
    "Blob": {
        "num": (1, "int32"), "channels": (2, "int32"), "height": (3, "int32"), "width": (4, "int32"),
        "data": (5, "float*"), "shape": (7, "Shape"), "double_data": (8, "double*"),
    },
}  # fmt: skip
_OLD_TYPES = {
    1: "Accuracy", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 12: "ImageData", 14: "InnerProduct",
    15: "LRN", 17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 25: "Eltwise",
}  # fmt: skip
_SOURCES = ("Data", "ImageData", "Input", "HDF5Data", "DummyData", "MemoryData")
_ENDS = ("Accuracy", "SoftmaxWithLoss", "Silence")
_IDENTITIES = ("Dropout", "Split", "Softmax", "Flatten")
_INPUT_SIZE = 227
_EPSILON = 1e-5


def read_caffe(path: Path) -> GraphFile:
    """Read the layers of a `.caffemodel`.

    Raises:
        WeightsError: If it is not such a file.
        MissingDependencyError: If `protobuf` is not installed.
    """
    net = parse(path, _SCHEMA, "Net", what="a .caffemodel")
    source, layers = str(path), [*net.layer, *net.layers]
    if not layers:
        raise WeightsError("expected a .caffemodel, got a file without layers", source=path)
    convention, origin = CONVENTIONS["caffe"], "that of Caffe's SqueezeNets"
    image, size = (net.input[0] if net.input else ""), _side(list(net.input_dim), [*net.input_shape])
    nodes, current = list[Node](), {name: name for name in net.input}
    for number, layer in enumerate(layers):
        kind = layer.type if isinstance(layer.type, str) else _OLD_TYPES.get(layer.type, f"type {layer.type}")
        if kind in _SOURCES:
            if not image and layer.top:
                image = layer.top[0]
                current[image] = image
                size = (
                    size
                    or layer.transform_param.crop_size
                    or _side([], [*getattr(layer, "input_param", layer).shape] if kind == "Input" else [])
                )
                convention, origin = _transformed(layer.transform_param, convention, origin)
        elif kind not in _ENDS:
            inputs = [current.get(name, name) for name in layer.bottom]
            outputs = {name: f"{name}#{number}" for name in layer.top}
            nodes += _nodes(layer, kind, inputs, [*outputs.values()], source)
            current |= outputs
    graph = Graph(nodes, image or "data", source, size or _INPUT_SIZE)
    return GraphFile(graph, "Caffe", convention, origin)


def _side(dims: list[int], shapes: list[Any]) -> int | None:
    dims = list(shapes[0].dim) if shapes else dims
    return dims[2] if len(dims) >= 4 and dims[2] == dims[3] else None


def _transformed(transform: Any, convention: Convention, origin: str) -> tuple[Convention, str]:
    """Read the mean and the factor from the data layer that was used for training."""
    means = list(transform.mean_value)
    if len(means) not in (1, 3):
        return convention, origin
    scale = transform.scale or 1.0
    blue, green, red = means * 3 if len(means) == 1 else means
    if not (0 < scale < math.inf and all(map(math.isfinite, means))):
        return convention, origin
    how = CAFFE_PREPROCESSING
    own = Preprocessing(
        resize_size=how.resize_size, crop_size=how.crop_size, resize_mode=how.resize_mode, mean=(red, green, blue),
        std=(1 / scale,) * 3,
    )  # fmt: skip
    return Convention(name="its own", preprocessing=own, is_bgr=True), "in the file's data layer"


def _nodes(layer: Any, kind: str, inputs: list[str], outputs: list[str], source: str) -> Iterator[Node]:
    name = layer.name
    if kind in _IDENTITIES:
        for output in outputs:
            yield Node("identity", inputs, output, name)
        return
    if len(outputs) != 1 or not inputs:
        raise WeightsError(f"{printable(name[:80])}: expected a layer with inputs and one output", source=source)
    node = Node({"ReLU": "relu", "Concat": "concat", "Eltwise": "add"}.get(kind, kind), inputs, outputs[0], name)
    if kind == "Concat":
        node.is_plain = layer.concat_param.axis in (0, 1) and layer.concat_param.concat_dim in (0, 1)
    elif kind == "Eltwise":
        is_sum = not layer.HasField("eltwise_param") or layer.eltwise_param.operation in (0, 1)
        node.is_plain = is_sum and set(layer.eltwise_param.coeff) <= {1.0}
        if layer.eltwise_param.HasField("operation") and layer.eltwise_param.operation != 1:
            node.kind = "Eltwise"
    elif kind == "Convolution":
        node.kind = "conv"
        _window(node, layer.convolution_param)
        node.is_plain = layer.convolution_param.group in (0, 1) and set(layer.convolution_param.dilation) <= {1}
        blobs = [_blob(blob, name, source) for blob in layer.blobs[:2]]
        node.weight = blobs[0] if blobs else None
        node.bias = blobs[1].reshape(-1) if len(blobs) > 1 else None
    elif kind == "Pooling":
        pool = layer.pooling_param
        _window(node, pool)
        node.kind = "max_pool" if pool.pool == 0 else "average_pool" if pool.pool == 1 else kind
        if pool.global_pooling and pool.pool == 1:
            node.kind = "mean"
        node.ceil_mode = pool.round_mode == 0
    elif kind in ("BatchNorm", "Scale"):
        _norm(node, layer, kind, source)
    yield node


def _window(node: Node, fields: Any) -> None:
    def pair(name: str, default: int) -> tuple[int, int]:
        stem = "kernel" if name == "kernel_size" else name
        sides = (getattr(fields, f"{stem}_h"), getattr(fields, f"{stem}_w"))
        if any(sides):
            return sides
        given = getattr(fields, name)
        listed = list(given) if not isinstance(given, int) else [given] * (given != 0)
        return (listed[0], listed[-1]) if listed else (default, default)

    node.kernel, node.stride = pair("kernel_size", 1), pair("stride", 1)
    height, width = pair("pad", 0)
    node.pads = (height, width, height, width)


def _blob(blob: Any, name: str, source: str) -> Floats:
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    values = np.array(blob.data if len(blob.data) else blob.double_data, np.float32)
    if len(shape) > 8 or min(shape, default=0) < 0 or not math.prod(shape) == values.size <= MAX_WEIGHTS:
        raise WeightsError(
            f"{printable(name[:80])}: expected values for the shape {shape[:8]}, got {values.size}", source=source
        )
    return values.reshape(shape)


def _norm(node: Node, layer: Any, kind: str, source: str) -> None:
    blobs = [_blob(blob, layer.name, source).reshape(-1).astype(np.float64) for blob in layer.blobs]
    if kind == "BatchNorm" and len(blobs) == 3 and blobs[0].size == blobs[1].size and blobs[2].size == 1:
        count = blobs[2][0] or 1.0
        epsilon = layer.batch_norm_param.eps or _EPSILON
        with np.errstate(all="ignore"):  # what is not finite is refused later
            factor = 1 / np.sqrt(blobs[1] / count + epsilon)
            node.bias = (-blobs[0] / count * factor).astype(np.float32)
        node.kind, node.weight = "affine", factor.astype(np.float32)
    elif kind == "Scale" and blobs and all(blob.size == blobs[0].size for blob in blobs):
        offset = blobs[1] if len(blobs) > 1 else 0 * blobs[0]
        node.kind, node.weight, node.bias = "affine", blobs[0].astype(np.float32), offset.astype(np.float32)
