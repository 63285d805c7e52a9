"""An integer network as a TFLite model: int8, weights per channel, pixels in and logits out.

The model takes raw RGB pixels (1, H, W, 3), uint8, and gives float32 logits (1, classes). Activations are the integer
network's minus 128, which is how TFLite's int8 kernels count. As in the int8 ONNX graph, activation scales are powers
of two and weight scales take up the rest: a runtime that multiplies in float32, as XNNPACK does, then has the integer
network's multipliers to the bit. An addition is made in floats, by the engines' own quotients of scales.

The head is computed in floats from its int8 weights, because a compressed network has no scale for its sums. Without
a ReLU before the average, the average comes first, so that the head costs one position. Given the range of the sums,
the head is int8 as well, and only the average is float: faster, and all that microcontrollers can run, but not exact.

Labels, preprocessing and `temperature` are JSON in the metadata buffer `squeezenet`.

Source: TensorFlow Lite's schema.fbs (field names), and its quantisation specification (ranges, zero-points).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError
from ..fileformat import SqzFile
from ..network import IntegerNetwork, quantized_source
from ..spec import Op

__all__ = ["TFLITE_METADATA", "build_tflite"]

TFLITE_METADATA = "squeezenet"
"""Name of the metadata buffer with labels, preprocessing and temperature."""

_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of buffers, so that runtimes can use weights where they lie in the file
_OFFSET = 128  # int8 values are uint8 values less this
# Versions of the operations as their int8 forms need them.
_VERSIONS = {
    "QUANTIZE": 2, "DEQUANTIZE": 2, "CONV_2D": 3, "MAX_POOL_2D": 2, "CONCATENATION": 2, "PAD": 2, "MEAN": 2, "ADD": 1,
    "MUL": 1, "RESHAPE": 1,
}  # fmt: skip
_OPTIONS = {
    "CONV_2D": "Conv2DOptions", "MAX_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions", "MEAN": "ReducerOptions", "ADD": "AddOptions", "MUL": "MulOptions",
    "QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions", "RESHAPE": "ReshapeOptions",
}  # fmt: skip


def build_tflite(contents: SqzFile, *, head_range: tuple[float, float] | None = None) -> bytes:
    """Write an integer network as a TFLite model.

    Args:
        contents: The network.
        head_range: Smallest and largest value of the class activation maps; with it the head is int8.

    Raises:
        MissingDependencyError: If `tflite` is not installed.
    """
    network = contents.network
    spec, graph = network.spec, _Graph()
    tensors = _Tensors(graph, network)
    size = spec.input_size
    quant = network.tensors["input"]
    scale = tensors.scale("input")
    pixels = graph.tensor("input", (1, size, size, 3), "UINT8", ([scale], quant.zero_point))
    x = graph.node("QUANTIZE", [pixels], tensors.activation("pixels", "input", (1, size, size, 3)))

    def conv(op: Op, x: int) -> int:
        if op.is_head:
            return _add_int8_head(graph, tensors, op, x, head_range) if head_range else _add_head(graph, tensors, op, x)
        x, padding = _padded(graph, tensors, op, x)
        name = op.name if op.output != op.name else op.output
        out = tensors.activation(name, op.output, (1, op.out_size, op.out_size, op.out_channels))
        weight, bias = tensors.int8_weights(op)
        return graph.node("CONV_2D", [x, weight, bias], out, **_conv_options(op, padding))

    def pool(op: Op, x: int) -> int:
        out = tensors.activation(op.output, op.output, (1, op.out_size, op.out_size, op.out_channels))
        is_floor = (op.in_size - op.kernel) // op.stride + 1 == op.out_size
        # A pool that rounds up is one that is padded at its far end, which is how `SAME` pads even sizes.
        return graph.node(
            "MAX_POOL_2D", [x], out, Padding="VALID" if is_floor else "SAME", FilterWidth=op.kernel,
            FilterHeight=op.kernel, StrideW=op.stride, StrideH=op.stride,
        )  # fmt: skip

    def join(op: Op, a: int, b: int) -> int:
        shape = (1, op.out_size, op.out_size, op.written_channels)
        out = tensors.activation(f"{op.output}.joined", op.output, shape)
        return graph.node("CONCATENATION", [a, b], out, Axis=3)

    def add(op: Op, *inputs: int) -> int:
        return _add_in_floats(graph, tensors, op, inputs)

    logits = spec.walk(x, conv=conv, pool=pool, add=add, join=join)
    return graph.serialize(pixels, logits, _metadata(contents))


def _metadata(contents: SqzFile) -> bytes:
    how = contents.preprocessing_or_default.to_dict()
    description: dict[str, Any] = {"preprocessing": how, "temperature": contents.temperature}
    if contents.labels is not None:
        description["labels"] = contents.labels.to_dict()
    return json.dumps(description).encode()


def _add_head(graph: _Graph, tensors: _Tensors, op: Op, x: int) -> int:
    def floats(name: str, size: int, channels: int) -> int:
        return graph.tensor(name, (1, size, size, channels))

    real = graph.node("DEQUANTIZE", [x], floats("features", op.in_size, op.in_channels))
    weight, bias = tensors.float_weights(op)
    options = _conv_options(op, "VALID")
    axes = graph.constant("axes", np.array([1, 2], np.int32))
    if op.relu or op.padding:
        if op.padding:
            real = _pad(graph, real, op.padding, floats("features.padded", op.in_size + 2 * op.padding, op.in_channels))
        maps = graph.node("CONV_2D", [real, weight, bias], floats(op.name, op.out_size, op.out_channels), **options)
        return graph.node("MEAN", [maps, axes], graph.tensor("logits", (1, op.out_channels)), KeepDims=False)
    mean = graph.node("MEAN", [real, axes], floats("mean", 1, op.in_channels), KeepDims=True)
    scores = graph.node("CONV_2D", [mean, weight, bias], floats(op.name, 1, op.out_channels), **options)
    shape = graph.constant("logits.shape", np.array([-1, op.out_channels], np.int32))
    return graph.node("RESHAPE", [scores, shape], graph.tensor("logits", (1, op.out_channels)))


def _add_int8_head(graph: _Graph, tensors: _Tensors, op: Op, x: int, head_range: tuple[float, float]) -> int:
    x, padding = _padded(graph, tensors, op, x)
    low, high = min(head_range[0], 0.0), max(head_range[1], 0.0)
    scale = (high - low) / 255 or 1.0
    shape = (1, op.out_size, op.out_size, op.out_channels)
    maps = graph.tensor(op.name, shape, "INT8", ([scale], round(-low / scale) - _OFFSET))
    graph.node("CONV_2D", [x, *tensors.int8_weights(op)], maps, **_conv_options(op, padding))
    real = graph.node("DEQUANTIZE", [maps], graph.tensor(f"{op.name}.real", shape))
    axes = graph.constant("axes", np.array([1, 2], np.int32))
    return graph.node("MEAN", [real, axes], graph.tensor("logits", (1, op.out_channels)), KeepDims=False)


def _add_in_floats(graph: _Graph, tensors: _Tensors, op: Op, inputs: Sequence[int]) -> int:
    shape = (1, op.out_size, op.out_size, op.out_channels)
    terms = []
    for name, x in zip(op.inputs, inputs, strict=True):
        term = f"{op.name}.{name}"
        real = graph.node("DEQUANTIZE", [x], graph.tensor(f"{term}.real", shape))
        factor = graph.constant(f"{term}.factor", tensors.quotient(name, op.output))
        terms.append(graph.node("MUL", [real, factor], graph.tensor(term, shape), FusedActivationFunction="NONE"))
    total = graph.node("ADD", terms, graph.tensor(f"{op.name}.sum", shape), FusedActivationFunction="NONE")
    return graph.node("QUANTIZE", [total], tensors.activation(op.output, op.output, shape))


def _padded(graph: _Graph, tensors: _Tensors, op: Op, x: int) -> tuple[int, str]:
    """The tensor that a convolution reads, and the name of its padding: TFLite has only `SAME` and `VALID`."""
    if op.stride == 1 and 2 * op.padding == op.kernel - 1:
        return x, "SAME"
    if not op.padding:
        return x, "VALID"
    size = op.in_size + 2 * op.padding
    out = tensors.activation(f"{op.name}.padded", op.inputs[0], (1, size, size, op.in_channels))
    return _pad(graph, x, op.padding, out), "VALID"


def _pad(graph: _Graph, x: int, padding: int, out: int) -> int:
    sides = graph.constant(f"padding.{out}", np.array([[0, 0], [padding] * 2, [padding] * 2, [0, 0]], np.int32))
    return graph.node("PAD", [x, sides], out)


def _conv_options(op: Op, padding: str) -> dict[str, Any]:
    return {
        "Padding": padding, "StrideW": op.stride, "StrideH": op.stride, "DilationWFactor": 1, "DilationHFactor": 1,
        "FusedActivationFunction": "RELU" if op.relu else "NONE",
    }  # fmt: skip


class _Tensors:
    """The quantisation of an integer network, as TFLite counts."""

    def __init__(self, graph: _Graph, network: IntegerNetwork) -> None:
        self._graph, self._network = graph, network
        self._scales = {name: 2.0 ** round(math.log2(quant.scale)) for name, quant in network.tensors.items()}

    def scale(self, tensor: str) -> float:
        return self._scales[quantized_source(self._network.spec, tensor)]

    def quotient(self, tensor: str, output: str) -> NDArray[np.float32]:
        """Factor of a term of an addition; scales that are powers of two cause no rounding."""
        factor = np.float32(self._network.tensor(tensor).scale / self._network.tensor(output).scale)
        return np.array(factor * np.float32(self.scale(output) / self.scale(tensor)), np.float32)

    def activation(self, name: str, tensor: str, shape: tuple[int, ...]) -> int:
        zero_point = self._network.tensor(tensor).zero_point - _OFFSET
        return self._graph.tensor(name, shape, "INT8", ([self.scale(tensor)], zero_point))

    def int8_weights(self, op: Op) -> tuple[int, int]:
        params, (weight_scale, bias_scale) = self._network.convs[op.name], self._weight_scales(op)
        weight = np.ascontiguousarray(params.weight.transpose(0, 2, 3, 1))
        return (
            self._graph.constant(f"{op.name}.weight", weight, weight_scale.tolist()),
            self._graph.constant(f"{op.name}.bias", params.bias, bias_scale.tolist()),
        )

    def float_weights(self, op: Op) -> tuple[int, int]:
        weight, _ = self.int8_weights(op)
        params = self._network.convs[op.name]
        real = self._graph.tensor(f"{op.name}.weight.real", (op.out_channels, op.kernel, op.kernel, op.in_channels))
        bias = (params.bias * self._weight_scales(op)[1]).astype(np.float32)
        return self._graph.node("DEQUANTIZE", [weight], real), self._graph.constant(f"{op.name}.bias.real", bias)

    def _weight_scales(self, op: Op) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        out_scale = 1.0 if op.is_head else self.scale(op.output)
        bias_scale = self._network.convs[op.name].multiplier.astype(np.float64) * out_scale
        return bias_scale / self.scale(op.inputs[0]), bias_scale


class _Graph:
    """Tensors, constants and operations as they are added, in order."""

    def __init__(self) -> None:
        with MissingDependencyError.named():
            import flatbuffers
            import tflite
        self._schema = tflite
        self._builder = flatbuffers.Builder(1 << 20)
        self._buffers = [self._table("Buffer")]  # the first is empty, by convention
        self._tensors: list[int] = []
        self._operators: list[int] = []
        self._codes: dict[str, int] = {}

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str = "FLOAT32",
        quantization: tuple[Sequence[float], int] | None = None,
        buffer: int = 0,
    ) -> int:
        fields: dict[str, Any] = {"Name": self._builder.CreateString(name), "Shape": self._vector(shape, np.int32)}
        if quantization:
            scales, zero_point = quantization
            fields["Quantization"] = self._table(
                "QuantizationParameters",
                Scale=self._vector(scales, np.float32),
                ZeroPoint=self._vector([zero_point] * len(scales), np.int64),
            )
        kinds = self._schema.TensorType
        self._tensors.append(self._table("Tensor", Type=getattr(kinds, kind), Buffer=buffer, **fields))
        return len(self._tensors) - 1

    def constant(self, name: str, values: NDArray[Any], scales: Sequence[float] = ()) -> int:
        self._buffers.append(self._buffer(values.tobytes()))
        quantization = (scales, 0) if scales else None
        return self.tensor(name, values.shape, values.dtype.name.upper(), quantization, len(self._buffers) - 1)

    def node(self, kind: str, inputs: Sequence[int], output: int, **options: Any) -> int:
        for field, enumeration in (("Padding", "Padding"), ("FusedActivationFunction", "ActivationFunctionType")):
            if field in options:
                options[field] = getattr(getattr(self._schema, enumeration), options[field])
        code = self._codes.setdefault(kind, len(self._codes))
        operator = self._table(
            "Operator", OpcodeIndex=code,
            Inputs=self._vector(inputs, np.int32), Outputs=self._vector([output], np.int32),
            BuiltinOptionsType=getattr(self._schema.BuiltinOptions, _OPTIONS[kind]),
            BuiltinOptions=self._table(_OPTIONS[kind], **options),
        )  # fmt: skip
        self._operators.append(operator)
        return output

    def serialize(self, image: int, logits: int, metadata: bytes) -> bytes:
        self._buffers.append(self._buffer(metadata))
        entry = self._table("Metadata", Name=self._builder.CreateString(TFLITE_METADATA), Buffer=len(self._buffers) - 1)
        codes = []
        for kind in self._codes:
            code = getattr(self._schema.BuiltinOperator, kind)
            codes.append(
                self._table("OperatorCode", DeprecatedBuiltinCode=code, BuiltinCode=code, Version=_VERSIONS[kind])
            )
        graph = self._table(
            "SubGraph", Tensors=self._offsets(self._tensors), Operators=self._offsets(self._operators),
            Inputs=self._vector([image], np.int32), Outputs=self._vector([logits], np.int32),
            Name=self._builder.CreateString("main"),
        )  # fmt: skip
        model = self._table(
            "Model", Version=_SCHEMA_VERSION, OperatorCodes=self._offsets(codes), Subgraphs=self._offsets([graph]),
            Description=self._builder.CreateString("squeezenet"), Buffers=self._offsets(self._buffers),
            Metadata=self._offsets([entry]),
        )  # fmt: skip
        self._builder.Finish(model, b"TFL3")
        return bytes(self._builder.Output())

    def _table(self, name: str, **fields: Any) -> int:
        getattr(self._schema, f"{name}Start")(self._builder)
        for field, value in fields.items():
            getattr(self._schema, f"{name}Add{field}")(self._builder, value)
        end: int = getattr(self._schema, f"{name}End")(self._builder)
        return end

    def _buffer(self, data: bytes) -> int:
        self._builder.StartVector(1, len(data), _ALIGNMENT)
        self._builder.head -= len(data)
        self._builder.Bytes[self._builder.head : self._builder.head + len(data)] = data
        return self._table("Buffer", Data=self._builder.EndVector())

    def _vector(self, values: Sequence[float], kind: type[np.generic]) -> int:
        offset: int = self._builder.CreateNumpyVector(np.array(values, kind))
        return offset

    def _offsets(self, tables: Sequence[int]) -> int:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        offset: int = self._builder.EndVector()
        return offset
