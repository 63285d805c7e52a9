"""SqueezeNet as torch modules, built from an `ArchSpec`.

Names of modules and tensors, initialisation, dropout and pooling are torchvision's, so that state dicts go both ways
with no mapping. What a network looks like is read from `ArchSpec.graph()`; nothing about it is written here.
Reading and writing weight files is the business of `weights`, `caffe` and `pretrained`.

Use this when you train a network, or want one as a `torch.nn.Module`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import WeightsError
from ..labels import Labels
from ..preprocess import Preprocessing
from ..spec import ArchSpec, BatchNorm, Op
from ..text import printable

__all__ = [
    "Fire",
    "NormConv2d",
    "SqueezeNet",
    "build_model",
    "fold_batch_norm",
    "model_from_convs",
    "model_from_state",
    "normalize_pixels",
    "state_shapes",
]

_HEAD_STD = 0.01  # torchvision's initialisation of the last convolution


class NormConv2d(nn.Conv2d):
    """Convolution without bias, followed by its batch norm: the training form of a convolution.

    The norm is a part of the convolution (`features.0.norm.weight`), so the convolution keeps its own name.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, then normalise."""
        output: Tensor = self.norm(super().forward(input))
        return output


class Fire(nn.Module):
    """Squeeze, expand by two branches, concatenate, and add the bypass if there is one.

    The addition has no ReLU after it: both of its inputs had theirs.

    Source: Iandola et al. 2016, sections 3.1 and 6.
    """

    def __init__(self, ops: Mapping[str, Op], *, batch_norm: BatchNorm = False) -> None:
        """Build from the module's operations in `ArchSpec.graph()`, keyed by the part of their name after the dot."""
        super().__init__()
        self.squeeze = _conv(ops["squeeze"], batch_norm=batch_norm is not False)
        self.squeeze_activation = _activation(ops["squeeze"])
        self.expand1x1 = _conv(ops["expand1x1"], batch_norm=batch_norm is True)
        self.expand1x1_activation = _activation(ops["expand1x1"])
        self.expand3x3 = _conv(ops["expand3x3"], batch_norm=batch_norm is True)
        self.expand3x3_activation = _activation(ops["expand3x3"])
        self.bypass: nn.Module | None = None
        if "bypass" in ops:
            self.bypass = _conv(ops["bypass"], batch_norm=batch_norm is True)
        elif "add" in ops:
            self.bypass = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, expand1x1_channels + expand3x3_channels, H, W)."""
        squeezed = self.squeeze_activation(self.squeeze(x))
        expanded = torch.cat(
            [
                self.expand1x1_activation(self.expand1x1(squeezed)),
                self.expand3x3_activation(self.expand3x3(squeezed)),
            ],
            dim=1,
        )
        return expanded if self.bypass is None else expanded + self.bypass(x)


class SqueezeNet(nn.Module):
    """A SqueezeNet: `features` (stem, pools, Fire modules) and `classifier` (dropout, conv10, ReLU, average).

    It takes normalised float images of any size that leaves something after the pools; `normalize_pixels` makes them.
    """

    spec: ArchSpec
    labels: Labels | None
    """Names of the classes, where they are known."""
    preprocessing: Preprocessing | None
    """Pixels the weights were trained on, where that is known."""
    provenance: dict[str, Any]
    """Where the weights come from; plain data for JSON, stored in weight files."""

    def __init__(self, spec: ArchSpec, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.spec = spec
        self.labels = None
        self.preprocessing = None
        self.provenance = {}
        self.features = nn.Sequential()
        self._layer_paths: dict[str, str] = {}
        for layer, ops in _ops_by_layer(spec).items():
            op = next(iter(ops.values()))
            if op.is_head:
                self._layer_paths[layer] = "classifier.1"
                self.classifier = nn.Sequential(
                    nn.Dropout(dropout), _conv(op), _activation(op), nn.AdaptiveAvgPool2d((1, 1))
                )
                continue
            self._layer_paths[layer] = f"features.{len(self.features)}"
            if op.kind == "max_pool":
                self.features.append(nn.MaxPool2d(op.kernel, op.stride, ceil_mode=spec.pool_ceil_mode))
            elif op.name == layer:
                self.features.append(_conv(op, batch_norm=spec.batch_norm is True))
                self.features.append(_activation(op))
            else:
                self.features.append(Fire(ops, batch_norm=spec.batch_norm))
        self._initialize()

    @property
    def conv_paths(self) -> dict[str, str]:
        """Path of each convolution in the module tree, by its name in the spec, in network order.

        `conv_paths["fire2.squeeze"]` is `features.3.squeeze`; `get_submodule` takes it.
        """
        paths = {}
        for op in self.spec.convs:
            layer, _, part = op.name.partition(".")
            paths[op.name] = f"{self._layer_paths[layer]}.{part}" if part else self._layer_paths[layer]
        return paths

    @property
    def convs(self) -> dict[str, nn.Conv2d]:
        """The convolutions by their names in the spec, in network order."""
        convs: dict[str, nn.Conv2d] = {}
        for name, path in self.conv_paths.items():
            module = self.get_submodule(path)
            assert isinstance(module, nn.Conv2d)
            convs[name] = module
        return convs

    @property
    def head(self) -> nn.Conv2d:
        """The last convolution, one output channel a class."""
        head = self.classifier[1]
        assert isinstance(head, nn.Conv2d)
        return head

    @property
    def dropout(self) -> float:
        """Share of feature values that training sets to zero before the head."""
        return self._dropout_layer.p

    @dropout.setter
    def dropout(self, share: float) -> None:
        self._dropout_layer.p = share

    @property
    def _dropout_layer(self) -> nn.Dropout:
        layer = self.classifier[0]
        assert isinstance(layer, nn.Dropout)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: Normalised images, shape (N, 3, H, W), float.

        Returns:
            Logits, shape (N, num_classes).
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to the last Fire module's output (N, C, h, w)."""
        features: Tensor = self.features(x)
        return features

    def forward_head(self, x: Tensor, *, pre_logits: bool = False) -> Tensor:
        """Map features (N, C, h, w) to logits (N, num_classes), or to their average (N, C) for `pre_logits`."""
        if pre_logits:
            return x.mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits.flatten(1)

    def activation_map(self, x: Tensor) -> Tensor:
        """Show where each class is seen: the head's tensor before it is averaged over its positions.

        Args:
            x: Normalised images, shape (N, 3, H, W), float.

        Returns:
            Shape (N, num_classes, h, w); its average over h and w is the logits.
        """
        x = self.forward_features(x)
        maps: Tensor = self.classifier[:-1](x)
        return maps

    def reset_classifier(self, num_classes: int, *, head_relu: bool = False) -> None:
        """Put in a new, untrained head for other classes; `spec` follows, `labels` go.

        Args:
            num_classes: Outputs of the new head.
            head_relu: Keep the ReLU after it, as the published networks have; new heads train better without.

        Raises:
            SpecError: If the number of classes is out of range.
        """
        spec = self.spec.replace(num_classes=num_classes, head_relu=head_relu)
        op = spec.convs[-1]
        head = _conv(op).to(device=self.head.weight.device, dtype=self.head.weight.dtype)
        _initialize_head(head)
        self.classifier[1] = head
        self.classifier[2] = _activation(op)
        self.spec = spec
        self.labels = None

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


