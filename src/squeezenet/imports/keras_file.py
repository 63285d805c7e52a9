"""Keras: `.keras` archives, whole models in `.h5`, and `.h5` files with only weights.

Layers and their inputs are read from the model's JSON as data: no layer is built, so no code in the file is run.
Kernels are (k, k, I, O) there. Files of weights alone have no graph; their layers are recognised by their shapes.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingDependencyError, SqueezeNetError, WeightsError
from ..spec import MAX_WEIGHTS
from ..text import printable
from .bounded import MAX_FILE_BYTES
from .conventions import CONVENTIONS, Convention, GraphFile
from .graph import MAX_NODES, SAME, Floats, Graph, Node
from .state_dict import StateNetwork, network_from_state
from .torch_file import TensorReference

__all__ = ["read_keras", "read_keras_weights"]

_MAX_CONFIG_BYTES = 16 << 20
_MAX_DEPTH = 50
_FILTERS = (1, 2, 3)  # deflate, shuffle, checksum: what h5py writes; others load libraries
_IDENTITIES = ("Dropout", "Flatten", "Softmax", "Identity", "Reshape", "SpatialDropout2D", "GaussianNoise")
_INPUT_SIZE = 227  # of the published Keras SqueezeNet, whose file has no size
_CAFFE_NAME = "fire2/squeeze1x1"
_Read = Callable[[str, int], "Floats | None"]


def read_keras(path: Path) -> GraphFile | None:
    """Read the layers of a Keras model; None for a file with only weights.

    Raises:
        WeightsError: If it is not such a file, or asks for more memory than a SqueezeNet needs.
        MissingDependencyError: If `h5py` is not installed.
    """
    with _opened(path) as file:
        text = file.config()
        if text is None:
            return None
        try:
            config = json.loads(text)
            layers = list(_layers(config))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(
                f"expected the JSON of a Keras model, got broken JSON ({type(error).__name__})"
            ) from None
        return _graph(layers, file.reader(layers), str(path))


def read_keras_weights(path: Path) -> tuple[StateNetwork, Convention, str]:
    """Recognise the network in a file with only weights.

    Raises:
        WeightsError: As `read_keras`, or if the weights are not those of SqueezeNet.
    """
    with _opened(path) as file:
        tensors = dict[str, TensorReference]()
        for layer, (kernel, bias) in file.weights().items():
            tensors[f"{layer}.weight"] = _reference(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            if bias is not None:
                tensors[f"{layer}.bias"] = _reference(bias)
    found = network_from_state(tensors, str(path))
    # Keras' pools round down, and its published network takes 227 pixels.
    spec = found.spec.replace(pool_ceil_mode=False, input_size=_INPUT_SIZE)
    is_known = any(name.startswith(_CAFFE_NAME) for name in tensors)
    origin = "that of the published Keras SqueezeNet, whose names it has" if is_known else "a guess"
    network = StateNetwork(spec, found.convs, "Keras" if is_known else found.names, found.notes)
    return network, CONVENTIONS["keras" if is_known else "torchvision"], origin


def _reference(values: Floats) -> TensorReference:
    return TensorReference(values.shape, "<f4", lambda: values)


class _File:
    """An HDF5 file, of which only plain datasets of bounded size are read."""

    def __init__(self, h5py: Any, handle: Any, config: bytes | None) -> None:
        self._h5py, self._handle, self._config, self._left = h5py, handle, config, 2 * MAX_WEIGHTS

    def config(self) -> bytes | str | None:
        """The model's JSON, if there is one."""
        if self._config is not None:
            return self._config
        text = self._attribute(self._handle, "model_config")
        return text if isinstance(text, (str, bytes)) else None

    def reader(self, layers: list[dict[str, Any]]) -> _Read:
        """Return a function that reads the n-th array of a layer, given the layer's name."""
        if self._config is None:
            root = self._child(self._handle, "model_weights")
            return lambda name, index: self._array(self._old_dataset(root, name, index))
        container = self._child(self._handle, "layers")
        # A `.keras` archive counts the layers of each class.
        counts, places = Counter[str](), dict[str, str]()
        for layer in layers:
            kind = _snake_case(layer["class_name"])
            places[layer["name"]] = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1

        def read(name: str, index: int) -> Floats | None:
            for place in (name, places.get(name, name)):
                group = self._child(self._child(container, place), "vars")
                if group is not None:
                    return self._array(self._child(group, str(index)))
            return None

        return read

    def weights(self) -> dict[str, tuple[Floats, Floats | None]]:
        """Kernels and biases of all convolutions in a file of weights alone, in the model's order."""
        root = self._child(self._handle, "model_weights") or self._handle
        names = self._names(root, "layer_names")
        found = dict[str, tuple[Floats, Floats | None]]()
        container = self._child(root, "layers")
        if names is None and container is not None:
            names = sorted(list(container)[:MAX_NODES], key=_natural)
        if names is None:
            raise WeightsError("expected a Keras file, got another HDF5 file")
        for name in names:
            if container is None:
                arrays = [self._array(self._old_dataset(root, name, index)) for index in (0, 1)]
            else:
                group = self._child(self._child(container, name), "vars")
                arrays = [self._array(self._child(group, str(index))) for index in (0, 1)]
            kernel, bias = arrays
            if kernel is not None and kernel.ndim == 4:
                found[name] = (kernel, bias if bias is not None and bias.ndim == 1 else None)
        return found

    def _old_dataset(self, root: Any, layer: str, index: int) -> Any:
        group = self._child(root, layer)
        names = self._names(group, "weight_names") or []
        return self._child(group, names[index]) if index < len(names) else None

    def _names(self, group: Any, attribute: str) -> list[str] | None:
        if group is None:
            return None
        found = self._attribute(group, attribute)
        if found is None:  # long lists are cut into pieces
            pieces = [self._attribute(group, f"{attribute}{i}") for i in range(100) if f"{attribute}{i}" in group.attrs]
            found = [name for piece in pieces if piece is not None for name in piece] if pieces else None
        if found is None:
            return None
        listed = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]
        return listed[:MAX_NODES]

    def _attribute(self, group: Any, name: str) -> Any:
        if name not in group.attrs:
            return None
        described = group.attrs.get_id(name)
        if math.prod(described.shape) * described.dtype.itemsize > _MAX_CONFIG_BYTES:
            raise WeightsError(f"expected at most {_MAX_CONFIG_BYTES} bytes in the attribute {name}")
        return group.attrs[name]

    def _child(self, group: Any, path: str) -> Any:
        """A member reached by hard links only: other links can lead out of the file."""
        for part in path.strip("/").split("/") if group is not None else ():
            if not isinstance(group, self._h5py.Group) or not isinstance(
                group.get(part, getlink=True), self._h5py.HardLink
            ):
                return None
            group = group[part]
        return group

    def _array(self, dataset: Any) -> Floats | None:
        if dataset is None:
            return None
        if not isinstance(dataset, self._h5py.Dataset) or dataset.dtype.kind != "f":
            raise WeightsError("expected arrays of floats, got something else")
        count = math.prod(dataset.shape)
        self._left -= count
        if count > MAX_WEIGHTS or self._left < 0:
            raise WeightsError(
                f"expected at most {MAX_WEIGHTS} weights, got {count} in {printable(dataset.name[-80:])}"
            )
        properties = dataset.id.get_create_plist()
        filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
        if dataset.external or dataset.is_virtual or not set(filters) <= set(_FILTERS):
            raise WeightsError(f"expected plain arrays, got {printable(dataset.name[-80:])} with its values elsewhere")
        chunk = math.prod(dataset.chunks or (0,))
        if chunk > 4 * MAX_WEIGHTS:
            raise WeightsError(f"expected small chunks, got one of {chunk} values")
        return np.asarray(dataset[()], np.float32)


