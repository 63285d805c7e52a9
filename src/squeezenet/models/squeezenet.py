"""SqueezeNet as torch modules, built from an `ArchSpec`.

Names of modules and tensors, constructor arguments, initialisation, dropout and pooling are those of torchvision, so
state dicts can be exchanged without a mapping. The layers of a network are built from its spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..architectures import SPEC_NAMES, named_spec
from ..errors import ImageError, SpecError
from ..images import ImageSource
from ..labels import Labels
from ..preprocess import Preprocessing
from ..spec import ArchSpec, StemSpec
from .fire import Fire, activation_of, conv_of

__all__ = ["Fire", "SqueezeNet", "normalize_pixels"]

_HEAD_STD = 0.01  # torchvision's initialisation of the last convolution
_VERSIONS = tuple(name.removeprefix("squeezenet") for name in SPEC_NAMES)


class SqueezeNet(nn.Module):
    """A SqueezeNet: `features` (stem, pools, Fire modules) and `classifier` (dropout, conv10, ReLU, average).

    Inputs are normalised float images, of any size that is large enough for the pools; `transform` prepares them.

    Args:
        version: As in torchvision, `1_0` or `1_1`, also with `_simple_bypass` or `_complex_bypass` after it; or an
            `ArchSpec`.
        num_classes: Number of outputs; by default that of the `ArchSpec`, or 1000.
        dropout: Share of feature values that are set to zero before the head during training.

    Raises:
        SpecError: If the version is unknown, or the number of classes is out of range.

    Example:
        >>> model = SqueezeNet("1_1", num_classes=10)
        >>> model(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 10])
        >>> model.classifier[1] = nn.Conv2d(512, 3, kernel_size=1)
        >>> model.spec.num_classes
        3
    """

    # torch.jit.script would compile them; none is part of the computation.
    __jit_unused_properties__ = ["conv_paths", "convs", "dropout", "head", "labels", "num_classes", "spec"]

    def __init__(self, version: str | ArchSpec = "1_0", num_classes: int | None = None, dropout: float = 0.5) -> None:
        super().__init__()
        if isinstance(version, ArchSpec):
            spec = version
        elif version in _VERSIONS:
            spec = named_spec(f"squeezenet{version}")
        else:
            raise SpecError(f"expected an ArchSpec or one of {', '.join(_VERSIONS)} for `version`, got {version!r}")
        if num_classes is not None:
            spec = spec.replace(num_classes=num_classes)
        self._spec = spec
        self._labels: Labels | None = None
        self._announced_classes: int | None = None
        self.preprocessing: Preprocessing | None = None
        """Preprocessing of the images that the weights were trained on, if it is known."""
        self.provenance = dict[str, Any]()
        """How the weights were made, as plain data for JSON; stored in weight files."""
        self.features = nn.Sequential()
        self._layer_paths = dict[str, str]()
        fires = iter(spec.fires)
        first_ops = {op.name.partition(".")[0]: op for op in reversed(spec.graph())}
        for layer, op in reversed(first_ops.items()):
            if op.is_head:
                self._layer_paths[layer] = "classifier.1"
                layers = nn.Dropout(dropout), conv_of(op), activation_of(op), nn.AdaptiveAvgPool2d((1, 1))
                self.classifier = nn.Sequential(*layers)
                continue
            self._layer_paths[layer] = f"features.{len(self.features)}"
            if op.kind == "max_pool":
                self.features.append(nn.MaxPool2d(op.kernel, op.stride, ceil_mode=op.ceil_mode))
            elif op.name == layer:
                self.features.append(conv_of(op, batch_norm=spec.batch_norm is True))
                self.features.append(activation_of(op))
            else:
                fire = next(fires)
                module = Fire(
                    op.in_channels, fire.squeeze_channels, fire.expand1x1_channels, fire.expand3x3_channels,
                    bypass=spec.bypass, squeeze_relu=spec.squeeze_relu, batch_norm=spec.batch_norm,
                )  # fmt: skip
                self.features.append(module)
        self._initialize()

    @property
    def spec(self) -> ArchSpec:
        """The architecture. It is updated if a head or a stem is replaced by hand (`classifier`, `features[0]`).

        Raises:
            SpecError: If a spec cannot describe the new head or stem.
        """
        if changes := {**_head_changes(self.classifier, self._spec), **_stem_changes(self.features[0], self._spec)}:
            self._spec = self._spec.replace(**changes)
        if self._announced_classes not in (None, self._spec.num_classes):
            raise SpecError(
                f"`num_classes` was set to {self._announced_classes}, but the head has {self._spec.num_classes}"
                f" outputs: replace `classifier[1]`, or call `reset_classifier({self._announced_classes})`"
            )
        self._announced_classes = None
        return self._spec

    @spec.setter
    def spec(self, spec: ArchSpec) -> None:
        self._spec = spec

    @property
    def labels(self) -> Labels | None:
        """Names of the classes; None if they are not known, or if the head has another number of classes."""
        return self._labels if self._labels is not None and len(self._labels) == self.num_classes else None

    @labels.setter
    def labels(self, labels: Labels | None) -> None:
        self._labels = labels

    @property
    def num_classes(self) -> int:
        """Number of outputs. Notebooks for torchvision set it before they replace the head by hand; this is
        allowed.
        """
        return self.head.out_channels

    @num_classes.setter
    def num_classes(self, count: int) -> None:
        self._announced_classes = count

    @property
    def conv_paths(self) -> dict[str, str]:
        """Path of each convolution in the module tree, by its name in the spec, in network order.

        `conv_paths["fire2.squeeze"]` is `features.3.squeeze`; `get_submodule` takes it.
        """
        paths = {}
        for op in self._spec.convs:
            layer, _, part = op.name.partition(".")
            paths[op.name] = f"{self._layer_paths[layer]}.{part}" if part else self._layer_paths[layer]
        return paths

    @property
    def convs(self) -> dict[str, nn.Conv2d]:
        """The convolutions by their names in the spec, in network order.

        Raises:
            SpecError: If a layer was replaced by one that a spec cannot describe.
        """
        _check_features(self.features, self.spec)
        convs: dict[str, nn.Conv2d] = {}
        for name, path in self.conv_paths.items():
            module = self.get_submodule(path)
            assert isinstance(module, nn.Conv2d)
            convs[name] = module
        return convs

    @property
    def head(self) -> nn.Conv2d:
        """The last convolution, one output channel per class.

        Raises:
            SpecError: If `classifier` was replaced by another kind of head.
        """
        _head_changes(self.classifier, self._spec)
        head = self.classifier[1]
        assert isinstance(head, nn.Conv2d)
        return head

    @property
    def dropout(self) -> float:
        """Share of feature values that training sets to zero before the head."""
        layer = self.classifier[0]
        return layer.p if isinstance(layer, nn.Dropout) else 0.0

    @dropout.setter
    def dropout(self, share: float) -> None:
        self.classifier[0] = nn.Dropout(share).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W), float, to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to the last Fire module's output (N, C, h, w)."""
        features: Tensor = self.features(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map features (N, C, h, w) to logits (N, num_classes), or to their average (N, C) for `pre_logits`."""
        if pre_logits:
            return x.mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits.flatten(1)

    def activation_map(self, x: Tensor) -> Tensor:
        """Compute class activation maps, (N, num_classes, h, w), of normalised images (N, 3, H, W).

        They are the head's output before it is averaged over positions; the average over h and w is the logits.
        """
        maps: Tensor = self.classifier[:-1](self.forward_features(x))
        return maps

    def transform(self, images: ImageSource | Sequence[ImageSource]) -> Tensor:
        """Prepare images for this network: decode, resize, crop and normalise them as in its training.

        Args:
            images: What `load_image` accepts (path, encoded bytes, stream or Pillow image), or a list of them.

        Returns:
            Shape (N, 3, H, W), float32, on the device of the head; N is 1 for a single image.

        Raises:
            ImageError: If an image cannot be read, the list is empty, or the model has no `preprocessing`.
        """
        if self.preprocessing is None:
            raise ImageError(
                "expected a model with its preprocessing, got one without: set `model.preprocessing` to the"
                " `Preprocessing` that it is, or will be, trained with"
            )
        sources: Sequence[Any] = images if isinstance(images, (list, tuple)) else [images]
        if not sources:
            raise ImageError("expected at least one image, got an empty list")
        pixels = torch.from_numpy(np.stack([self.preprocessing(source) for source in sources]))
        return normalize_pixels(pixels.to(self.head.weight.device), self.preprocessing)

    def reset_classifier(self, num_classes: int, *, head_relu: bool = False) -> None:
        """Replace the head by a new, untrained one for other classes; `spec` is updated, `labels` are removed.

        Args:
            num_classes: Number of outputs of the new head.
            head_relu: Put a ReLU after the head, as in the published networks; new heads train better without it.

        Raises:
            SpecError: If the number of classes is out of range.
        """
        spec = self._spec.replace(num_classes=num_classes, head_relu=head_relu)
        op = spec.convs[-1]
        old = next(self.classifier.parameters())
        head = conv_of(op).to(device=old.device, dtype=old.dtype)
        _initialize_head(head)
        self.classifier[1] = head
        self.classifier[2] = activation_of(op)
        self._spec, self._labels, self._announced_classes = spec, None, None

    def _initialize(self) -> None:
        if self.head.weight.is_meta:
            return  # nothing to fill; only finding that out for `normal_` costs torch two seconds
        for module in self.modules():
            if module is self.head:
                _initialize_head(self.head)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def normalize_pixels(pixels: NDArray[np.uint8] | Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn RGB pixels (N, H, W, 3), uint8, into normalised images (N, 3, H, W), float32, on the same device.

    They are in channels-last memory order; `preprocessing` holds the mean and std to apply.
    """
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))  # a copy of what cannot be written to
    x_NHWC = pixels.float()
    mean, std = (x_NHWC.new_tensor(values) for values in (preprocessing.mean, preprocessing.std))
    return ((x_NHWC - mean) / std).permute(0, 3, 1, 2)


