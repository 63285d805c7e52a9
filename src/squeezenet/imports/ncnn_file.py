"""ncnn: layers as text in a `.param`, weights in the `.bin` beside it, in the order of the layers.

A convolution's weights begin with a tag: 0 or 0x0002C056 for float32, 0x01306B47 for float16 padded to four bytes; its
biases are float32 without one.

Source: ncnn's modelbin.cpp (tags), and its layers' load_param (numbers of the fields).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import WeightsError
from ..spec import MAX_WEIGHTS
from ..text import printable
from .bounded import MAX_FILE_BYTES, MAX_HEADER_BYTES, read_bounded
from .conventions import CONVENTIONS, GraphFile
from .graph import MAX_NODES, SAME, Floats, Graph, Node

__all__ = ["read_ncnn"]

_MAGIC = "7767517"
_FLOAT32_TAGS = (0, 0x0002C056)
_FLOAT16_TAG = 0x01306B47
_SAME_UPPER = -233
_IDENTITIES = ("Dropout", "Split", "Softmax", "Flatten", "Noop", "Reshape", "Squeeze")
_CAFFE_NAMES = ("fire2/squeeze1x1", "fire2_squeeze1x1")


def read_ncnn(path: Path) -> GraphFile:
    """Read a pair of files, whichever of the two is named.

    Raises:
        WeightsError: If they are not such files, or the other one is missing.
    """
    param, weights = path.with_suffix(".param"), path.with_suffix(".bin")
    text = read_bounded(param, max_bytes=MAX_HEADER_BYTES)
    if text[:4] == b"\xdd\x85\x76\x00":
        raise WeightsError("expected a .param as text, got the binary form: keep the text", source=param)
    lines = [line.split() for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines or lines[0] != [_MAGIC] or len(lines) < 2:
        raise WeightsError(f"expected a .param that begins with {_MAGIC}, got another file", source=param)
    if len(lines) > MAX_NODES:
        raise WeightsError(f"expected at most {MAX_NODES} layers, got {len(lines)}", source=param)
    data = _Weights(read_bounded(weights, max_bytes=MAX_FILE_BYTES), str(weights))
    nodes, image, size = list[Node](), "", None
    for words in lines[2:]:
        kind, name, inputs, outputs, fields = _layer(words, str(param))
        if kind == "Input":
            image = image or outputs[0]
            size = int(fields.get(0, 0)) or None
        else:
            nodes += _nodes(kind, name, inputs, outputs, fields, data)
    data.check_end()
    is_caffe = any(node.name in _CAFFE_NAMES for node in nodes)
    convention = CONVENTIONS["caffe" if is_caffe else "torchvision"]
    origin = "that of Caffe's SqueezeNets, whose names it has" if is_caffe else "a guess"
    return GraphFile(Graph(nodes, image, str(path), size), "Caffe" if is_caffe else "its own", convention, origin)


def _layer(words: list[str], source: str) -> tuple[str, str, list[str], list[str], dict[int, float]]:
    """Split a line: kind, name, numbers of inputs and outputs, their names, fields as number=value."""
    try:
        n_inputs, n_outputs = int(words[2]), int(words[3])
        inputs, outputs = words[4 : 4 + n_inputs], words[4 + n_inputs : 4 + n_inputs + n_outputs]
        if n_inputs < 0 or n_outputs < 1 or len(outputs) != n_outputs:
            raise ValueError
        fields = {}
        for word in words[4 + n_inputs + n_outputs :]:
            number, _, value = word.partition("=")
            if "," not in value:  # lists, which no layer here needs
                fields[int(number)] = float(value)
    except (ValueError, IndexError):
        raise WeightsError(f"expected a layer, got {printable(' '.join(words)[:80])!r}", source=source) from None
    return words[0], words[1], inputs, outputs, fields


class _Weights:
    """The bytes of a `.bin`, from front to back."""

    def __init__(self, data: bytes, source: str) -> None:
        self._data, self._source, self._offset = data, source, 0

    def tagged(self, count: int) -> Floats:
        """Weights behind a tag."""
        tag = int(self._take(1, "<u4")[0])
        if tag == _FLOAT16_TAG:
            values = self._take(count, "<f2").astype(np.float32)
            self._offset += -self._offset % 4
            return values
        if tag not in _FLOAT32_TAGS:
            raise WeightsError(
                f"expected float weights, got the tag {tag:#010x} at {self._offset - 4}", source=self._source
            )
        return self.plain(count)

    def plain(self, count: int) -> Floats:
        """Float32 without a tag."""
        return self._take(count, "<f4").astype(np.float32)

    def check_end(self) -> None:
        if self._offset != len(self._data):
            raise WeightsError(
                f"expected {self._offset} bytes by the layers, got {len(self._data)}", source=self._source
            )

    def _take(self, count: int, dtype: str) -> Floats:
        size_bytes = count * np.dtype(dtype).itemsize
        if not 0 <= count <= MAX_WEIGHTS or self._offset + size_bytes > len(self._data):
            raise WeightsError(f"expected {count} weights at {self._offset}, got fewer", source=self._source)
        values: Floats = np.frombuffer(self._data, dtype, count, self._offset)
        self._offset += size_bytes
        return values


def _nodes(
    kind: str, name: str, inputs: list[str], outputs: list[str], fields: dict[int, float], data: _Weights
) -> list[Node]:
    if kind in _IDENTITIES:
        return [Node("identity", inputs, output, name) for output in outputs]
    node = Node({"ReLU": "relu", "Concat": "concat"}.get(kind, kind), inputs, outputs[0], name)

    def number(field: int, default: float = 0) -> int:
        value = fields.get(field, default)
        return int(value) if abs(value) < 1 << 31 else -1

    if kind == "Convolution":
        count, outs, kernel = number(6), number(0), (number(11, number(1)), number(1))
        weight = data.tagged(count)
        node.bias = data.plain(outs) if number(5) else None
        node.kind, node.kernel, node.relu = "conv", kernel, number(9) == 1
        node.stride = (number(13, number(3, 1)), number(3, 1))
        left = number(4)
        top, right = number(14, left), number(15, left)
        node.pads = SAME if left == _SAME_UPPER else (top, left, number(16, top), right)
        node.is_plain = number(2, 1) == 1 and number(7, 1) == 1 and number(9) in (0, 1) and number(8) == 0
        if outs > 0 and min(kernel) > 0 and count % (outs * kernel[0] * kernel[1]) == 0:
            node.weight = weight.reshape(outs, -1, *kernel)
    elif kind == "Pooling":
        node.kernel, node.stride = (number(11, number(1)), number(1)), (number(12, number(2, 1)), number(2, 1))
        left = number(3)
        node.pads = SAME if number(5) == 2 else (number(13, left), left, number(15, left), number(14, left))
        node.kind = {0: "max_pool", 1: "average_pool"}.get(number(0), kind)
        node.ceil_mode, node.is_plain = number(5) == 0, number(5) in (0, 1, 2)
        if number(4) == 1 and node.kind == "average_pool":
            node.kind = "mean"
    elif (kind == "Eltwise" and number(0) == 1) or (kind == "BinaryOp" and number(0) == 0 and not number(1)):
        node.kind = "add"
    elif kind == "Concat":
        node.is_plain = number(0) in (0, -3)
    elif kind == "ReLU" and fields.get(0, 0):
        node.kind = "LeakyReLU"
    return [node]
