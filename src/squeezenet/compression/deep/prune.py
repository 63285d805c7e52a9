"""Selection of weights to prune: by magnitude, as in 2015, or by the cost of their removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet, normalize_pixels
from .refit import Equations, kept_systems, layer_equations, one_thread

__all__ = ["PruningMask", "output_sensitivities"]

_DENSE_LAYERS = ("conv1",)
# Threshold of the other convolutions relative to that of 3x3 filters, which bear pruning best: table 1 of the paper
# keeps a third of them, and nearly all of the squeeze and 1x1 filters.
_POINTWISE_THRESHOLD = 0.5
_BISECTION_STEPS = 40
# Costs assume that one weight is removed at a time, so weights go in several portions, with new costs for each.
_PORTIONS = 7
_SENSITIVITY_PHOTOS = 200
_LABELS_DRAWN = 2  # for each photo


class PruningMask:
    """Keeps pruned weights at zero while a network trains.

    `masks[name]` is bool, of the weight's shape; `True` means kept. `threshold` is the least cost of a weight that was
    kept, nats, where weights were removed by cost.
    """

    def __init__(self, masks: dict[str, Tensor], threshold: float = 0.0) -> None:
        self.masks, self.threshold = masks, threshold

    @classmethod
    def by_magnitude(cls, model: SqueezeNet, density: float) -> PruningMask:
        """Keep the weights above a threshold of t standard deviations of their layer, with one t for all 3x3 layers.

        Source: Han et al. 2015, section 2 (a quality parameter times the layer's standard deviation).
        """
        weights = {name: conv.weight.detach() for name, conv in model.convs.items()}
        factors = {name: 1 if weight.shape[-1] > 1 else _POINTWISE_THRESHOLD for name, weight in weights.items()}
        spread = {name: weight.std() * factors[name] for name, weight in weights.items()}
        total = sum(weight.numel() for weight in weights.values())

        def masks_at(threshold: float) -> dict[str, Tensor]:
            return {
                name: torch.ones_like(weight, dtype=torch.bool)
                if name in _DENSE_LAYERS
                else weight.abs() > threshold * spread[name]
                for name, weight in weights.items()
            }

        low, high = 0.0, max(float((weights[name].abs() / spread[name]).nan_to_num().max()) for name in weights)
        for _ in range(_BISECTION_STEPS):
            middle = (low + high) / 2
            kept = sum(int(mask.sum()) for mask in masks_at(middle).values())
            low, high = (middle, high) if kept > density * total else (low, middle)
        return cls(masks_at(high))

    @classmethod
    @torch.no_grad()
    def by_cost(
        cls, model: SqueezeNet, photos: Iterable[NDArray[np.uint8]], sensitivities: Mapping[str, Tensor], density: float
    ) -> PruningMask:
        """Remove the weights whose loss costs least, the other weights of their output channel making up for it.

        The cost of weight w is w^2 / 2 over its entry of the inverse of its layer's input second moments, times the
        loss's sensitivity to that channel; costs compare between layers, so that each gets the density it deserves.

        Args:
            model: In eval mode, without batch norm; not changed. Its zeros stay zeros.
            photos: Pixels (N, H, W, 3), uint8, in batches.
            sensitivities: From `output_sensitivities`.
            density: Share of all weights to keep.

        Source: Hassibi and Stork 1993 (Optimal Brain Surgeon), layer by layer as in Dong et al. 2017.
        """
        equations = dict(layer_equations(model, model, photos))
        masks = {
            name: torch.ones_like(conv.weight, dtype=torch.bool) if name in _DENSE_LAYERS else conv.weight != 0
            for name, conv in model.convs.items()
        }
        total = sum(mask.numel() for mask in masks.values())
        n_dense = sum(masks[name].numel() for name in _DENSE_LAYERS)
        start = sum(int(mask.sum()) for mask in masks.values()) / total
        for portion in range(1, _PORTIONS + 1):
            n_kept = round(total * start * min(1.0, density / start) ** (portion / _PORTIONS)) - n_dense
            costs = {
                name: _removal_costs(equations[name], mask.flatten(1), sensitivities[name])
                for name, mask in masks.items()
                if name not in _DENSE_LAYERS
            }
            descending = torch.cat([cost.flatten() for cost in costs.values()]).sort(descending=True).values
            threshold = descending[max(0, n_kept - 1)]
            for name, cost in costs.items():
                masks[name] &= (cost >= threshold).view_as(masks[name])
        return cls(masks, float(threshold))

    def on_gradients(self, model: SqueezeNet) -> None:
        """Take pruned weights out of the gradient, so that they do not count in its norm."""
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                conv.weight.grad.mul_(self.masks[name].to(conv.weight.device))

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Set pruned weights to zero again after a step."""
        for name, conv in model.convs.items():
            conv.weight.mul_(self.masks[name].to(conv.weight.device))


def output_sensitivities(model: SqueezeNet, photos: Iterable[NDArray[np.uint8]], *, seed: int = 0) -> dict[str, Tensor]:
    """Find how sensitive the loss is to each output channel of each convolution.

    Labels are drawn from the network's own predictions, so that the squared gradients are Fisher information, the
    curvature of KL(model || changed model).

    Args:
        model: In eval mode.
        photos: Pixels (N, H, W, 3), uint8, in batches; the first few hundred are used.
        seed: Of the labels.

    Returns:
        By convolution, shape (O,), float64: squared gradient, mean over photos of its sum over positions.
    """
    assert model.preprocessing is not None
    generator = torch.Generator().manual_seed(seed)
    sums = {name: torch.zeros(conv.out_channels, dtype=torch.float64) for name, conv in model.convs.items()}
    n_photos = 0
    hooks = []
    for name, conv in model.convs.items():

        def add_square(gradient: Tensor, name: str = name) -> None:
            sums[name] += gradient.double().square().sum((0, 2, 3)).cpu()

        def watch(_: object, __: object, output: Tensor, add: object = add_square) -> Tensor:
            output.register_hook(add)  # type: ignore[no-untyped-call]
            return output.clone()  # the ReLU that follows works in place

        hooks.append(conv.register_forward_hook(watch))
    try:
        for pixels in photos:
            if n_photos >= _SENSITIVITY_PHOTOS:
                break
            x = normalize_pixels(torch.from_numpy(pixels).to(model.head.weight.device), model.preprocessing)
            n_photos += len(x)
            log_p = model(x.requires_grad_()).log_softmax(1)
            labels = torch.multinomial(log_p.detach().exp().cpu(), _LABELS_DRAWN, replacement=True, generator=generator)
            for drawn in labels.T.to(log_p.device):
                functional.nll_loss(log_p, drawn, reduction="sum").backward(  # type: ignore[no-untyped-call]
                    retain_graph=True, inputs=[x]
                )
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / (n_photos * _LABELS_DRAWN) for name, total in sums.items()}


@one_thread()
def _removal_costs(equations: Equations, mask: Tensor, sensitivity: Tensor) -> Tensor:
    """Cost of each weight that is kept, shape (O, K); of the others less than any."""
    costs = torch.full((len(mask), len(equations.gram)), -torch.inf)
    for kept in kept_systems(equations.gram.float(), mask):
        inverse = torch.cholesky_inverse(kept.factor)
        wanted = equations.cross.T[kept.rows, kept.columns].float() * kept.is_kept
        solution = (inverse @ wanted[:, :, None])[:, :, 0]
        cost = 0.5 * solution.square() / inverse.diagonal(dim1=1, dim2=2) * sensitivity[kept.rows].float()
        costs[kept.rows, kept.columns] = torch.where(kept.is_kept, cost, -torch.inf)
    return costs[:, :-1]