def _head_changes(classifier: nn.Module, spec: ArchSpec) -> dict[str, Any]:
    """Differences between a classifier and the head of a spec, as fields of the spec."""
    modules = list(classifier.children())
    conv, activation = modules[1:3] if len(modules) == 4 else (None, None)
    in_channels = spec.fires[-1].out_channels
    if not (
        isinstance(conv, nn.Conv2d)
        and conv.bias is not None
        and (conv.in_channels, conv.groups, conv.kernel_size, conv.stride) == (in_channels, 1, (1, 1), (1, 1))
        and conv.padding in ((0, 0), (1, 1))
        and isinstance(modules[0], (nn.Dropout, nn.Identity))
        and isinstance(activation, (nn.ReLU, nn.Identity))
        and isinstance(modules[3], nn.AdaptiveAvgPool2d)
        and modules[3].output_size in (1, (1, 1))
    ):
        raise SpecError(
            f"expected a `classifier` of Dropout, Conv2d({in_channels}, classes, kernel_size=1), ReLU or Identity,"
            f" and AdaptiveAvgPool2d(1), got {' '.join(repr(classifier).split())}"
        )
    head_relu, head_padding = isinstance(activation, nn.ReLU), int(conv.padding[0])
    found = {"num_classes": conv.out_channels, "head_relu": head_relu, "head_padding": head_padding}
    return {name: value for name, value in found.items() if value != getattr(spec, name)}


