"""Conversion between networks and stored tensors or arrays, and the folding of batch norm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import WeightsError
from ..imports import Convention, ForeignNetwork
from ..network import FloatConv, FloatNetwork
from ..preprocess import Preprocessing
from ..spec import ArchSpec
from ..text import printable
from .fire import NormConv2d
from .squeezenet import SqueezeNet

__all__ = [
    "float_network", "fold_batch_norm", "model_from_convs", "model_from_foreign", "model_from_state", "state_shapes",
]  # fmt: skip


def state_shapes(spec: ArchSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the network's state dict, without building it."""
    return {name: tuple(tensor.shape) for name, tensor in _meta_model(spec).state_dict().items()}


def model_from_state(
    spec: ArchSpec, state: Mapping[str, Tensor], *, dropout: float = 0.5, source: str = "state dict"
) -> SqueezeNet:
    """Build a network around stored tensors; no random number is drawn, no memory is taken for initial weights.

    Args:
        spec: The architecture.
        state: Tensors by name, in torchvision's naming. Floats of any width become float32; the model takes over
            float32 ones without a copy.
        dropout: As in `SqueezeNet`.
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
    spec: ArchSpec, convs: Mapping[str, FloatConv[NDArray[np.float32]]], *, source: str = "arrays"
) -> SqueezeNet:
    """Build a network without batch norm around copies of its convolutions' arrays, keyed by their names in the spec.

    Raises:
        WeightsError: As in `model_from_state`; `source` names the file of the arrays.
    """
    paths = _meta_model(spec).conv_paths
    state = {}
    for name, conv in convs.items():
        state[f"{paths.get(name, name)}.weight"] = torch.tensor(conv.weight)
        state[f"{paths.get(name, name)}.bias"] = torch.tensor(conv.bias)
    return model_from_state(spec, state, source=source)


def model_from_foreign(foreign: ForeignNetwork, convention: Convention | None = None) -> SqueezeNet:
    """Build the network of another program's file, reading RGB, by the file's convention or another.

    `provenance` says how the file was read.
    """
    network = foreign.network(convention)
    model = model_from_convs(network.spec, network.convs)
    model.labels, model.preprocessing = network.labels, network.preprocessing
    model.provenance = {"source": foreign.source, "format": foreign.format}
    if foreign.notes:
        model.provenance["tensors"] = ", ".join(foreign.notes)
    return model


def fold_batch_norm(model: SqueezeNet) -> SqueezeNet:
    """Merge every batch norm into its convolution, after training.

    The products are computed in float64. In eval mode, the new network computes the same function.

    Returns:
        A new network with `spec.batch_norm` false and the same labels, preprocessing, provenance and mode. It shares
        no tensor with `model`. If `model` has no batch norm, it is returned itself.

    Example:
        >>> model = SqueezeNet("1_1", num_classes=2)
        >>> fold_batch_norm(model) is model  # it has none
        True
    """
    if not model.spec.batch_norm:
        return model
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


def float_network(model: SqueezeNet) -> FloatNetwork:
    """Take a network's arrays out of torch, batch norm folded.

    Returns:
        The network with its preprocessing, or a plain resize to its input size if it has none. The arrays share
        memory with the parameters where nothing was folded.
    """
    folded = fold_batch_norm(model)
    convs = {}
    for name, conv in folded.convs.items():
        assert conv.bias is not None  # folded networks have biases
        convs[name] = FloatConv(conv.weight.detach().cpu().numpy(), conv.bias.detach().cpu().numpy())
    how = folded.preprocessing or Preprocessing.plain(folded.spec.input_size)
    return FloatNetwork(folded.spec, convs, how, folded.labels)


def _meta_model(spec: ArchSpec, *, dropout: float = 0.5) -> SqueezeNet:
    with torch.device("meta"):
        return SqueezeNet(spec, dropout=dropout)


def _fit(tensor: Tensor, like: Tensor, name: str, source: str) -> Tensor:
    # The shape is checked first: a hostile file can describe a huge tensor in few bytes, which conversion would
    # allocate.
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
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(map(printable, names[:3]))}{more} {'is' if len(names) == 1 else 'are'}"