def build_model(spec: ArchSpec, *, dropout: float = 0.5) -> SqueezeNet:
    """Build the untrained network that a spec describes.

    Args:
        spec: The architecture.
        dropout: Share of feature values that training sets to zero before the head.
    """
    return SqueezeNet(spec, dropout=dropout)


def state_shapes(spec: ArchSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the network's state dict, without building it."""
    return {name: tuple(tensor.shape) for name, tensor in _meta_model(spec).state_dict().items()}


def model_from_state(
    spec: ArchSpec, state: Mapping[str, Tensor], *, dropout: float = 0.5, source: str = "state dict"
) -> SqueezeNet:
    """Build a network around stored tensors; no random number is drawn.

    Args:
        spec: The architecture.
        state: Tensors by name, in torchvision's naming. Floats of any width become float32; the model takes over
            float32 ones without a copy.
        dropout: As in `build_model`.
        source: Where the tensors come from, for messages.

    Raises:
        WeightsError: If a tensor is missing, too many, of another shape or type, or not finite.
    """
    model = _meta_model(spec, dropout=dropout)
    expected = model.state_dict()
    if missing := [name for name in expected if name not in state]:
        raise WeightsError(f"{source}: expected the tensors of {spec.name}, but {_list(missing)} missing")
    if unknown := [name for name in state if name not in expected]:
        raise WeightsError(f"{source}: expected only the tensors of {spec.name}, but {_list(unknown)} not of it")
    model.load_state_dict({name: _fit(state[name], like, name, source) for name, like in expected.items()}, assign=True)
    return model


def model_from_convs(
    spec: ArchSpec, convs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]], *, source: str = "arrays"
) -> SqueezeNet:
    """Build a network around arrays for its convolutions, keyed by their names in the spec.

    Args:
        spec: The architecture, without batch norm.
        convs: Weights, shape (out, in, kernel, kernel), and biases, shape (out,), of each convolution. They are copied.
        source: Where they come from, for messages.

    Raises:
        WeightsError: As in `model_from_state`.
    """
    paths = _meta_model(spec).conv_paths
    state = {}
    for name, (weight, bias) in convs.items():
        state[f"{paths.get(name, name)}.weight"] = torch.tensor(weight)
        state[f"{paths.get(name, name)}.bias"] = torch.tensor(bias)
    return model_from_state(spec, state, source=source)


