"""Closed-form repair of a pruned network: the remaining weights are fitted to the float network's outputs.

Layer after layer, least squares over the kept weights and the biases, from the inputs that the pruned network really
has to the outputs of the float network. Every position of a photo is an equation, so a few hundred photos are enough.

Source: the layer-wise form of Optimal Brain Surgeon (Hassibi and Stork 1993; Dong et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...models import SqueezeNet, normalize_pixels
from ...spec import Op

__all__ = [
    "Equations", "KeptSystems", "kept_systems", "layer_equations", "one_thread", "refit_bias", "refit_kept_weights",
    "solve_kept",
]  # fmt: skip

_POSITIONS = 80  # positions per photo and layer: neighbouring positions have nearly the same values
_NUMBERS_AT_ONCE = 1 << 22  # numbers in matrices that are factored together
_DAMPING = 1e-3  # regularisation towards the old weights, relative to the mean square of the inputs


@dataclass(frozen=True)
class Equations:
    """Normal equations of one convolution: what its weights and bias should be, given its inputs and wanted outputs.

    Both are means over positions, float64. K is the number of weights of an output channel; the last entry is the bias.
    """

    gram: Tensor
    """(K + 1, K + 1), damped."""
    cross: Tensor
    """(K + 1, O), damped towards the weights that the convolution had."""
    n_positions: int
    """Positions of the output map of a photo."""


@torch.no_grad()
def refit_kept_weights(
    model: SqueezeNet, teacher: SqueezeNet, masks: Mapping[str, Tensor], photos: Iterable[NDArray[np.uint8]]
) -> None:
    """Change the kept weights and the biases of a pruned network, in place, so that its layers do what they did.

    `teacher` is the network it was pruned from; layers whose mask keeps everything are left alone. The rest is as for
    `layer_equations`.
    """
    convs = model.convs
    for name, equations in layer_equations(model, teacher, photos):
        if not bool(masks[name].all()):
            solve_kept(convs[name], masks[name], equations)


@torch.no_grad()
def layer_equations(
    model: SqueezeNet, teacher: SqueezeNet, photos: Iterable[NDArray[np.uint8]]
) -> Iterator[tuple[str, Equations]]:
    """Make the equations of one convolution after the other, in network order.

    The caller may change a convolution when it gets its equations: the later ones see what it gives then. Every photo
    goes through each layer a few times and through the whole network never.

    Args:
        model: Makes the inputs; in eval mode, without batch norm.
        teacher: Makes the wanted outputs; may be `model`.
        photos: Pixels (N, H, W, 3), uint8, in batches.
    """
    assert model.preprocessing is not None
    device = model.head.weight.device
    generator = torch.Generator().manual_seed(0)  # chooses positions
    x_batches = [normalize_pixels(torch.from_numpy(pixels).to(device), model.preprocessing) for pixels in photos]
    y_batches = list(x_batches)
    names = {conv: name for name, conv in model.convs.items()}
    wanted = teacher.convs
    ops = {op.name: op for op in model.spec.convs}
    for stage, teacher_stage in zip(_stages(model), _stages(teacher), strict=True):
        convs = [names[module] for module in stage.modules() if isinstance(module, nn.Conv2d)]
        for group in _by_input([ops[name] for name in convs]):
            sums: dict[str, tuple[Tensor, Tensor]] = {}
            for x, y in zip(x_batches, y_batches, strict=True):
                inputs = _tensors_at(stage, {op.name: model.convs[op.name] for op in group}, x, of_inputs=True)
                outputs = _tensors_at(teacher_stage, {op.name: wanted[op.name] for op in group}, y, of_inputs=False)
                for op in group:
                    windows, targets = _sample(op, inputs[op.name], outputs[op.name], generator)
                    gram, cross = sums.get(op.name, (0, 0))
                    sums[op.name] = (gram + windows.T @ windows, cross + windows.T @ targets)
            for op in group:
                yield op.name, _damped(*sums[op.name], model.convs[op.name], outputs[op.name].shape[2:].numel())
        x_batches = [stage(x) for x in x_batches]
        y_batches = [teacher_stage(y) for y in y_batches]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: on matrices of a few hundred rows LAPACK's threads cost seven times what they save."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@one_thread()
def solve_kept(conv: nn.Conv2d, mask: Tensor, equations: Equations) -> None:
    """Fit each output channel's kept weights and its bias, in place."""
    assert conv.bias is not None
    weight = torch.zeros_like(conv.weight.flatten(1))
    for kept in kept_systems(equations.gram, mask.flatten(1)):
        wanted = equations.cross.T[kept.rows, kept.columns] * kept.is_kept
        solution = torch.cholesky_solve(wanted[:, :, None], kept.factor)[:, :, 0].float()
        conv.bias[kept.rows[:, 0]] = solution[:, 0]
        weight[kept.rows, kept.columns[:, 1:]] = solution[:, 1:]
    conv.weight.copy_(weight.view_as(conv.weight))


