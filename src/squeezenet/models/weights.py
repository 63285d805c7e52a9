"""Weight files of torch networks: safetensors with the network's description in it.

The description is JSON with `spec`, `labels`, `preprocessing` and `provenance`, under the key `squeezenet` of the
file's `__metadata__`. A file without it is taken for one of torchvision's networks, recognised by its tensors' names
and shapes. Every file is hostile until its sizes have been checked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..architectures import SPEC_NAMES, named_spec
from ..errors import SqueezeNetError, WeightsError
from ..files import atomic_write
from ..imports.bounded import MAX_FILE_BYTES, MAX_HEADER_BYTES, read_bounded
from ..labels import Labels, imagenet_labels
from ..preprocess import TORCHVISION_PREPROCESSING, Preprocessing
from ..spec import ArchSpec
from ..text import printable
from .squeezenet import SqueezeNet
from .tensors import model_from_state, state_shapes

__all__ = ["infer_spec", "load_safetensors", "save_safetensors"]

METADATA_KEY = "squeezenet"

_MAX_TENSORS = 4096  # 64 Fire modules of four convolutions, each with its batch norm, have 1,546
_DTYPES = ("F16", "BF16", "F32", "F64", "I64")  # I64: how many batches a batch norm has seen
_IMAGENET_CLASSES = 1000
_FIRST = "features.0.weight"
_COUNTERS = ("n_averaged", "total_ops", "total_params")  # of torch's averaged models, and of thop


def save_safetensors(model: SqueezeNet, path: str | os.PathLike[str]) -> None:
    """Write a network to a file with its spec, labels, preprocessing and provenance.

    The same network gives the same bytes. If writing fails, no partial file remains.

    Args:
        model: The network; a head or stem that was replaced by hand is stored too.
        path: The `.safetensors` file.

    Raises:
        SpecError: If a layer was replaced by one that a spec cannot describe.
        WeightsError: If the model has tensors that its spec lacks, a weight is infinite or NaN, or the preprocessing
            crops to another size than the spec's `input_size`.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_safetensors(SqueezeNet("1_1", num_classes=3), f"{folder}/net.safetensors")
        ...     load_safetensors(f"{folder}/net.safetensors").spec.num_classes
        3
    """
    spec, _ = model.spec, model.convs  # which are refused if layers were replaced
    model_from_state(spec, model.state_dict(), source=str(path))  # the checks that `load_safetensors` makes
    if problem := _misfit(spec, model.preprocessing):
        raise WeightsError(problem, source=path)
    description = {
        "spec": spec.to_dict(),
        "labels": model.labels and model.labels.to_dict(),
        "preprocessing": model.preprocessing and model.preprocessing.to_dict(),
        "provenance": model.provenance,
    }
    metadata = {METADATA_KEY: json.dumps(description, ensure_ascii=False, allow_nan=False, separators=(",", ":"))}
    # Channels-last networks hold their weights in another order than files do.
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(path) as stream:
        stream.write(safetensors.torch.save(tensors, metadata))


def load_safetensors(path: str | os.PathLike[str]) -> SqueezeNet:
    """Read a network as float32, in training mode as torch builds them.

    Args:
        path: A file of `save_safetensors`, or a file with the tensors of a torchvision SqueezeNet. The latter gets
            torchvision's preprocessing and, if it has 1000 classes, the labels of ImageNet.

    Raises:
        WeightsError: If the file cannot be read, is malformed, or does not contain a SqueezeNet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_safetensors(SqueezeNet("1_1", num_classes=3), f"{folder}/net.safetensors")
        ...     load_safetensors(f"{folder}/net.safetensors").spec.num_classes
        3
    """
    data = read_bounded(path, max_bytes=MAX_FILE_BYTES)
    description = _read_description(data, path)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise WeightsError(f"{path}: expected a safetensors file, got something else ({printable(error)})") from None
    if description is None:
        return _torchvision_model(tensors, str(path))
    try:
        spec, labels, preprocessing, provenance = _parse_description(description)
    except SqueezeNetError as error:
        raise WeightsError(f"{path}: the description of the network is damaged: {printable(error)}") from None
    model = model_from_state(spec, tensors, source=str(path))
    model.labels, model.preprocessing, model.provenance = labels, preprocessing, provenance
    return model


def infer_spec(shapes: Mapping[str, tuple[int, ...]], *, source: str = "state dict") -> ArchSpec:
    """Recognise a named architecture by the names and shapes of its tensors, in torchvision's naming.

    A simple bypass has no tensors and cannot be seen; it is taken for none.

    Raises:
        WeightsError: If they are not those of any of `SPEC_NAMES`; `source` names their file.
    """
    num_classes = next(iter(shapes.get("classifier.1.weight", ())), 0)
    differences = []
    for name in SPEC_NAMES:
        try:
            spec = named_spec(name, num_classes=num_classes)
        except SqueezeNetError:
            break
        expected = state_shapes(spec)
        if different := [key for key in {**expected, **shapes} if expected.get(key) != shapes.get(key)]:
            differences.append((len(different), name, different[0]))
        else:
            return spec
    # Name the nearest architecture in the message.
    nearest = f": {', '.join(printable(name) for name in [*shapes][:3])}, ... ({len(shapes)} in all)" if shapes else ""
    if differences:
        count, name, key = min(differences)
        nearest = f"; the nearest, {name}, differs in {count} tensors, {printable(key)} the first"
    raise WeightsError(f"{source}: expected the tensors of one of {', '.join(SPEC_NAMES)}, got others{nearest}")


def _read_description(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Check the file's header and return the network's description in it, as yet unchecked; None if there is none."""
    header_bytes = int.from_bytes(data[:8], "little")
    if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise WeightsError(
            f"{path}: expected a safetensors file, got a header of {header_bytes} bytes in a file of {len(data)}"
        )
    try:
        header = json.loads(data[8 : 8 + header_bytes])
        metadata = header.pop("__metadata__", {})
        if len(header) > _MAX_TENSORS:
            raise WeightsError(f"{path}: expected at most {_MAX_TENSORS} tensors, got {len(header)}")
        for name, entry in header.items():
            if (dtype := entry["dtype"]) not in _DTYPES:
                expected = ", ".join(_DTYPES)
                raise WeightsError(f"{path}: {printable(name)}: expected one of {expected}, got {printable(dtype)}")
        return json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: expected a safetensors header, got broken JSON ({type(error).__name__}: {error})"
        ) from None


