"""`read_foreign`, which recognises the format of a file and reads its network."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MissingDependencyError, SqueezeNetError, WeightsError
from ..labels import Labels, imagenet_labels
from ..network import FloatConv, FloatNetwork
from ..preprocess import Preprocessing
from ..spec import ArchSpec, Bypass
from .bounded import check_file
from .caffe_file import read_caffe
from .conventions import CONVENTIONS, Convention, GraphFile, with_rgb_input
from .graph import Floats
from .keras_file import read_keras, read_keras_weights
from .match import match
from .ncnn_file import read_ncnn
from .onnx_file import read_onnx
from .state_dict import network_from_state
from .tflite_file import read_tflite
from .torch_file import read_torch

__all__ = ["ForeignNetwork", "read_foreign"]

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class ForeignNetwork:
    """A network from a file of another program."""

    source: str
    """Name of the file."""
    spec: ArchSpec
    convs: Mapping[str, FloatConv[Floats]]
    """Convolutions from the file, in the order (O, I, k, k); the first one may expect blue, green, red."""
    format: str
    """`torch`, `onnx`, `keras`, `caffe`, `ncnn` or `tflite`."""
    names: str
    """The naming scheme of the weights, such as torchvision's."""
    convention: Convention
    """Channel order and preprocessing that the network expects."""
    convention_from: str
    """How the convention was found, or that it is a guess."""
    labels: Labels | None
    notes: tuple[str, ...] = ()
    """Notes on what was ignored or assumed."""
    affine: tuple[Floats, Floats] | None = None
    """Scaling of pixels at the start of the file's graph."""

    def network(self, convention: Convention | None = None) -> FloatNetwork:
        """Build the network that reads RGB, for the file's convention or another one."""
        chosen = convention or self.convention
        how = _with_affine(chosen, self.affine).at(self.spec.input_size)
        return FloatNetwork(self.spec, with_rgb_input(self.convs, is_bgr=chosen.is_bgr), how, self.labels)


def read_foreign(path: str | os.PathLike[str], *, bypass: Bypass = "none") -> ForeignNetwork:
    """Read the SqueezeNet in a file of torch, ONNX, Keras, Caffe, ncnn or TFLite; no code from it is run.

    Args:
        path: The file; its format is recognised by its contents or, if these are ambiguous, by its suffix.
        bypass: `simple` for a torch state dict of a network with a simple bypass, which has no tensors.

    Raises:
        WeightsError: If the file cannot be read, or is not a SqueezeNet; the message states where it differs.
        MissingDependencyError: If the format needs a package that is not installed.
    """
    path = Path(path)
    check_file(path)
    kind = _format(path)
    try:
        if kind == "torch":
            return _from_torch(path, bypass)
        return _from_graph(kind, path)
    except MissingDependencyError:
        raise
    except SqueezeNetError as error:
        raise WeightsError(error.reason, source=error.source or path) from None
    except RecursionError:
        raise WeightsError("expected a network, got a structure that is nested too deeply", source=path) from None


def _format(path: Path) -> str:
    """Recognise the format by the contents or, if these are ambiguous, by the suffix."""
    with path.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(b"\x89SQZ"):
        raise WeightsError(
            "expected a network of another program, got a .sqz file: commands read it as it is", source=path
        )
    suffix = path.suffix.lower()
    if start.startswith(b"\x89HDF\r\n\x1a\n") or suffix in (".keras", ".h5", ".hdf5"):
        return "keras"
    if start[4:8] == b"TFL3" or suffix == ".tflite":
        return "tflite"
    if (
        start.startswith(b"7767517")
        or suffix == ".param"
        or (suffix == ".bin" and path.with_suffix(".param").is_file())
    ):
        return "ncnn"
    return {".onnx": "onnx", ".caffemodel": "caffe"}.get(suffix, "torch")


def _from_torch(path: Path, bypass: Bypass) -> ForeignNetwork:
    if bypass == "none" and "squeezeresnet" in path.name.lower():  # pytorchcv's network with a simple bypass
        bypass = "simple"
    found = network_from_state(read_torch(path), str(path), bypass=bypass)
    is_known = found.names in ("torchvision", "pytorchcv")
    return ForeignNetwork(
        source=path.name, spec=found.spec, convs=found.convs, format="torch", names=found.names,
        convention=CONVENTIONS["torchvision"],
        convention_from=f"that of {found.names}'s networks" if is_known else "a guess", labels=_labels(found.spec),
        notes=found.notes,
    )  # fmt: skip


_READERS: dict[str, Callable[[Path], GraphFile | None]] = {
    "caffe": read_caffe, "keras": read_keras, "ncnn": read_ncnn, "onnx": read_onnx, "tflite": read_tflite,
}  # fmt: skip


def _from_graph(kind: str, path: Path) -> ForeignNetwork:
    found = _READERS[kind](path)
    if found is None:  # weights alone
        network, convention, origin = read_keras_weights(path)
        return ForeignNetwork(
            source=path.name, spec=network.spec, convs=network.convs, format=kind, names=network.names,
            convention=convention, convention_from=origin, labels=_labels(network.spec), notes=network.notes,
        )  # fmt: skip
    spec, convs = match(found.graph)
    labels = found.labels if found.labels is not None and len(found.labels) == spec.num_classes else _labels(spec)
    return ForeignNetwork(
        source=path.name, spec=spec, convs=convs, format=kind, names=found.names, convention=found.convention,
        convention_from=found.convention_from, labels=labels, notes=found.notes, affine=found.graph.affine,
    )  # fmt: skip


def _labels(spec: ArchSpec) -> Labels | None:
    return imagenet_labels() if spec.num_classes == _IMAGENET_CLASSES else None


def _with_affine(convention: Convention, affine: tuple[Floats, Floats] | None) -> Convention:
    """Take a graph's own scaling of pixels into the preprocessing."""
    if affine is None:
        return convention
    factor, offset = (np.broadcast_to(part.astype(np.float64), 3) for part in affine)
    if convention.is_bgr:
        factor, offset = factor[::-1], offset[::-1]
    if not (factor > 0).all():
        raise WeightsError(f"expected positive factors for the pixels, got {factor.tolist()}")
    how = convention.preprocessing
    # factor * (p - mean) / std + offset == (p - (mean - offset * std / factor)) / (std / factor)
    std = np.array(how.std) / factor
    mean = np.array(how.mean) - offset * std
    changed: Preprocessing = dataclasses.replace(how, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    return dataclasses.replace(convention, preprocessing=changed)