@dataclass(frozen=True)
class KeptSystems:
    """The equations of R output channels without the weights that were removed; n is the size of the largest."""

    rows: Tensor
    """Output channels, shape (R, 1), int64."""
    columns: Tensor
    """Shape (R, n), int64: K (the bias), the kept weights in descending order, and removed ones as padding."""
    is_kept: Tensor
    """Shape (R, n), bool: False for the padding."""
    factor: Tensor
    """Lower Cholesky factors, shape (R, n, n), or (1, n, n) if no weight was removed; the padding is an identity."""


def kept_systems(gram: Tensor, mask: Tensor) -> Iterator[KeptSystems]:
    """Factor the remaining equations of a layer, output channels of similar size together.

    `gram` is that of `Equations`, whose dtype the factors have; `mask` is (O, K), bool. The bias is always kept.
    """
    descending = torch.arange(len(gram) - 2, -1, -1, device=mask.device)
    by_size = mask.sum(1).argsort(descending=True, stable=True)
    while len(by_size):
        n = 1 + int(mask[by_size[0]].sum())
        n_rows = max(1, _NUMBERS_AT_ONCE // n**2)
        rows, by_size = by_size[:n_rows, None], by_size[n_rows:]
        kept_first = (~mask[rows, descending]).byte().argsort(dim=1, stable=True)[:, : n - 1]
        columns = functional.pad(descending[kept_first], (1, 0), value=len(gram) - 1)
        is_kept = functional.pad(mask[rows, columns[:, 1:]], (1, 0), value=True)
        shared = slice(1) if bool(mask[rows].all()) else slice(None)
        index, is_in = columns[shared], is_kept[shared]
        block = gram[index[:, :, None], index[:, None, :]] * (is_in[:, :, None] & is_in[:, None, :])
        block.diagonal(dim1=1, dim2=2).add_(~is_in)
        yield KeptSystems(rows, columns, is_kept, torch.linalg.cholesky(block))


def refit_bias(conv: nn.Conv2d, equations: Equations) -> None:
    """Fit the bias to the weights as they are, in place: the outputs get the wanted means."""
    assert conv.bias is not None
    conv.bias.copy_(equations.cross[-1] - conv.weight.flatten(1).double() @ equations.gram[:-1, -1])


def _stages(model: SqueezeNet) -> list[nn.Sequential]:
    """The network cut before every layer that has convolutions, so that few and small tensors lie between."""
    stages: list[nn.Sequential] = []
    for module in (*model.features, *model.classifier):
        if not stages or any(isinstance(part, nn.Conv2d) for part in module.modules()):
            stages.append(nn.Sequential())
        stages[-1].append(module)
    return stages


def _by_input(ops: Sequence[Op]) -> list[list[Op]]:
    """Convolutions of a layer in network order; the expand convolutions see the same input and stand together."""
    groups: dict[str, list[Op]] = {}
    for op in ops:
        layer, _, part = op.name.partition(".")
        groups.setdefault(f"{layer}.expand" if part.startswith("expand") else op.name, []).append(op)
    return list(groups.values())


def _tensors_at(stage: nn.Module, convs: Mapping[str, nn.Conv2d], x: Tensor, *, of_inputs: bool) -> dict[str, Tensor]:
    """Inputs or outputs of some convolutions, as copies: the ReLU that follows works in place."""
    seen: dict[str, Tensor] = {}
    hooks = []
    for name, conv in convs.items():

        def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            seen[name] = (args[0] if of_inputs else output).clone()

        hooks.append(conv.register_forward_hook(keep))
    try:
        stage(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _sample(op: Op, inputs: Tensor, outputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Some positions' input windows with a 1 for the bias, (P, K + 1), and outputs, (P, O)."""
    y = outputs.flatten(2)
    chosen = torch.randperm(y.shape[2], generator=generator)[:_POSITIONS].to(y.device)
    windows = functional.unfold(inputs, op.kernel, padding=op.padding, stride=op.stride)
    x_PK = windows[:, :, chosen].transpose(1, 2).flatten(0, 1).double()
    return torch.cat([x_PK, x_PK.new_ones(len(x_PK), 1)], dim=1), y[:, :, chosen].transpose(1, 2).flatten(0, 1).double()


def _damped(gram: Tensor, cross: Tensor, conv: nn.Conv2d, n_positions: int) -> Equations:
    n_equations = gram[-1, -1].clone()
    gram, cross = gram / n_equations, cross / n_equations
    diagonal = gram.diagonal()[:-1]  # a view
    damping = _DAMPING * diagonal.mean()
    diagonal += damping
    cross[:-1] += damping * conv.weight.flatten(1).T.double()
    return Equations(gram, cross, n_positions)
