"""TFLite: floats, float16, int8 per channel; kernels are (O, k, k, I) there."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError, SqueezeNetError, WeightsError
from ..labels import Labels
from ..preprocess import TORCHVISION_PREPROCESSING, Preprocessing
from ..spec import MAX_WEIGHTS
from ..text import printable
from .bounded import MAX_FILE_BYTES, read_bounded
from .conventions import CONVENTIONS, Convention, GraphFile, left_behind
from .graph import MAX_NODES, SAME, Floats, Graph, Node

__all__ = ["read_tflite"]

_METADATA = b"squeezenet"
_IDENTITIES = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SOFTMAX", "SQUEEZE", "LOGISTIC")


def read_tflite(path: Path) -> GraphFile:
    """Read the graph of a TFLite model.

    Raises:
        WeightsError: If it is not such a file.
        MissingDependencyError: If `tflite` is not installed.
    """
    with MissingDependencyError.named():
        import tflite
    data = read_bounded(path, max_bytes=MAX_FILE_BYTES)
    try:
        model = tflite.Model.GetRootAs(data, 0)
        if model.SubgraphsLength() != 1:
            raise WeightsError(f"expected one graph, got {model.SubgraphsLength()}", source=path)
        return _Reader(tflite, model, str(path)).file()
    except SqueezeNetError:
        raise
    except Exception as error:  # offsets that lead anywhere raise anything that Python's bytes can
        raise WeightsError(
            f"expected a TFLite model, got a damaged one ({type(error).__name__}: {printable(str(error))[:100]})",
            source=path,
        ) from None


class _Reader:
    """One model and its tensors."""

    def __init__(self, schema: Any, model: Any, source: str) -> None:
        self._schema, self._model, self._graph, self._source = schema, model, model.Subgraphs(0), source
        self._kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
        self._types = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
        self._constants = dict[int, Floats]()

    def file(self) -> GraphFile:
        if self._graph.OperatorsLength() > MAX_NODES or self._graph.InputsLength() != 1:
            raise WeightsError("expected a network with one input", source=self._source)
        nodes = [found for i in range(self._graph.OperatorsLength()) if (found := self._node(self._graph.Operators(i)))]
        image = self._graph.Inputs(0)
        shape = self._shape(image)
        size = shape[1] if len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 else None
        own, labels, notes = self._described()
        convention, origin = self._convention(image, own)
        graph = Graph(nodes, str(image), self._source, size)
        names = "this package" if labels or origin.endswith("metadata") else "its own"
        return GraphFile(graph, names, convention, origin, labels, notes)

    def _convention(self, image: int, own: Preprocessing | None) -> tuple[Convention, str]:
        scale, zero_point = self._quantization(image)
        kind = self._types.get(self._graph.Tensors(image).Type())
        if kind in ("UINT8", "INT8") and scale.size == 1 and 0 < float(scale[0]) < math.inf:
            # The file takes pixels, and says what numbers they stand for.
            mean, std = float(zero_point[0]) + (128 if kind == "INT8" else 0), 1 / float(scale[0])
            how = dataclasses.replace(own or TORCHVISION_PREPROCESSING, mean=(mean,) * 3, std=(std,) * 3)
            origin = "in the file's metadata" if own else "that of the file's quantised input"
            return Convention(name="its own", preprocessing=how), origin
        if own:
            return Convention(name="its own", preprocessing=own), "in the file's metadata"
        return CONVENTIONS["torchvision"], "a guess"

    def _described(self) -> tuple[Preprocessing | None, Labels | None, tuple[str, ...]]:
        """Metadata that this package wrote into the file."""
        for i in range(self._model.MetadataLength()):
            entry = self._model.Metadata(i)
            if entry.Name() == _METADATA:
                try:
                    described = json.loads(self._model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
                    labels = Labels.from_dict(described["labels"]) if "labels" in described else None
                    return Preprocessing.from_dict(described["preprocessing"]), labels, left_behind(described)
                except (ValueError, KeyError, TypeError, AttributeError, SqueezeNetError, RecursionError):
                    break  # somebody changed the file: it is an import like any other
        return None, None, ()

    def _node(self, operator: Any) -> Node | None:
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        kind = self._kinds.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "an unknown operation")
        inputs = [operator.Inputs(i) for i in range(operator.InputsLength())]
        output = operator.Outputs(0)
        if inputs and all(self._is_constant(index) for index in inputs):
            if kind == "DEQUANTIZE":
                self._constants[output] = self._values(inputs[0])
            return None
        activations = [str(index) for index in inputs if not self._is_constant(index)]
        node = Node(kind, activations, str(output), kind.lower())
        if kind in _IDENTITIES:
            node.kind = "identity"
        elif kind in ("CONV_2D", "FULLY_CONNECTED"):
            self._convolution(node, kind, inputs, operator)
        elif kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            options = self._options(operator, "Pool2DOptions")
            node.kind = "max_pool" if kind == "MAX_POOL_2D" else "average_pool"
            node.kernel = (options.FilterHeight(), options.FilterWidth())
            self._window(node, options)
        elif kind == "RELU":
            node.kind = "relu"
        elif kind == "MEAN" and self._integers(inputs[1]) == [1, 2]:
            node.kind = "mean"
        elif kind == "CONCATENATION":
            options = self._options(operator, "ConcatenationOptions")
            node.kind, node.is_plain = "concat", options.Axis() in (3, -1) and not options.FusedActivationFunction()
        elif kind == "ADD" and len(activations) == 2:
            activation = self._options(operator, "AddOptions").FusedActivationFunction()
            node.kind, node.relu, node.is_plain = "add", activation == 1, activation in (0, 1)
        elif kind in ("MUL", "ADD") and len(activations) == 1:
            constant = self._values(next(index for index in inputs if self._is_constant(index))).reshape(-1)
            one, zero = np.ones_like(constant), np.zeros_like(constant)
            node.kind, node.weight, node.bias = "affine", *((constant, zero) if kind == "MUL" else (one, constant))
        elif kind == "PAD":
            node.kind, node.pads = "pad", self._padding(inputs[1])
        return node

    def _convolution(self, node: Node, kind: str, inputs: list[int], operator: Any) -> None:
        node.kind = "conv"
        weight = self._values(inputs[1])
        if kind == "CONV_2D":
            options = self._options(operator, "Conv2DOptions")
            self._window(node, options)
            node.is_plain &= options.DilationWFactor() == 1 == options.DilationHFactor()
        else:
            options = self._options(operator, "FullyConnectedOptions")
            weight = weight.reshape(len(weight), 1, 1, -1)
        node.relu = options.FusedActivationFunction() == 1
        node.is_plain &= options.FusedActivationFunction() in (0, 1)
        if weight.ndim == 4:
            node.weight = np.ascontiguousarray(weight.transpose(0, 3, 1, 2))
            node.kernel = (weight.shape[1], weight.shape[2])
        node.bias = self._values(inputs[2]).reshape(-1) if len(inputs) > 2 and inputs[2] >= 0 else None

    def _window(self, node: Node, options: Any) -> None:
        node.stride = (options.StrideH(), options.StrideW())
        node.pads = SAME if options.Padding() == self._schema.Padding.SAME else (0, 0, 0, 0)
        node.is_plain &= options.FusedActivationFunction() in (0, 1)

    def _padding(self, index: int) -> tuple[int, int, int, int]:
        values = self._integers(index)
        if len(values) != 8 or values[:2] != [0, 0] or values[6:] != [0, 0]:
            raise WeightsError(f"expected padding of height and width, got {values[:8]}", source=self._source)
        return values[2], values[4], values[3], values[5]

    def _options(self, operator: Any, name: str) -> Any:
        table = operator.BuiltinOptions()
        if table is None:
            raise WeightsError(f"expected {name}, got an operation without", source=self._source)
        options = getattr(self._schema, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def _shape(self, index: int) -> list[int]:
        tensor = self._graph.Tensors(index)
        return [tensor.Shape(i) for i in range(min(tensor.ShapeLength(), 8))]

    def _quantization(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        found = self._graph.Tensors(index).Quantization()
        if found is None or not found.ScaleLength():
            return np.zeros(0), np.zeros(0, np.int64)
        scale = found.ScaleAsNumpy().astype(np.float64)
        zeros = found.ZeroPointAsNumpy() if found.ZeroPointLength() == scale.size else np.zeros(scale.size, np.int64)
        return scale, zeros.astype(np.int64)

    def _is_constant(self, index: int) -> bool:
        if index in self._constants or index < 0:
            return True
        buffer = self._graph.Tensors(index).Buffer()
        return bool(buffer and self._model.Buffers(buffer).DataLength())

    def _raw(self, index: int, dtypes: dict[str, str]) -> NDArray[Any]:
        tensor, shape = self._graph.Tensors(index), self._shape(index)
        kind = self._types.get(tensor.Type(), "?")
        if kind not in dtypes:
            raise WeightsError(f"expected {' or '.join(dtypes)}, got {kind}", source=self._source)
        data = self._model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        count = math.prod(shape)
        if not 0 <= count <= MAX_WEIGHTS or len(data) != count * np.dtype(dtypes[kind]).itemsize:
            raise WeightsError(f"expected values for the shape {shape}, got {len(data)} bytes", source=self._source)
        return np.frombuffer(data, dtypes[kind]).reshape(shape)

    def _integers(self, index: int) -> list[int]:
        values: list[int] = self._raw(index, {"INT32": "<i4", "INT64": "<i8"}).reshape(-1).tolist()
        return values[:8]

    def _values(self, index: int) -> Floats:
        """Values of a constant, dequantised if necessary."""
        if index in self._constants:
            return self._constants[index]
        dtypes = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1", "UINT8": "u1", "INT32": "<i4"}
        values = self._raw(index, dtypes)
        if values.dtype.kind == "f":
            return values.astype(np.float32)
        scale, zeros = self._quantization(index)
        if scale.size == 0:
            raise WeightsError("expected a scale for integers, got none", source=self._source)
        shape = [1] * values.ndim
        if scale.size > 1:
            shape[self._graph.Tensors(index).Quantization().QuantizedDimension()] = scale.size
        steps, offsets = (part.reshape(shape) if part.size > 1 else part[0] for part in (scale, zeros))
        return ((values.astype(np.int64) - offsets) * steps).astype(np.float32)
