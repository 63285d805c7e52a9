"""ONNX: the model zoo's files, torch's exports, this package's own; in floats or quantised.

Quantised weights become the numbers that they stand for. A quantisation of activations whose smallest value is zero
cuts off what is below, which is a ReLU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SqueezeNetError, WeightsError
from ..labels import Labels
from ..preprocess import Preprocessing
from ..spec import MAX_WEIGHTS
from ..text import printable
from .conventions import CONVENTIONS, Convention, GraphFile, left_behind
from .graph import MAX_NODES, SAME, Floats, Graph, Node
from .protobuf_schema import Fields, parse

__all__ = ["read_onnx"]

_SCHEMA: Fields = {
    "Model": {"producer_name": (2, "string"), "graph": (7, "Graph"), "metadata_props": (14, "Entry*")},
    "Entry": {"key": (1, "bytes"), "value": (2, "bytes")},
    "Graph": {
        "node": (1, "Node*"), "initializer": (5, "Tensor*"), "input": (11, "Value*"), "output": (12, "Value*"),
    },
    "Node": {
        "input": (1, "string*"), "output": (2, "string*"), "name": (3, "string"), "op_type": (4, "string"),
        "attribute": (5, "Attribute*"),
    },
    "Attribute": {
        "name": (1, "string"), "f": (2, "float"), "i": (3, "int64"), "s": (4, "bytes"), "t": (5, "Tensor"),
        "floats": (7, "float*"), "ints": (8, "int64*"),
    },
    "Tensor": {
        "dims": (1, "int64*"), "data_type": (2, "int32"), "float_data": (4, "float*"), "int32_data": (5, "int32*"),
        "int64_data": (7, "int64*"), "name": (8, "string"), "raw_data": (9, "bytes"), "double_data": (10, "double*"),
        "data_location": (14, "int32"),
    },
    "Value": {"name": (1, "string"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "TensorType")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dimension*")},
    "Dimension": {"dim_value": (1, "int64")},
}  # fmt: skip
# data_type -> dtype, and the field for values that are not raw.
_DTYPES = {
    1: ("<f4", "float_data"), 2: ("u1", "int32_data"), 3: ("i1", "int32_data"), 6: ("<i4", "int32_data"),
    7: ("<i8", "int64_data"), 10: ("<f2", "int32_data"), 11: ("<f8", "double_data"), 16: ("<u2", "int32_data"),
}  # fmt: skip
_BFLOAT16 = 16
_IDENTITIES = (
    "Identity", "Dropout", "Flatten", "Reshape", "Softmax", "LogSoftmax", "Squeeze", "Cast", "DequantizeLinear",
)  # fmt: skip
_LAYOUT_CHANGES = ([0, 3, 1, 2], [0, 2, 3, 1])
_SMALLEST = {np.dtype("u1"): 0, np.dtype("i1"): -128}

Array = NDArray[Any]


def read_onnx(path: Path) -> GraphFile:
    """Read the graph of an ONNX file.

    Raises:
        WeightsError: If it is not an ONNX file, or its weights are elsewhere.
        MissingDependencyError: If `protobuf` is not installed.
    """
    model = parse(path, _SCHEMA, "Model", what="an ONNX file")
    reader = _Reader(model.graph, str(path))
    graph = reader.graph()
    entries = {entry.key.decode("utf-8", "replace"): entry.value for entry in model.metadata_props}
    own = entries if model.producer_name == "squeezenet" else {}
    convention, origin = _convention(own, graph.input, reader.conv_names)
    labels = _own(Labels.from_dict, own["labels"]) if "labels" in own else None
    facts = {name: _own(lambda value: value, text) for name, text in own.items()}
    names = (
        "this package" if origin.endswith("metadata") else origin.removeprefix("that of ").removesuffix("'s networks")
    )
    return GraphFile(
        graph, names if names != "a guess" else "its own", convention, origin, labels, left_behind(facts)
    )  # fmt: skip


def _convention(own: Mapping[str, bytes], image: str, conv_names: Sequence[str]) -> tuple[Convention, str]:
    """Preprocessing, and how it is known: by the metadata of our own files, or by the names of known ones."""
    how = _own(Preprocessing.from_dict, own["preprocessing"]) if "preprocessing" in own else None
    if how is not None:
        return Convention(name="its own", preprocessing=how), "in the file's metadata"
    if image == "data_0" and "conv1_w_0" in conv_names:
        return CONVENTIONS["raw"], "that of the ONNX zoo's 1.0 networks"
    if any(name.startswith("squeezenet0_conv") for name in conv_names):
        return CONVENTIONS["torchvision"], "that of the ONNX zoo's 1.1 networks"
    if any(name.endswith("features.0.weight") for name in conv_names):
        return CONVENTIONS["torchvision"], "that of torchvision's networks"
    return CONVENTIONS["torchvision"], "a guess"


def _own(build: Any, text: bytes) -> Any:
    try:
        return build(json.loads(text))
    except (ValueError, SqueezeNetError, RecursionError, TypeError):
        return None  # somebody changed the file: it is an import like any other


class _Reader:
    """One graph, with its constants by name."""

    def __init__(self, graph: Any, source: str) -> None:
        self._graph, self._source = graph, source
        if len(graph.node) > MAX_NODES:
            raise WeightsError(f"expected at most {MAX_NODES} operations, got {len(graph.node)}", source=source)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._constants = dict[str, Array]()
        self._producers = {name: node.op_type for node in graph.node for name in node.output}
        self.conv_names = list[str]()
        """Names of the convolutions' weights."""

    def graph(self) -> Graph:
        inputs = [value for value in self._graph.input if value.name not in self._tensors]
        if not inputs:
            raise WeightsError("this is not a SqueezeNet: expected an input, got a graph without", source=self._source)
        nodes = [found for node in self._graph.node if (found := self._node(node)) is not None]
        read = {name for node in nodes for name in node.inputs}
        image = next((value for value in inputs if value.name in read), inputs[0])
        return Graph(nodes, image.name, self._source, _input_size(image))

    def _node(self, node: Any) -> Node | None:
        """The operation, or None for one that makes a constant."""
        kind, inputs, outputs = node.op_type, list(node.input), list(node.output)
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if not outputs:
            return None
        if self._is_constant(kind, inputs, outputs[0], attributes):
            return None
        name = node.name or outputs[0]
        if kind in ("Conv", "QLinearConv", "MaxPool", "AveragePool"):
            return self._window(kind, name, inputs, outputs[0], attributes)
        activations = [part for part in inputs if part and not self._has(part)]
        plain = self._plain(kind, inputs, attributes)
        if kind == "QuantizeLinear":
            is_relu = self._producers.get(inputs[0]) == "Conv" and self._cuts(inputs[2] if len(inputs) > 2 else "")
            return Node("relu" if is_relu else "identity", activations, outputs[0], name)
        if kind == "BatchNormalization" and len(inputs) == 5 and all(map(self._has, inputs[1:])):
            return self._norm(name, inputs, outputs[0], attributes)
        if kind in ("Mul", "Add", "Sub", "Div") and len(activations) == 1 and len(inputs) == 2:
            return self._affine(kind, name, inputs, outputs[0])
        return Node(plain, activations, outputs[0], name, is_plain=plain == "concat" or kind not in _OWN_KINDS)

    def _plain(self, kind: str, inputs: list[str], attributes: dict[str, Any]) -> str:
        ints = {name: list(attribute.ints) or [attribute.i] for name, attribute in attributes.items()}
        if kind in _IDENTITIES or (kind == "Transpose" and ints.get("perm") in _LAYOUT_CHANGES):
            return "identity"
        if kind == "ReduceMean":
            axes = ints.get("axes") or (self._constant(inputs[1]).tolist() if len(inputs) > 1 else [])
            return "mean" if sorted(axes) in ([2, 3], [-2, -1]) else kind
        if kind in ("Concat", "QLinearConcat") and ints.get("axis") not in ([1], [-3]):
            return kind
        return {
            "Relu": "relu", "GlobalAveragePool": "mean", "QLinearGlobalAveragePool": "mean", "Concat": "concat",
            "QLinearConcat": "concat", "Add": "add", "Sum": "add", "QLinearAdd": "add",
        }.get(kind, kind)  # fmt: skip

    def _window(self, kind: str, name: str, inputs: list[str], output: str, attributes: dict[str, Any]) -> Node:
        """A convolution or a pool."""
        ints = {key: tuple(attribute.ints) for key, attribute in attributes.items()}
        auto = attributes["auto_pad"].s if "auto_pad" in attributes else b"NOTSET"
        pads = ints.get("pads") or (0, 0, 0, 0)
        found = Node({"MaxPool": "max_pool", "AveragePool": "average_pool"}.get(kind, "conv"), inputs[:1], output, name)
        stride, kernel = ints.get("strides") or (1, 1), ints.get("kernel_shape") or (1, 1)
        if len(stride) != 2 or len(kernel) != 2 or len(pads) != 4 or min(*stride, *kernel) < 1:
            raise WeightsError(f"{printable(name[:80])}: expected windows of two dimensions", source=self._source)
        found.stride, found.kernel = (stride[0], stride[1]), (kernel[0], kernel[1])
        found.pads = SAME if auto == b"SAME_UPPER" else (pads[0], pads[1], pads[2], pads[3])
        found.ceil_mode = "ceil_mode" in attributes and attributes["ceil_mode"].i == 1
        found.is_plain = (
            auto != b"SAME_LOWER"
            and set(ints.get("dilations") or (1,)) == {1}
            and ("group" not in attributes or attributes["group"].i == 1)
        )
        if kind == "Conv":
            self.conv_names.append(inputs[1])
            found.weight = self._floats(inputs[1])
            found.bias = self._floats(inputs[2]) if len(inputs) > 2 and inputs[2] else None
        elif kind == "QLinearConv":
            self._quantized(found, inputs)
        return found

    def _quantized(self, node: Node, inputs: list[str]) -> None:
        if len(inputs) < 8:
            raise WeightsError(
                f"{printable(node.name[:80])}: expected 8 inputs, got {len(inputs)}", source=self._source
            )
        weight, scale, zero_point = (self._constant(name) for name in inputs[3:6])
        self.conv_names.append(inputs[3].removesuffix("_quantized"))
        node.weight = _dequantized(weight, scale, zero_point, 0)
        node.relu = self._cuts(inputs[7])
        if len(inputs) > 8 and inputs[8]:
            steps = scale.astype(np.float64) * self._constant(inputs[1]).astype(np.float64)
            node.bias = (self._constant(inputs[8]) * steps).astype(np.float32)

    def _norm(self, name: str, inputs: list[str], output: str, attributes: dict[str, Any]) -> Node:
        scale, shift, mean, variance = (self._constant(part).astype(np.float64).reshape(-1) for part in inputs[1:])
        if not scale.size == shift.size == mean.size == variance.size:
            raise WeightsError(f"{printable(name[:80])}: expected as many means as variances", source=self._source)
        epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
        with np.errstate(all="ignore"):  # what is not finite is refused later
            factor = scale / np.sqrt(variance + epsilon)
        offset = (shift - mean * factor).astype(np.float32)
        return Node("affine", inputs[:1], output, name, weight=factor.astype(np.float32), bias=offset)

    def _affine(self, kind: str, name: str, inputs: list[str], output: str) -> Node:
        position = 1 if self._has(inputs[1]) else 0
        values = self._floats(inputs[position])
        if max(values.shape, default=1) != values.size or (position == 0 and kind in ("Sub", "Div")):
            return Node(kind, [inputs[1 - position]], output, name)
        values = values.reshape(-1)
        with np.errstate(all="ignore"):
            factor = values if kind == "Mul" else (1 / values if kind == "Div" else 0 * values + 1).astype(np.float32)
        offset = values if kind == "Add" else -values if kind == "Sub" else np.zeros_like(values)
        return Node("affine", [inputs[1 - position]], output, name, weight=factor, bias=offset)

    def _cuts(self, zero_point: str) -> bool:
        """Whether a quantisation leaves nothing below zero."""
        if not zero_point or not self._has(zero_point):
            return False
        value = self._constant(zero_point)
        return value.size == 1 and int(value.reshape(-1)[0]) == _SMALLEST.get(value.dtype, 1)

    def _is_constant(self, kind: str, inputs: list[str], output: str, attributes: dict[str, Any]) -> bool:
        """Work out an operation on constants only, as long as its result is no larger than weights can be."""
        if kind == "Constant":
            if "value" in attributes:
                self._tensors[output] = attributes["value"].t
            elif values := [a for name, a in attributes.items() if name.startswith("value_")]:
                listed = list(values[0].floats) or list(values[0].ints) or [values[0].f or values[0].i]
                self._constants[output] = np.array(listed)
            return True
        if not inputs or not all(self._has(name) for name in inputs if name):
            return False
        if kind == "ConstantOfShape":
            shape = self._constant(inputs[0]).astype(np.int64).reshape(-1).tolist()
            value = (
                self._decode(attributes["value"].t).reshape(-1) if "value" in attributes else np.zeros(1, np.float32)
            )
            if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) > MAX_WEIGHTS or value.size != 1:
                raise WeightsError(
                    f"{printable(output[:80])}: expected weights, got the shape {shape[:8]}", source=self._source
                )
            self._constants[output] = np.full(shape, value[0])
            return True
        if kind == "DequantizeLinear":
            zero_point = self._constant(inputs[2]) if len(inputs) > 2 else np.zeros(1, np.int8)
            axis = attributes["axis"].i if "axis" in attributes else 1
            self._constants[output] = _dequantized(
                self._constant(inputs[0]), self._constant(inputs[1]), zero_point, axis
            )
            return True
        if kind in ("Identity", "Cast"):
            self._constants[output] = self._constant(inputs[0])
            return True
        return False

    def _has(self, name: str) -> bool:
        return name in self._tensors or name in self._constants

    def _floats(self, name: str) -> Floats:
        return np.ascontiguousarray(self._constant(name), np.float32)

    def _constant(self, name: str) -> Array:
        if name not in self._constants:
            if name not in self._tensors:
                raise WeightsError(
                    f"this is not a SqueezeNet: expected constant weights, got {printable(name[:80])!r}",
                    source=self._source,
                )
            self._constants[name] = self._decode(self._tensors[name])
        return self._constants[name]

    def _decode(self, tensor: Any) -> Array:
        shape, name = list(tensor.dims), printable(tensor.name[:80])
        if tensor.data_location:
            raise WeightsError(f"{name}: expected weights in the file, got a reference to another", source=self._source)
        if tensor.data_type not in _DTYPES:
            raise WeightsError(f"{name}: expected floats or integers, got type {tensor.data_type}", source=self._source)
        dtype, field = _DTYPES[tensor.data_type]
        if tensor.raw_data:
            values: Array = np.frombuffer(
                tensor.raw_data[: len(tensor.raw_data) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize], dtype
            )
        else:
            listed = np.array(getattr(tensor, field))
            values = listed.astype("<u2").view(dtype) if dtype == "<f2" else listed.astype(dtype)
        if len(shape) > 8 or min(shape, default=0) < 0 or math.prod(shape) != values.size:
            raise WeightsError(
                f"{name}: expected values for the shape {shape[:8]}, got {values.size}", source=self._source
            )
        if tensor.data_type == _BFLOAT16:
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.reshape(shape)


_OWN_KINDS = ("ReduceMean", "Sum")


def _dequantized(values: Array, scale: Array, zero_point: Array, axis: int) -> Floats:
    """The numbers that quantised ones stand for, with a scale for all or for each index of one axis."""
    shape = [1] * values.ndim
    if scale.size > 1 and values.ndim:
        shape[axis] = scale.size
    steps = scale.astype(np.float64).reshape(shape if scale.size > 1 else [1] * values.ndim)
    zeros = zero_point.astype(np.int64).reshape(shape if zero_point.size > 1 else [1] * values.ndim)
    return ((values.astype(np.int64) - zeros) * steps).astype(np.float32)


def _input_size(image: Any) -> int | None:
    shape = [dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    if len(shape) != 4:
        return None
    sides = shape[2:] if shape[1] == 3 or shape[3] != 3 else shape[1:3]
    return sides[0] if sides[0] == sides[1] and sides[0] > 0 else None