class _opened:  # noqa: N801
    """Opens a file and turns what HDF5 raises into named errors."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _File:
        with MissingDependencyError.named():
            import h5py
        config, source = None, str(self._path)
        try:
            target: Any = source
            if zipfile.is_zipfile(self._path):
                config, target = _archive(self._path)
            self._handle = h5py.File(target, "r")
        except (OSError, ValueError, RuntimeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            reason = printable(str(error))[:100]
            raise WeightsError(f"expected a Keras file, got a damaged or another one ({reason})") from None
        return _File(h5py, self._handle, config)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._handle.close()
        if isinstance(error, (OSError, RuntimeError, KeyError, ValueError, TypeError)) and not isinstance(
            error, SqueezeNetError
        ):
            reason = printable(str(error))[:100]
            raise WeightsError(f"expected a Keras file, got a damaged one ({reason})") from None


def _archive(path: Path) -> tuple[bytes, io.BytesIO]:
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename: entry for entry in archive.infolist()}
        for name, limit in (("config.json", _MAX_CONFIG_BYTES), ("model.weights.h5", MAX_FILE_BYTES)):
            entry = sizes[name]
            if entry.file_size > limit or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} of {entry.file_size} bytes")
        return archive.read("config.json"), io.BytesIO(archive.read("model.weights.h5"))


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """Layers with their name, class, settings and the names of what they read, in the model's order."""
    before = ""
    for layer in config["config"]["layers"] if isinstance(config["config"], dict) else config["config"]:
        settings = layer["config"]
        name = str(settings.get("name") or layer.get("name"))
        sequential = [before] if before else []
        reads = list(_histories(layer["inbound_nodes"])) if "inbound_nodes" in layer else sequential
        yield {"name": name, "class_name": str(layer["class_name"]), "config": settings, "reads": reads}
        before = name