def _parse_description(description: Any) -> tuple[ArchSpec, Labels | None, Preprocessing | None, dict[str, Any]]:
    if not isinstance(description, dict) or not isinstance(description.get("spec"), dict):
        raise WeightsError("expected an object with a `spec`")
    parts = [description.get(key) for key in ("labels", "preprocessing", "provenance")]
    for part in parts:
        if not isinstance(part, (dict, type(None))):
            raise WeightsError(f"expected objects for labels, preprocessing and provenance, got {type(part).__name__}")
    spec = ArchSpec.from_dict(description["spec"])
    labels = None if parts[0] is None else Labels.from_dict(parts[0])
    preprocessing = None if parts[1] is None else Preprocessing.from_dict(parts[1])
    if labels is not None and len(labels) != spec.num_classes:
        raise WeightsError(f"expected {spec.num_classes} labels, got {len(labels)}")
    if problem := _misfit(spec, preprocessing):
        raise WeightsError(problem)
    return spec, labels, preprocessing, parts[2] or {}


def _misfit(spec: ArchSpec, preprocessing: Preprocessing | None) -> str:
    if preprocessing is None or preprocessing.crop_size == spec.input_size:
        return ""
    return (
        f"expected a preprocessing that crops to the `input_size` of the spec (={spec.input_size}),"
        f" got `crop_size` {preprocessing.crop_size}"
    )


def _plain_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str, list[str]]:
    """Take the prefix of a wrapper off all names; returns it, too, and the counters that were left out."""
    counters = sorted({name.rpartition(".")[2] for name in tensors} & {*_COUNTERS})
    left = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in counters}
    prefixes = [name.removesuffix(_FIRST) for name in left if name.endswith(f".{_FIRST}")]
    prefix = prefixes[0] if len(prefixes) == 1 and all(name.startswith(prefixes[0]) for name in left) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in left.items()}, prefix, counters


def _torchvision_model(tensors: Mapping[str, Tensor], source: str) -> SqueezeNet:
    tensors, prefix, counters = _plain_names(tensors)
    spec = infer_spec({name: tuple(tensor.shape) for name, tensor in tensors.items()}, source=source)
    model = model_from_state(spec, tensors, source=source)
    model.provenance = {"source": Path(source).name}
    notes = [f"without the prefix `{prefix}`"] if prefix else []
    notes += [f"without the counters `{name}`" for name in counters]
    if notes:
        model.provenance["tensors"] = ", ".join(notes)
    model.preprocessing = TORCHVISION_PREPROCESSING  # what torchvision's weights and its users' networks expect
    if spec.num_classes == _IMAGENET_CLASSES:
        model.labels = imagenet_labels()
    return model
