"""Deep Compression, the 2016 method: prune, retrain, share weights, train the centroids, count Huffman bits.

Pruning goes by magnitude relative to each layer's spread, in rounds with retraining between them; conv1 stays dense,
as in the paper. Sharing is 1-D k-means per layer from a linear initialisation; a centroid's gradient is the sum of its
weights' gradients. The result becomes an integer network with one weight scale a layer, so that shared values stay
shared.

Two things are ours, for data sets far smaller than ImageNet: what is left of a layer is refitted to the float network
before retraining, and retraining aims at the float network's predictions. Both can be switched off.

Use this as the baseline that the paper published; the `rate-distortion` preset makes smaller files.

Source: Han et al. 2015 (arXiv 1510.00149); Iandola et al. 2016, section 4.2.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from ..errors import RecipeError
from ..models import SqueezeNet
from ..network import Network
from ..train.recipe import Recipe
from .huffman import SparseSizes, sparse_sizes
from .quantize import activation_ranges, float_convs, input_scale, output_scale, quantize_conv, tensor_quants
from .refit import refit_kept_weights
from .retrain import Retrainer

__all__ = ["DeepCompression", "DeepCompressionResult", "LayerSizes", "PruningMask", "SharedWeights", "deep_compress"]

_DENSE_LAYERS = ("conv1",)
# Threshold of the other convolutions relative to that of 3x3 filters, which bear pruning best: table 1 of the paper
# keeps a third of them, and nearly all of the squeeze and 1x1 filters.
_POINTWISE_THRESHOLD = 0.5
_LAST_ROUND = 2  # times as long as the others: its weights are the ones that stay
_BISECTION_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class DeepCompression:
    """Settings of the method.

    Raises:
        RecipeError: On construction, if a value is out of range.
    """

    density: float = 0.33
    """Share of all weights that is kept."""
    index_bits: int = 6
    """Bits of a code: 2^bits - 1 shared values a layer, and zero."""
    prune_rounds: int = 2
    """Steps from dense to `density`, with retraining after each."""
    prune_epochs: int = 1
    """Epochs of retraining a round; the last round, at the final density, takes twice as many."""
    share_epochs: int = 1
    """Epochs of centroid training."""
    lr: float = 5e-5
    """Peak learning rate of retraining."""
    centroid_lr: float = 2e-5
    """Peak learning rate of centroid training."""
    refit: bool = True
    """Fit the kept weights to the float network's outputs after pruning; False is the method of 2015."""
    distillation: float = 0.8
    """Share of the loss that is towards the float network's predictions, not the labels; 0 is the method of 2015."""
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out."""
        if not 0 < self.density <= 1:
            raise RecipeError(f"expected `density` above 0 and at most 1, got {self.density}")
        if not 1 <= self.index_bits <= 8:
            raise RecipeError(f"expected `index_bits` from 1 to 8, got {self.index_bits}")
        if self.prune_rounds < 1:
            raise RecipeError(f"expected at least one `prune_rounds`, got {self.prune_rounds}")

    def recipe(self, *, epochs: int, lr: float, phase: int) -> Recipe:
        """Training settings of one phase; each draws its own order and crops.

        AdamW, since the scale of gradients differs from layer to layer and with the size of the clusters.
        """
        return Recipe(
            name="deep-compression",
            epochs=epochs,
            optimizer="adamw",
            lr=lr,
            batch_size=self.batch_size,
            warmup_epochs=0.1,
            clip_grad_norm=5.0,
            seed=self.seed + phase,
            dropout=0.0,
            label_smoothing=0.1,
            distillation=self.distillation,
            ema_decay=0.99,
        )


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """One layer in the terms of the paper's table 1 and of the 2016 storage scheme."""

    name: str
    params: int
    n_weights: int
    n_kept: int
    n_centroids: int
    sizes: SparseSizes

    @property
    def density(self) -> float:
        """Share of the weights that is kept; the paper's column headed "sparsity"."""
        return self.n_kept / self.n_weights

    @property
    def huffman_bytes(self) -> int:
        """Weights, codebook and biases (both float32) as the 2016 scheme stores them."""
        n_biases = self.params - self.n_weights
        return -(-self.sizes.huffman_bits // 8) + 4 * (self.n_centroids + n_biases)


@dataclass(frozen=True, kw_only=True)
class DeepCompressionResult:
    """What came out: the integers, the float network they were made from, and the layers' sizes."""

    network: Network
    model: SqueezeNet
    layers: tuple[LayerSizes, ...]


class PruningMask:
    """Keeps pruned weights at zero while a network trains.

    `masks[name]` is bool, of the weight's shape; `True` means kept.
    """

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks

    @classmethod
    def by_magnitude(cls, model: SqueezeNet, density: float) -> PruningMask:
        """Keep the weights above a threshold of t standard deviations of their layer, with one t for all 3x3 layers.

        Source: Han et al. 2015, section 2 (a quality parameter times the layer's standard deviation).
        """
        weights = {name: conv.weight.detach() for name, conv in model.convs.items()}
        spread = {
            name: weight.std() * (1 if weight.shape[-1] > 1 else _POINTWISE_THRESHOLD)
            for name, weight in weights.items()
        }
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

    def on_gradients(self, model: SqueezeNet) -> None:
        """Take pruned weights out of the gradient, so that they do not count in its norm."""
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                conv.weight.grad.mul_(self.masks[name])

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Set pruned weights to zero again after a step."""
        for name, conv in model.convs.items():
            conv.weight.mul_(self.masks[name])


class SharedWeights:
    """Ties the weights of a cluster together while a network trains.

    `codes[name]` is int64, of the weight's shape; 0 stands for zero, 1 and up for the layer's centroids.
    """

    def __init__(self, codes: dict[str, Tensor]) -> None:
        self.codes = codes

    @classmethod
    def by_k_means(cls, model: SqueezeNet, *, index_bits: int) -> SharedWeights:
        """Cluster each layer's nonzero weights; `apply` then puts the centroids in place.

        Source: Han et al. 2015, section 3 (linear initialisation between the smallest and largest weight).
        """
        codes = {}
        for name, conv in model.convs.items():
            weight = conv.weight.detach().double().cpu().numpy().reshape(-1)
            codes[name] = torch.from_numpy(_cluster(weight, (1 << index_bits) - 1)).reshape(conv.weight.shape)
        return cls(codes)

    def centroids(self, model: SqueezeNet, name: str) -> Tensor:
        """Mean weight of every code, shape (codes,), code 0 being 0."""
        means = self._sums(name, model.convs[name].weight.detach()) / self._counts(name)
        means[0] = 0
        return means

    def on_gradients(self, model: SqueezeNet) -> None:
        """Give every weight the gradient of its centroid: the sum over the cluster."""
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                sums = self._sums(name, conv.weight.grad)
                sums[0] = 0
                conv.weight.grad.copy_(sums[self.codes[name]])

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Put the centroids in place; equal gradients keep clusters equal but for rounding, which ends here."""
        for name, conv in model.convs.items():
            conv.weight.copy_(self.centroids(model, name)[self.codes[name]])

    def _sums(self, name: str, values: Tensor) -> Tensor:
        codes = self.codes[name].reshape(-1)
        return values.new_zeros(int(codes.max()) + 1).index_add_(0, codes, values.reshape(-1))

    def _counts(self, name: str) -> Tensor:
        return torch.bincount(self.codes[name].reshape(-1)).clamp(min=1)


def deep_compress(
    model: SqueezeNet,
    retrainer: Retrainer,
    calibration: Iterable[NDArray[np.uint8]],
    settings: DeepCompression | None = None,
) -> DeepCompressionResult:
    """Run the whole method.

    Args:
        model: Float network, batch norm folded; it is not changed.
        retrainer: The labelled data to retrain on.
        calibration: Pixels that weights are refitted on and that set the activation scales, each (N, H, W, 3), uint8.
        settings: Densities, bits and lengths of training.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    settings = settings or DeepCompression()
    photos = list(calibration)
    teacher, model = model, copy.deepcopy(model)
    for number in range(1, settings.prune_rounds + 1):
        # Equal factors between rounds: each removes the same share of what is left.
        density = settings.density ** (number / settings.prune_rounds)
        mask = PruningMask.by_magnitude(model, density)
        mask.on_weights(model)
        if settings.refit:
            retrainer.reporter.say(f"fitting what is left at density {density:.0%}")
            refit_kept_weights(model, teacher, mask.masks, photos)
        epochs = settings.prune_epochs * (_LAST_ROUND if number == settings.prune_rounds else 1)
        recipe = settings.recipe(epochs=epochs, lr=settings.lr, phase=number)
        model = retrainer.run(model, recipe, mask, title=f"retraining at density {density:.0%}", teacher=teacher)
    shared = SharedWeights.by_k_means(model, index_bits=settings.index_bits)
    shared.on_weights(model)
    if settings.share_epochs:
        recipe = settings.recipe(epochs=settings.share_epochs, lr=settings.centroid_lr, phase=0)
        model = retrainer.run(model, recipe, shared, title="training centroids", teacher=teacher)
    return DeepCompressionResult(
        network=_to_network(model, photos),
        model=model,
        layers=tuple(_layer_sizes(model, shared, settings.index_bits)),
    )


def _cluster(weight: NDArray[np.float64], n_centroids: int) -> NDArray[np.int64]:
    """Codes of one layer's weights, shape (n,): 0 for zeros, 1 and up in order of the centroids."""
    codes = np.zeros(len(weight), np.int64)
    values = weight[weight != 0]
    distinct = np.unique(values)
    if len(distinct) <= n_centroids:
        codes[weight != 0] = 1 + np.searchsorted(distinct, values)
        return codes
    start = np.linspace(distinct[0], distinct[-1], n_centroids)[:, None]
    clusters = KMeans(n_centroids, init=start, n_init=1, max_iter=100).fit(values[:, None])
    order = np.argsort(np.argsort(clusters.cluster_centers_[:, 0], kind="stable"), kind="stable")
    codes[weight != 0] = 1 + order[clusters.labels_]
    return codes


def _to_network(model: SqueezeNet, calibration: Iterable[NDArray[np.uint8]]) -> Network:
    quants = tensor_quants(model, activation_ranges(model, calibration))
    convs = float_convs(model)
    params = {}
    for op in model.spec.convs:
        # One step a layer: the same centroid is then the same integer in every row.
        largest = np.abs(convs[op.name].weight).max() or 1.0
        params[op.name] = quantize_conv(
            op,
            convs[op.name],
            in_scale=input_scale(model.spec, op, quants),
            out_scale=output_scale(op, quants),
            step=np.full(op.out_channels, largest / 127),
        )
    return Network(model.spec, quants, params)


def _layer_sizes(model: SqueezeNet, shared: SharedWeights, index_bits: int) -> Iterable[LayerSizes]:
    for op in model.spec.convs:
        codes = shared.codes[op.name].reshape(-1).numpy()
        yield LayerSizes(
            name=op.name,
            params=op.params,
            n_weights=len(codes),
            n_kept=int((codes != 0).sum()),
            n_centroids=len(np.unique(codes[codes != 0])),
            sizes=sparse_sizes(codes, index_bits=index_bits),
        )
