"""Closed-form repair of a pruned network: the weights that are left are fitted to the float network's outputs.

Layer after layer, least squares over the kept weights and the biases, from the inputs that the pruned network really
sees to the outputs that the float network has there. A few hundred unlabelled photos are enough, since every position
of every photo is an equation; retraining then begins close to where it should end.

Use this after a mask is applied and before retraining.

Source: the layer-wise form of Optimal Brain Surgeon (Hassibi and Stork 1993; Dong et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..models import SqueezeNet, normalize_pixels
from ..spec import Op

__all__ = ["refit_kept_weights"]

_POSITIONS = 80  # of each photo and layer: neighbours in a map say nearly the same
_DAMPING = 1e-3  # of the mean square of the inputs, towards the weights there were


@torch.no_grad()
def refit_kept_weights(
    model: SqueezeNet,
    teacher: SqueezeNet,
    masks: Mapping[str, Tensor],
    photos: Iterable[NDArray[np.uint8]],
    *,
    seed: int = 0,
) -> None:
    """Change the kept weights and the biases of a pruned network, in place, so that its layers give what they gave.

    Args:
        model: Pruned; in eval mode, without batch norm.
        teacher: The network it was pruned from.
        masks: Of each weight, bool of its shape; `True` means kept. Layers that keep everything are left alone.
        photos: Pixels (N, H, W, 3), uint8, in batches.
        seed: Of the positions that are looked at.
    """
    batches = list(photos)
    for ops in _ops_by_input(model):
        pruned = [op for op in ops if not bool(masks[op.name].all())]
        if pruned:
            for name, (gram, cross) in _normal_equations(model, teacher, pruned, batches, seed).items():
                _solve(model.convs[name], masks[name], gram, cross)


def _ops_by_input(model: SqueezeNet) -> list[list[Op]]:
    """Convolutions in network order; those that see the same input stand together."""
    groups: dict[str, list[Op]] = {}
    for op in model.spec.convs:
        layer, _, part = op.name.partition(".")
        groups.setdefault(f"{layer}.expand" if part.startswith("expand") else op.name, []).append(op)
    return list(groups.values())


def _normal_equations(
    model: SqueezeNet, teacher: SqueezeNet, ops: Sequence[Op], batches: Sequence[NDArray[np.uint8]], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Sums over positions of x x' and x y', where x is an input window with a 1 for the bias; by convolution."""
    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    device = model.head.weight.device
    assert model.preprocessing is not None
    for pixels in batches:
        x_NCHW = normalize_pixels(torch.from_numpy(pixels).to(device), model.preprocessing)
        inputs = _tensors_at(model, ops, x_NCHW, of_inputs=True)
        outputs = _tensors_at(teacher, ops, x_NCHW, of_inputs=False)
        for op in ops:
            y = outputs[op.name].flatten(2)
            chosen = torch.randperm(y.shape[2], generator=generator)[:_POSITIONS].to(device)
            windows = functional.unfold(inputs[op.name], op.kernel, padding=op.padding, stride=op.stride)
            x_PK = windows[:, :, chosen].transpose(1, 2).flatten(0, 1).double()
            x_PK = torch.cat([x_PK, x_PK.new_ones(len(x_PK), 1)], dim=1)
            y_PO = y[:, :, chosen].transpose(1, 2).flatten(0, 1).double()
            gram, cross = sums.get(op.name, (0, 0))
            sums[op.name] = (gram + x_PK.T @ x_PK, cross + x_PK.T @ y_PO)
    return sums


def _tensors_at(model: SqueezeNet, ops: Sequence[Op], x_NCHW: Tensor, *, of_inputs: bool) -> dict[str, Tensor]:
    """Inputs or outputs of some convolutions, as copies: the ReLU that follows works in place."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for op in ops:

        def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = op.name) -> None:
            seen[name] = (args[0] if of_inputs else output).clone()

        hooks.append(model.convs[op.name].register_forward_hook(keep))
    try:
        model(x_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _solve(conv: nn.Conv2d, mask: Tensor, gram: Tensor, cross: Tensor) -> None:
    """Fit each output channel's kept weights and its bias."""
    assert conv.bias is not None
    n_products = gram.shape[0] - 1
    damping = _DAMPING * gram.diagonal()[:n_products].mean()
    damped = gram + torch.diag(torch.cat([damping.expand(n_products), damping.new_zeros(1)]))
    weight = conv.weight.flatten(1).clone()
    for row, kept in enumerate(mask.flatten(1)):
        index = torch.cat([kept.nonzero()[:, 0], kept.new_tensor([n_products], dtype=torch.int64)])
        aim = cross[:, row].clone()
        aim[:n_products] += damping * weight[row]
        solution = torch.linalg.solve(damped[index][:, index], aim[index])
        fitted = torch.zeros_like(weight[row])
        fitted[index[:-1]] = solution[:-1].float()
        weight[row] = fitted
        conv.bias[row] = solution[-1].float()
    conv.weight.copy_(weight.reshape(conv.weight.shape))