def fold_batch_norm(model: SqueezeNet) -> SqueezeNet:
    """Merge every batch norm into its convolution, for use after training.

    The products are made in float64; in eval mode the new network computes the same function.

    Returns:
        A new network with `spec.batch_norm` false, and the same labels, preprocessing, provenance and mode. It shares
        no tensor with `model`.
    """
    state = {}
    for name, conv in model.convs.items():
        weight, bias = _folded(conv)
        path = model.conv_paths[name]
        state[f"{path}.weight"] = weight.to(conv.weight.device, conv.weight.dtype)
        state[f"{path}.bias"] = bias.to(conv.weight.device, conv.weight.dtype)
    folded = _meta_model(model.spec.replace(batch_norm=False), dropout=model.dropout)
    folded.load_state_dict(state, assign=True)
    folded.labels, folded.preprocessing = model.labels, model.preprocessing
    folded.provenance = dict(model.provenance)
    return folded.train(model.training)


def normalize_pixels(pixels: NDArray[np.uint8] | Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn pixels into the float images that a network takes, on the device they are on.

    Args:
        pixels: RGB, shape (N, H, W, 3), uint8.
        preprocessing: Holds the mean and std to apply.

    Returns:
        Shape (N, 3, H, W), float32, in channels-last memory order.
    """
    x_NHWC = torch.as_tensor(pixels).float()
    mean, std = (x_NHWC.new_tensor(values) for values in (preprocessing.mean, preprocessing.std))
    return ((x_NHWC - mean) / std).permute(0, 3, 1, 2)


def _ops_by_layer(spec: ArchSpec) -> dict[str, dict[str, Op]]:
    layers: dict[str, dict[str, Op]] = {}
    for op in spec.graph():
        layer, _, part = op.name.partition(".")
        layers.setdefault(layer, {})[part] = op
    return layers


def _conv(op: Op, *, batch_norm: bool = False) -> nn.Conv2d:
    conv = NormConv2d if batch_norm else nn.Conv2d
    return conv(op.in_channels, op.out_channels, op.kernel, op.stride, op.padding)


def _activation(op: Op) -> nn.Module:
    return nn.ReLU(inplace=True) if op.relu else nn.Identity()


def _initialize_head(head: nn.Conv2d) -> None:
    nn.init.normal_(head.weight, mean=0.0, std=_HEAD_STD)
    assert head.bias is not None
    nn.init.zeros_(head.bias)


def _meta_model(spec: ArchSpec, *, dropout: float = 0.5) -> SqueezeNet:
    with torch.device("meta"):
        return SqueezeNet(spec, dropout=dropout)


def _fit(tensor: Tensor, like: Tensor, name: str, source: str) -> Tensor:
    # Shape comes first: a hostile file can describe a huge tensor in few bytes, which only a conversion would make.
    if tensor.shape != like.shape:
        raise WeightsError(f"{source}: {name}: expected shape {tuple(like.shape)}, got {tuple(tensor.shape)}")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise WeightsError(f"{source}: {name}: expected a dense tensor with values, got another kind of tensor")
    if tensor.is_floating_point() != like.is_floating_point() or tensor.is_complex():
        raise WeightsError(f"{source}: {name}: expected values like {like.dtype}, got {tensor.dtype}")
    tensor = tensor.to(like.dtype).contiguous()
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{source}: {name}: expected finite numbers, got infinity or NaN")
    return tensor


def _folded(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    weight = _float64(conv.weight)
    if not isinstance(conv, NormConv2d):
        return weight, _float64(conv.bias)
    norm = conv.norm
    scale = _float64(norm.weight) / torch.sqrt(_float64(norm.running_var) + norm.eps)
    return weight * scale[:, None, None, None], _float64(norm.bias) - _float64(norm.running_mean) * scale


def _float64(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.detach().to("cpu", torch.float64, copy=True)  # not every device has float64


def _list(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"
