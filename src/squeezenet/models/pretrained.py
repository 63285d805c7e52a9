"""Functions that build networks by name, untrained or with published weights, and load any MODEL by its path."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..architectures import named_spec
from ..errors import WeightsError
from ..imports import read_foreign
from ..imports.bounded import check_file
from ..imports.torch_file import TensorReference, read_torch
from ..labels import Labels
from ..preprocess import TORCHVISION_PREPROCESSING, Preprocessing
from ..progress import reporter_for
from ..zoo import find_model
from .authors_net import load_net
from .download import fetch_weights
from .integer import model_from_sqz
from .squeezenet import SqueezeNet
from .tensors import model_from_foreign, model_from_state
from .weights import load_safetensors

__all__ = ["WEIGHTS", "PublishedWeights", "create_model", "load_model", "squeezenet1_0", "squeezenet1_1"]


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Facts about weights that were published by others."""

    file: str
    """Name of the file at `download.WEIGHTS_URL`."""
    sha256: str
    """Digest of the file in hex, or its first digits if only these are published. Eight digits detect damage, but not
    a forged file; tensors with other names or shapes are refused in any case."""
    parameters: int
    top1: float
    """Percent of the 50,000 ImageNet validation images, one central crop, as published."""
    top5: float
    label_set: str = "imagenet-1k"
    preprocessing: Preprocessing = TORCHVISION_PREPROCESSING

    @property
    def labels(self) -> Labels:
        """Names of the classes, in output order."""
        return Labels.from_dict({"set": self.label_set})


_1_0 = PublishedWeights(
    file="squeezenet1_0-b66bff10.pth", sha256="b66bff10", parameters=1_248_424, top1=58.092, top5=80.420
)
_1_1 = PublishedWeights(
    file="squeezenet1_1-b8a52dc0.pth", sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    parameters=1_235_496, top1=58.178, top5=80.624,
)  # fmt: skip

WEIGHTS = {"squeezenet1_0": {"IMAGENET1K_V1": _1_0}, "squeezenet1_1": {"IMAGENET1K_V1": _1_1}}
"""torchvision's weights by architecture and name; the first name of each architecture is its `DEFAULT`."""


def squeezenet1_0(
    pretrained: bool = False, progress: bool = True, *, weights: str | None = None, **options: Any
) -> SqueezeNet:
    """Build SqueezeNet 1.0, the network of the paper, with torchvision's arguments.

    Args:
        pretrained: The same as `weights="DEFAULT"`.
        progress: Show a download's progress.
        weights: A name in `WEIGHTS["squeezenet1_0"]`, `DEFAULT`, or None for an untrained network.
        options: As in `create_model`: `num_classes`, `dropout`, `input_size`, ...

    Raises:
        SqueezeNetError: As `create_model` does.

    Example:
        >>> squeezenet1_0(num_classes=10).spec.num_classes
        10
    """
    return create_model("squeezenet1_0", pretrained=pretrained, weights=weights, progress=progress, **options)


