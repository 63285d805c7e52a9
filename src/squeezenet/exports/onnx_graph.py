"""A network as an ONNX graph, written from its spec: in floats, or in int8 with its quantisation written out (QDQ).

Both graphs take what the float network takes, normalised images (N, 3, H, W), and give logits (N, classes). In the
int8 graph every tensor of the integer network is a QuantizeLinear and DequantizeLinear pair with that network's
zero-point, and every weight an int8 initializer; runtimes fuse them into integer kernels. A runtime computes its
multipliers as in_scale * weight_scale / out_scale, rounded: with activation scales that are powers of two, weight
scales take up the rest, and the quotient is the integer network's multiplier to the bit, so that rounding goes the
same way. An addition multiplies both terms by the engines' own quotients of scales. The head's sums are averaged in
floats, where the engines average exact sums.

Labels and preprocessing travel in the model's metadata, as JSON under `labels` and `preprocessing`; of a `.sqz` also
`temperature`, and `unknown` or `unknown_below`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError
from ..fileformat import SqzFile
from ..labels import Labels
from ..network import FloatNetwork, IntegerNetwork, quantized_source
from ..preprocess import Preprocessing
from ..spec import ArchSpec, Op

if TYPE_CHECKING:
    import onnx

__all__ = ["build_onnx_float", "build_onnx_int8", "pooling_warnings"]

_OPSET = 13  # the first with a scale for each channel
_IR_VERSION = 8
_PRODUCER = "squeezenet"


def build_onnx_float(network: FloatNetwork) -> bytes:
    """Write a float network as a serialised ONNX model.

    Raises:
        MissingDependencyError: If `onnx` is not installed.
    """
    graph = _Graph()

    def conv(op: Op, x: str) -> str:
        floats = network.convs[op.name]
        parts = (("weight", floats.weight), ("bias", floats.bias))
        inputs = [x, *(graph.constant(f"{op.name}.{part}", values) for part, values in parts)]
        return _add_conv(graph, op, inputs, _branch_output(op))

    network.spec.walk(
        "input",
        conv=conv,
        pool=lambda op, x: graph.node("MaxPool", (x,), op.output, **_pool_attributes(op)),
        add=lambda op, a, b: graph.node("Add", (a, b), op.output),
        join=lambda op, a, b: graph.node("Concat", (a, b), op.output, axis=1),
    )
    _add_mean(graph, network.spec)
    return graph.serialize(network.spec, network.preprocessing, network.labels)


def build_onnx_int8(contents: SqzFile) -> bytes:
    """Write an integer network as a serialised ONNX model with QuantizeLinear and DequantizeLinear.

    Raises:
        MissingDependencyError: If `onnx` is not installed.
    """
    network, how = contents.network, contents.preprocessing_or_default
    graph = _Graph()
    scales = {name: 2.0 ** round(math.log2(quant.scale)) for name, quant in network.tensors.items()}
    quant = network.tensors["input"]
    # Normalised values back to the network's own: (pixel - zero_point) * scale, whose quantised form is the pixel.
    shape = (1, 3, 1, 1)
    factor = graph.constant("pixel.factor", np.float32(np.array(how.std) * scales["input"]).reshape(shape))
    offset = np.float32((np.array(how.mean) - quant.zero_point) * scales["input"]).reshape(shape)
    graph.node("Mul", ("input", factor), "pixel.scaled")
    graph.node("Add", ("pixel.scaled", graph.constant("pixel.offset", offset)), "pixel")
    pairs = _Pairs(graph, network, scales)

    def conv(op: Op, x: str) -> str:
        if op.is_head:
            return _add_conv(graph, op, [x, *pairs.weights(op)], op.output)
        real = _add_conv(graph, op, [x, *pairs.weights(op)], f"{op.name}.real")
        return pairs.add(op.output, real, name=_branch_output(op))

    def node(kind: str, op: Op, *inputs: str, **attributes: Any) -> str:
        return pairs.add(op.output, graph.node(kind, inputs, f"{op.output}.real", **attributes))

    def add(op: Op, *inputs: str) -> str:
        terms = []
        for name, x in zip(op.inputs, inputs, strict=True):
            factor = np.float32(network.tensor(name).scale / network.tensor(op.output).scale)
            factor *= np.float32(pairs.scale(op.output) / pairs.scale(name))  # a power of two: nothing is rounded
            term = f"{op.name}.{name}"
            terms.append(graph.node("Mul", (x, graph.constant(f"{term}.factor", factor)), term))
        return node("Add", op, *terms)

    network.spec.walk(
        pairs.add("input", "pixel"),
        conv=conv,
        pool=lambda op, x: node("MaxPool", op, x, **_pool_attributes(op)),
        add=add,
        join=lambda op, a, b: pairs.add(op.output, graph.node("Concat", (a, b), f"{op.output}.joined", axis=1)),
    )
    _add_mean(graph, network.spec)
    return graph.serialize(network.spec, how, contents.labels, _confidence(contents))


def pooling_warnings(spec: ArchSpec) -> list[str]:
    """A warning about pools that round up, since not every runtime does."""
    return [
        f"{op.name} rounds its {op.in_size}x{op.in_size} input up to {op.out_size}x{op.out_size} (ceil_mode),"
        " which some runtimes do not support; an input size of 4 n + 3 such as 227 avoids it"
        for op in spec.graph()
        if op.kind == "max_pool" and not _is_floor_enough(op)
    ]


def _confidence(contents: SqzFile) -> dict[str, str]:
    """Metadata about confidence: the temperature, and the rule for unknown photos."""
    facts = {"temperature": json.dumps(contents.temperature)}
    if contents.unknown is not None:
        rule = {
            "tensor": f"{contents.network.spec.convs[-1].inputs[0]}.dequantized",
            "meaning": "unknown if the mean of `tensor` over positions has no cosine of `cosine` or more to a vector",
            "cosine": math.sqrt(contents.unknown.threshold / 65536), "vectors": contents.unknown.vectors.tolist(),
        }  # fmt: skip
        facts["unknown"] = json.dumps(rule)
    elif contents.unknown_below is not None:
        facts["unknown_below"] = json.dumps(contents.unknown_below)
    return facts


class _Graph:
    """Nodes and constants as they are added, in order."""

    def __init__(self) -> None:
        with MissingDependencyError.named():
            import onnx
        self._onnx = onnx
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: NDArray[Any] | np.generic) -> str:
        self._constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(
        self, kind: str, inputs: Iterator[str] | tuple[str, ...] | list[str], output: str, **attributes: Any
    ) -> str:
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def serialize(
        self,
        spec: ArchSpec,
        preprocessing: Preprocessing,
        labels: Labels | None,
        facts: Mapping[str, str] | None = None,
    ) -> bytes:
        helper, float32 = self._onnx.helper, self._onnx.TensorProto.FLOAT
        image = helper.make_tensor_value_info("input", float32, ["N", 3, spec.input_size, spec.input_size])
        logits = helper.make_tensor_value_info("logits", float32, ["N", spec.num_classes])
        graph = helper.make_graph(self._nodes, spec.name or _PRODUCER, [image], [logits], self._constants)
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name=_PRODUCER)
        metadata = {
            "preprocessing": json.dumps(preprocessing.to_dict()),
            "input": "float32 (N, 3, H, W), RGB: (pixel - mean) / std of `preprocessing`, pixels from 0 to 255",
            **(facts or {}),
        }
        if labels is not None:
            metadata["labels"] = json.dumps({"names": labels.names, **({"ids": labels.ids} if labels.ids else {})})
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model, full_check=True)
        serialized: bytes = model.SerializeToString()
        return serialized


def _add_conv(graph: _Graph, op: Op, inputs: list[str], output: str) -> str:
    raw = f"{op.name}.sum" if op.relu else output
    graph.node("Conv", inputs, raw, kernel_shape=[op.kernel] * 2, strides=[op.stride] * 2, pads=[op.padding] * 4)
    return graph.node("Relu", (raw,), output) if op.relu else raw


class _Pairs:
    """Quantisation of an integer network, written out."""

    def __init__(self, graph: _Graph, network: IntegerNetwork, scales: Mapping[str, float]) -> None:
        self._graph, self._network, self._scales = graph, network, scales

    def add(self, tensor: str, real: str, *, name: str | None = None) -> str:
        """Round a real tensor to the steps of a quantised one; returns the rounded real tensor."""
        graph, name = self._graph, name or tensor
        scale = graph.constant(f"{name}.scale", np.float32(self.scale(tensor)))
        zero_point = graph.constant(f"{name}.zero_point", np.uint8(self._network.tensor(tensor).zero_point))
        graph.node("QuantizeLinear", (real, scale, zero_point), f"{name}.quantized")
        return graph.node("DequantizeLinear", (f"{name}.quantized", scale, zero_point), f"{name}.dequantized")

    def weights(self, op: Op) -> Iterator[str]:
        """Add a convolution's weight and bias; returns their real tensors."""
        graph, params = self._graph, self._network.convs[op.name]
        out_scale = 1.0 if op.is_head else self.scale(op.output)
        bias_scale = params.multiplier.astype(np.float64) * out_scale
        weight_scale = bias_scale / self.scale(op.inputs[0])
        for part, values, steps in (("weight", params.weight, weight_scale), ("bias", params.bias, bias_scale)):
            name = f"{op.name}.{part}"
            inputs = (
                graph.constant(f"{name}.quantized", values),
                graph.constant(f"{name}.scale", steps.astype(np.float32)),
                graph.constant(f"{name}.zero_point", np.zeros(len(steps), values.dtype)),
            )
            yield graph.node("DequantizeLinear", inputs, name, axis=0)

    def scale(self, tensor: str) -> float:
        return self._scales[quantized_source(self._network.spec, tensor)]


def _add_mean(graph: _Graph, spec: ArchSpec) -> None:
    graph.node("GlobalAveragePool", (spec.head_name,), "mean")
    graph.node("Flatten", ("mean",), "logits", axis=1)


def _branch_output(op: Op) -> str:
    """The tensor that a convolution writes: its own or, in a Fire, the branch that a Concat joins."""
    return op.name if op.output != op.name else op.output


def _pool_attributes(op: Op) -> dict[str, Any]:
    attributes: dict[str, Any] = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2}
    return attributes if _is_floor_enough(op) else {**attributes, "ceil_mode": 1}


def _is_floor_enough(op: Op) -> bool:
    return (op.in_size - op.kernel) // op.stride + 1 == op.out_size
