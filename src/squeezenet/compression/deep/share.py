"""Weights that share a few values: clustering, and training that keeps clusters together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional

from ...models import SqueezeNet
from .refit import Equations, kept_systems, layer_equations, one_thread, refit_bias, solve_kept

__all__ = ["SharedWeights", "share_in_turn"]

_PRICING_ROUNDS = 30
_LEAST_IMPORTANCE = 1e-6  # of the mean: a cluster of weights to which nothing is sensitive must still have a centre


class SharedWeights:
    """Ties the weights of a cluster together while a network trains.

    `codes[name]` is int64, of the weight's shape; 0 stands for zero, 1 and up for the layer's centroids.
    """

    def __init__(self, codes: dict[str, Tensor]) -> None:
        self.codes = codes

    @classmethod
    def by_k_means(cls, model: SqueezeNet, *, index_bits: int) -> SharedWeights:
        """Cluster each layer's nonzero weights; `on_weights` then puts the centroids in place.

        Source: Han et al. 2015, section 3 (linear initialisation between the smallest and largest weight).
        """
        codes = {}
        for name, conv in model.convs.items():
            weight = conv.weight.detach().double().cpu().numpy().reshape(-1)
            codes[name] = torch.from_numpy(_cluster(weight, (1 << index_bits) - 1)[0]).reshape(conv.weight.shape)
        return cls(codes)

    def centroids(self, model: SqueezeNet, name: str) -> Tensor:
        """Mean weight of every code, shape (codes,), code 0 being 0."""
        weight = model.convs[name].weight.detach()
        means = self._sums(name, weight) / torch.bincount(self._codes(name, weight).reshape(-1)).clamp(min=1)
        means[0] = 0
        return means

    def on_gradients(self, model: SqueezeNet) -> None:
        """Give every weight the gradient of its centroid: the sum over the cluster."""
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                sums = self._sums(name, conv.weight.grad)
                sums[0] = 0
                conv.weight.grad.copy_(sums[self._codes(name, conv.weight)])

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Put the centroids in place; equal gradients keep clusters equal but for rounding, which ends here."""
        for name, conv in model.convs.items():
            conv.weight.copy_(self.centroids(model, name)[self._codes(name, conv.weight)])

    def _sums(self, name: str, values: Tensor) -> Tensor:
        codes = self._codes(name, values).reshape(-1)
        return values.new_zeros(int(codes.max()) + 1).index_add_(0, codes, values.reshape(-1))

    def _codes(self, name: str, like: Tensor) -> Tensor:
        return self.codes[name].to(like.device)


@torch.no_grad()
def share_in_turn(
    model: SqueezeNet,
    aim: SqueezeNet,
    masks: Mapping[str, Tensor],
    photos: Iterable[NDArray[np.uint8]],
    sensitivities: Mapping[str, Tensor],
    *,
    index_bits: int,
    nats_per_bit: float = 0.0,
) -> SharedWeights:
    """Cluster the weights of a network, in place, layer after layer.

    A layer is first refitted to the outputs of `aim`, from the outputs of the shared layers before it. A weight counts
    in its cluster by its input's mean square times its output's sensitivity. Weights then take their centroids one
    input after the other, and those to come make up for the change. With a price, rare centroids cost more, and each
    layer uses as many as pay.

    Args:
        model: Pruned; in eval mode, without batch norm.
        aim: The network whose outputs are wanted.
        masks: Of each weight, bool of its shape; `True` means kept.
        photos: Pixels (N, H, W, 3), uint8, in batches.
        sensitivities: From `output_sensitivities`.
        index_bits: Bits of a code.
        nats_per_bit: Price of the codes' entropy.
    """
    convs, codes = model.convs, {}
    for name, equations in layer_equations(model, aim, photos):
        conv, mask = convs[name], masks[name].flatten(1)
        solve_kept(conv, masks[name], equations)
        weight = conv.weight.flatten(1).double()
        # Never quite nothing: where no photo uses a channel and bits cost nothing, the nearest value is to win.
        cost = (0.5 * sensitivities[name].to(weight)).clamp(min=torch.finfo(weight.dtype).tiny)
        importance = (torch.outer(cost, equations.gram.diagonal()[:-1]) * mask).flatten().cpu().numpy()
        flat = weight.flatten().cpu().numpy()
        _, values = _cluster(flat, (1 << index_bits) - 1, importance)
        values, costs = _price_codes(values, flat, importance, nats_per_bit)
        centroids, prices = torch.from_numpy(values).to(weight), torch.from_numpy(costs).to(weight)
        code = _assign_in_turn(weight, mask, equations, centroids, cost, prices)
        codes[name] = code.view_as(conv.weight)
        conv.weight.copy_(centroids[code].view_as(conv.weight))
        refit_bias(conv, equations)
    return SharedWeights(codes)