def _stem_changes(stem: nn.Module, spec: ArchSpec) -> dict[str, Any]:
    """Differences between a first convolution and the stem of a spec; `_check_features` checks the rest."""
    if not isinstance(stem, nn.Conv2d):
        return {}
    kernel, stride, padding = stem.kernel_size[0], stem.stride[0], stem.padding[0]
    found = StemSpec(channels=stem.out_channels, kernel=kernel, stride=stride, padding=padding)  # type: ignore[arg-type]
    return {} if found == spec.stem else {"stem": found}


def _check_features(features: nn.Module, spec: ArchSpec) -> None:
    found, expected = _layers(features), _layers_of(spec)
    for got, want in zip_longest(found, expected, fillvalue="nothing"):
        if got != want:
            raise SpecError(f"expected {want.strip()} in `features`, got {got.strip()}: a spec cannot describe that")


@lru_cache(maxsize=8)
def _layers_of(spec: ArchSpec) -> list[str]:
    with torch.device("meta"):
        return _layers(SqueezeNet(spec).features)


def _layers(features: nn.Module) -> list[str]:
    return repr(features).replace("inplace=True", "").splitlines()


def _initialize_head(head: nn.Conv2d) -> None:
    nn.init.normal_(head.weight, mean=0.0, std=_HEAD_STD)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