def _histories(nodes: Any, depth: int = 0) -> Iterator[str]:
    """Names of layers in any generation's description of what a layer reads."""
    if depth > _MAX_DEPTH:
        raise RecursionError
    if isinstance(nodes, dict):
        if isinstance(nodes.get("keras_history"), list):
            yield str(nodes["keras_history"][0])
            return
        nodes = list(nodes.values())
    if isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and all(isinstance(part, int) for part in nodes[1:3]):
            yield nodes[0]
            return
        for part in nodes:
            yield from _histories(part, depth + 1)


def _graph(layers: list[dict[str, Any]], read: _Read, source: str) -> GraphFile:
    if len(layers) > MAX_NODES:
        raise WeightsError(f"expected at most {MAX_NODES} layers, got {len(layers)}")
    nodes, image, size = list[Node](), "", None
    for layer in layers:
        settings = layer["config"]
        shape = settings.get("batch_shape") or settings.get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and shape[1] == shape[2] and isinstance(shape[1], int):
            size = size or shape[1]
        if layer["class_name"] == "InputLayer":
            image = image or layer["name"]
            continue
        if not layer["reads"]:  # the first of a sequential model without an input layer
            layer["reads"] = [image or "input"]
            image = image or "input"
        try:
            nodes += _nodes(layer, read)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, SqueezeNetError):
                raise
            shown = printable(layer["name"][:80])
            raise WeightsError(f"{shown}: expected the settings of a Keras layer ({type(error).__name__})") from None
    is_known = any(node.name == _CAFFE_NAME for node in nodes)
    rescales = any(node.kind == "affine" and node.inputs == [image] for node in nodes)
    name = "keras" if is_known else "raw" if rescales else "torchvision"
    origin = "that of the published Keras SqueezeNet, whose names it has" if is_known else "a guess"
    if rescales and not is_known:
        origin = "in the file's first layer"
    graph = Graph(nodes, image, source, size or _INPUT_SIZE)
    return GraphFile(graph, "Keras" if is_known else "its own", CONVENTIONS[name], origin)