@one_thread()
def _assign_in_turn(
    weight: Tensor, mask: Tensor, equations: Equations, centroids: Tensor, cost: Tensor, prices: Tensor
) -> Tensor:
    """Give every kept weight the cheapest centroid, the weights still to come making up for what that changes.

    Args:
        weight: (O, K), float64.
        mask: (O, K), bool; the codes returned are 0 where it is false.
        equations: Of the layer.
        centroids: Rising from code 1 on; code 0 is zero.
        cost: (O,), nats for a squared error of an output channel.
        prices: Of each code, nats; the first is not looked at.

    Source: Frantar et al. 2023, "GPTQ" (arXiv 2210.17323), with a codebook and zeros that stay.
    """
    codes = torch.zeros(weight.shape, dtype=torch.int64, device=weight.device)
    for kept in kept_systems(equations.gram, mask):
        # Cholesky of the inverse, first weight first: the systems are in descending order.
        factor = torch.linalg.solve_triangular(kept.factor, torch.eye(kept.factor.shape[1]).to(weight), upper=False)
        left = functional.pad(weight[kept.rows, kept.columns[:, 1:]], (1, 0))
        for k in range(left.shape[1] - 1, 0, -1):
            errors = (left[:, k, None] - centroids[1:]) / factor[:, k, k, None]
            nearest = 1 + (cost[kept.rows] * errors.square() + prices[1:]).argmin(1)
            code = torch.where(kept.is_kept[:, k], nearest, 0)
            codes[kept.rows[:, 0], kept.columns[:, k]] = code
            left -= ((left[:, k] - centroids[code]) / factor[:, k, k])[:, None] * factor[:, k]
    return codes


def _price_codes(
    values: NDArray[np.float64], weight: NDArray[np.float64], importance: NDArray[np.float64], nats_per_bit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move centroids so that damage and entropy together cost least; unused ones go.

    Takes the values of all codes (code 0 is zero), the weights (n,) of a layer (zeros are pruned), nats for a squared
    error of each, and the price of entropy, without which nothing moves. Returns each code's value, rising from code 1
    on, and its price in nats.

    Source: Chou, Lookabaugh and Gray 1989, "Entropy-constrained vector quantization".
    """
    values, importance, weight = values[1:], importance[weight != 0], weight[weight != 0]
    prices = np.zeros(len(values))
    for _ in range(_PRICING_ROUNDS if nats_per_bit and len(weight) else 0):
        codes = (importance[:, None] * (weight[:, None] - values) ** 2 + prices).argmin(1)
        counts = np.bincount(codes, minlength=len(values))
        total = np.bincount(codes, importance, len(values))
        means = np.bincount(codes, importance * weight, len(values)) / np.maximum(total, np.finfo(float).tiny)
        values = np.where(total > 0, means, values)[counts > 0]
        prices = -nats_per_bit * np.log2(counts[counts > 0] / len(weight))
    order = np.argsort(values, kind="stable")
    return np.concatenate([[0.0], values[order]]), np.concatenate([[0.0], prices[order]])


def _cluster(
    weight: NDArray[np.float64], n_centroids: int, importance: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Codes of one layer's weights, shape (n,), and each code's value, rising from code 1 on; code 0 is zero."""
    codes = np.zeros(len(weight), np.int64)
    values = weight[weight != 0]
    distinct = np.unique(values)
    if len(distinct) <= n_centroids:
        codes[weight != 0] = 1 + np.searchsorted(distinct, values)
        return codes, np.concatenate([[0.0], distinct])
    if importance is not None:
        importance = importance[weight != 0] + _LEAST_IMPORTANCE * importance.mean() + np.finfo(float).tiny
    start = np.linspace(distinct[0], distinct[-1], n_centroids)[:, None]
    clusters = KMeans(n_centroids, init=start, n_init=1, max_iter=100).fit(values[:, None], sample_weight=importance)
    order = np.argsort(clusters.cluster_centers_[:, 0], kind="stable")
    codes[weight != 0] = 1 + np.argsort(order, kind="stable")[clusters.labels_]
    return codes, np.concatenate([[0.0], clusters.cluster_centers_[order, 0]])