def squeezenet1_1(
    pretrained: bool = False, progress: bool = True, *, weights: str | None = None, **options: Any
) -> SqueezeNet:
    """Build SqueezeNet 1.1 with torchvision's arguments; it has the accuracy of 1.0 at 2.4 times less computation.

    Args:
        pretrained: The same as `weights="DEFAULT"`.
        progress: Show a download's progress.
        weights: A name in `WEIGHTS["squeezenet1_1"]`, `DEFAULT`, or None for an untrained network.
        options: As in `create_model`.

    Raises:
        SqueezeNetError: As `create_model` does.

    Example:
        >>> squeezenet1_1(num_classes=10).spec.num_classes
        10
    """
    return create_model("squeezenet1_1", pretrained=pretrained, weights=weights, progress=progress, **options)


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | None = None,
    num_classes: int = 1000,
    input_size: int = 224,
    progress: bool = True,
    dropout: float = 0.5,
    **options: Any,
) -> SqueezeNet:
    """Build a named network, in training mode as torch builds them.

    Args:
        name: One of `SPEC_NAMES`.
        pretrained: Start from the published ImageNet weights, downloaded on first use: `weights="DEFAULT"`.
        weights: Name of published weights in `WEIGHTS[name]`, or `DEFAULT`.
        num_classes: Number of outputs. If it differs from that of the published weights, a new head is put on the
            published features, without ReLU unless `head_relu` is set.
        input_size: Height and width of the input in pixels; below 96 the small-image form is built.
        progress: Show a download's progress.
        dropout: Share of feature values that training sets to zero before the head.
        options: Other fields of `ArchSpec` (`bypass`, `head_relu`, `squeeze_relu`, `batch_norm`, ...) and
            metaparameters, as in `named_spec`.

    Raises:
        SpecError: If the name or an option is unknown, or the architecture is impossible.
        DownloadError: If published weights cannot be downloaded.
        WeightsError: If there are no published weights of this name for the architecture.

    Example:
        >>> create_model("squeezenet1_1", num_classes=10).classifier[1].out_channels
        10
    """
    spec = named_spec(name, input_size=input_size, **options)
    if weights is None and not pretrained:
        return SqueezeNet(spec, num_classes, dropout)
    published = _published(name, "DEFAULT" if weights is None else weights)
    path = fetch_weights(published.file, sha256=published.sha256, progress=progress)
    model = model_from_state(spec, _tensors(path), dropout=dropout, source=path.name)
    how = published.preprocessing
    model.labels = published.labels
    model.preprocessing = dataclasses.replace(
        how, crop_size=input_size, resize_size=round(input_size * how.resize_size / how.crop_size)
    )
    model.provenance = {"source": path.name}
    if num_classes != spec.num_classes:
        model.reset_classifier(num_classes, head_relu=options.get("head_relu", False))
    return model


def _tensors(path: Path) -> dict[str, Tensor]:
    content = read_torch(path)
    found = content.items() if isinstance(content, dict) else ()
    return {name: torch.from_numpy(part.read()) for name, part in found if isinstance(part, TensorReference)}


def _published(name: str, weights: object) -> PublishedWeights:
    if name not in WEIGHTS:
        raise WeightsError(f"expected one of {', '.join(WEIGHTS)} for published weights, got {name!r}")
    by_name = WEIGHTS[name]
    if weights == "DEFAULT":
        return next(iter(by_name.values()))
    if not isinstance(weights, str) or weights not in by_name:
        names = ", ".join((*by_name, "DEFAULT"))
        raise WeightsError(f"expected one of {names} or None for `weights` of {name}, got {weights!r}")
    return by_name[weights]


def load_model(source: str | os.PathLike[str], *, num_classes: int | None = None) -> SqueezeNet:
    """Load the network that a MODEL argument names, as a float network in training mode.

    Args:
        source: See `find_model`. The weights of a `.sqz` file are converted to floats; activations are not rounded.
        num_classes: Number of classes; if the network has another number, it gets a new head.

    Raises:
        ModelNotFoundError: If no network has this name or path.
        WeightsError: If its weights cannot be read.
        FormatError: If a `.sqz` file is malformed.
        DownloadError: If published weights cannot be downloaded.
        SpecError: If `num_classes` is out of range.

    Example:
        >>> load_model("cifar10").spec.input_size
        32
    """
    model = _load(source)
    if num_classes not in (None, model.spec.num_classes):
        model.reset_classifier(num_classes)
    return model.train()


def _load(source: str | os.PathLike[str]) -> SqueezeNet:
    found = find_model(source)
    if found.path is None:  # weights that are fetched; `imagenet` is made of those of 1.1
        return create_model(found.name if found.kind == "published" else "squeezenet1_1", pretrained=True)
    check_file(found.path)
    if found.kind == "foreign":
        foreign = read_foreign(found.path)
        if foreign.convention_from == "a guess":
            advice = "verify it with `squeezenet import --check PHOTOS`"
            reporter_for().say(f"{found.name}: its preprocessing is torchvision's, a guess: {advice}")
        return model_from_foreign(foreign)
    load = {"safetensors": load_safetensors, "net": load_net}.get(found.kind, model_from_sqz)
    return load(found.path)