def _nodes(layer: dict[str, Any], read: _Read) -> list[Node]:
    name, kind, settings = layer["name"], layer["class_name"], layer["config"]
    if settings.get("data_format", "channels_last") not in ("channels_last", None):
        kind = f"{kind} of {printable(str(settings['data_format'])[:40])}"
    activation = settings.get("activation", "linear")
    if isinstance(activation, dict):
        activation = activation.get("class_name")
    node = Node(kind, layer["reads"], name, name)
    if kind in _IDENTITIES or (kind == "Activation" and activation in ("softmax", "linear")):
        node.kind = "identity"
    elif kind in ("Conv2D", "Convolution2D", "Dense"):
        _convolution(node, kind, settings, activation, read)
    elif (kind == "Activation" and activation == "relu") or (
        kind == "ReLU" and not settings.get("max_value") and not settings.get("negative_slope")
    ):
        node.kind = "relu"
    elif kind in ("MaxPooling2D", "AveragePooling2D"):
        node.kind = "max_pool" if kind == "MaxPooling2D" else "average_pool"
        node.kernel = _pair(settings["pool_size"])
        node.stride = _pair(settings.get("strides") or settings["pool_size"])
        node.pads = SAME if settings["padding"] == "same" else (0, 0, 0, 0)
    elif kind == "GlobalAveragePooling2D":
        node.kind = "mean"
    elif kind == "Concatenate":
        node.kind, node.is_plain = "concat", settings.get("axis", -1) in (-1, 3)
    elif kind == "Add":
        node.kind = "add"
    elif kind == "ZeroPadding2D":
        (top, bottom), (left, right) = settings["padding"]
        node.kind, node.pads = "pad", (int(top), int(left), int(bottom), int(right))
    elif kind == "Rescaling":
        node.kind = "affine"
        node.weight, node.bias = (np.atleast_1d(np.array(settings[key], np.float32)) for key in ("scale", "offset"))
    elif kind == "BatchNormalization":
        _norm(node, settings, read)
    return [node]


def _convolution(node: Node, kind: str, settings: dict[str, Any], activation: Any, read: _Read) -> None:
    node.kind, kernel = "conv", read(node.name, 0)
    bias = read(node.name, 1) if settings.get("use_bias", True) else None
    if kernel is None:
        raise WeightsError(f"expected the weights of {printable(node.name[:80])} in the file, got none")
    if kind == "Dense":
        kernel = kernel.reshape(1, 1, *kernel.shape)
    else:
        node.stride = _pair(settings["strides"])
        node.pads = SAME if settings["padding"] == "same" else (0, 0, 0, 0)
        node.is_plain = _pair(settings.get("dilation_rate", 1)) == (1, 1) and settings.get("groups", 1) == 1
        node.is_plain &= settings["padding"] in ("same", "valid")
    if kernel.ndim == 4:
        node.weight = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    node.bias = bias
    node.relu = activation == "relu"
    node.is_plain &= activation in ("relu", "linear", "softmax", None)


def _norm(node: Node, settings: dict[str, Any], read: _Read) -> None:
    count = 2 + bool(settings.get("scale", True)) + bool(settings.get("center", True))
    arrays = [read(node.name, index) for index in range(count)]
    found = [array.astype(np.float64).reshape(-1) for array in arrays if array is not None]
    if len(found) != count or len({array.size for array in found}) != 1:
        raise WeightsError(f"expected the weights of {printable(node.name[:80])} in the file, got none")
    gamma = found.pop(0) if settings.get("scale", True) else np.ones_like(found[0])
    beta = found.pop(0) if settings.get("center", True) else np.zeros_like(found[0])
    with np.errstate(all="ignore"):  # what is not finite is refused later
        factor = gamma / np.sqrt(found[1] + float(settings.get("epsilon", 1e-3)))
    node.kind, node.weight = "affine", factor.astype(np.float32)
    node.bias = (beta - found[0] * factor).astype(np.float32)


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name[:200])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() and len(number) < 10 else (name, 0)
