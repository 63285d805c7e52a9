"""Networks by name, new or with published weights, and any model a user can point at.

`load_model` is the one place that decides what a MODEL argument means.

Use this when you want a network ready to train or to run.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ..errors import WeightsError
from ..labels import imagenet_labels
from ..preprocess import TORCHVISION_PREPROCESSING
from ..spec import named_spec
from ..zoo import find_model
from .authors_net import load_net
from .download import fetch_weights
from .integer import model_from_sqz
from .squeezenet import SqueezeNet, build_model, model_from_state
from .weights import check_file, load_safetensors, read_pth

__all__ = ["PUBLISHED_WEIGHTS", "create_model", "load_model", "squeezenet1_0", "squeezenet1_1"]

PUBLISHED_WEIGHTS = {
    "squeezenet1_0": "squeezenet1_0-b66bff10.pth",
    "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
}
"""torchvision's ImageNet weights; the name of each file holds the start of its SHA-256."""


def squeezenet1_0(
    *, num_classes: int = 1000, pretrained: bool = False, progress: bool = True, dropout: float = 0.5, **options: Any
) -> SqueezeNet:
    """Build SqueezeNet 1.0, the network of the paper: `create_model("squeezenet1_0", ...)`."""
    return create_model(
        "squeezenet1_0", num_classes=num_classes, pretrained=pretrained, progress=progress, dropout=dropout, **options
    )


def squeezenet1_1(
    *, num_classes: int = 1000, pretrained: bool = False, progress: bool = True, dropout: float = 0.5, **options: Any
) -> SqueezeNet:
    """Build SqueezeNet 1.1, 2.4 times less work than 1.0 at its accuracy: `create_model("squeezenet1_1", ...)`."""
    return create_model(
        "squeezenet1_1", num_classes=num_classes, pretrained=pretrained, progress=progress, dropout=dropout, **options
    )


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    pretrained: bool = False,
    input_size: int = 224,
    progress: bool = True,
    dropout: float = 0.5,
    **options: Any,
) -> SqueezeNet:
    """Build a named network, in training mode as torch builds them.

    Args:
        name: One of `SPEC_NAMES`.
        num_classes: Outputs. With `pretrained`, any number but 1000 puts a new head on the published features, without
            ReLU unless `head_relu` asks for it.
        pretrained: Start from torchvision's ImageNet weights, downloaded on first use.
        input_size: Height and width in pixels that the network is meant for; below 96 its small-image form is built.
        progress: Show a download's progress.
        dropout: Share of feature values that training sets to zero before the head.
        options: Other fields of `ArchSpec` (`bypass`, `head_relu`, `squeeze_relu`, `batch_norm`, ...).

    Raises:
        SpecError: If the name is unknown or the options make no network.
        DownloadError: If published weights cannot be fetched.
        WeightsError: If none are published for this architecture.
    """
    if not pretrained:
        return build_model(named_spec(name, input_size=input_size, num_classes=num_classes, **options), dropout=dropout)
    spec = named_spec(name, input_size=input_size, **options)
    if name not in PUBLISHED_WEIGHTS:
        raise WeightsError(f"expected one of {', '.join(PUBLISHED_WEIGHTS)} for published weights, got {name!r}")
    path = fetch_weights(PUBLISHED_WEIGHTS[name], progress=progress)
    model = model_from_state(spec, read_pth(path), dropout=dropout, source=path.name)
    model.labels = imagenet_labels()
    model.preprocessing = dataclasses.replace(
        TORCHVISION_PREPROCESSING,
        crop_size=input_size,
        resize_size=round(input_size * TORCHVISION_PREPROCESSING.resize_size / TORCHVISION_PREPROCESSING.crop_size),
    )
    model.provenance = {"source": path.name}
    if num_classes != spec.num_classes:
        model.reset_classifier(num_classes, head_relu=options.get("head_relu", False))
    return model


def load_model(source: str | os.PathLike[str], *, num_classes: int | None = None) -> SqueezeNet:
    """Load whatever a MODEL argument names, as a float network in training mode.

    Args:
        source: See `find_model`; the float network that a `.sqz` file stands for does not round its activations.
        num_classes: Put a new head for so many classes on it, unless it has as many.

    Raises:
        ModelNotFoundError: If the source names nothing.
        WeightsError: If its weights cannot be read.
        FormatError: If a `.sqz` file is malformed.
        DownloadError: If published weights cannot be fetched.
        SpecError: If `num_classes` is out of range.
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
    load = {"safetensors": load_safetensors, "net": load_net}.get(found.kind, model_from_sqz)
    return load(found.path)
