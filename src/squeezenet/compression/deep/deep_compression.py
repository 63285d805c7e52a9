"""Deep Compression, the 2016 method: prune, retrain, share weights, train the centroids, count Huffman bits.

In the published method, weights are pruned by their magnitude relative to each layer's spread, in rounds with
retraining between them; conv1 stays dense. Sharing is 1-D k-means per layer; a centroid's gradient is the sum of its
weights' gradients. One weight scale per layer ensures that shared weights stay equal as integers. This method needs a
million images. The default here is a variant for much smaller data sets: remove the weights that cost least
(`PruningMask.by_cost`), fit the rest of a layer to the float network before retraining, cluster weights by how
sensitive the loss is to them, and retrain towards the float network's predictions.

Source: Han et al. 2015 (arXiv 1510.00149); Iandola et al. 2016, section 4.2.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import RecipeError
from ...models import SqueezeNet
from ...quantization.int8 import quantize_with_ranges
from ...quantization.quantize import activation_ranges
from ...training.recipe import Recipe
from ..outcome import Job, Outcome, refuse_options
from ..retrain import Retrainer
from .huffman import LayerSizes, sparse_sizes
from .prune import PruningMask, output_sensitivities
from .refit import refit_kept_weights
from .share import SharedWeights, share_in_turn

__all__ = ["DeepCompression", "deep_compress"]

_BITS_OF_A_WEIGHT = 4  # its code, and what tells where it is
_LAST_ROUND = 2  # times as long as the others: its weights are the ones that stay


@dataclass(frozen=True, kw_only=True)
class DeepCompression:
    """The method of 2016: prune, retrain, share weights, train the shared values. It needs labelled images (`data`).

    Raises:
        RecipeError: On construction, if a value is out of range.
    """

    name: ClassVar[str] = "deep-compression"

    density: float = 0.385
    """Share of all weights that are kept."""
    index_bits: int = 5
    """Bits of a code: each layer has at most 2^bits - 1 shared values besides zero."""
    prune_rounds: int = 1
    """Number of rounds from dense to `density`, with retraining after each."""
    prune_epochs: int = 1
    """Epochs of retraining per round; if there are several rounds, the last one, at the final density, has twice as
    many."""
    share_epochs: int = 2
    """Epochs of centroid training."""
    repair_photos: int = 512
    """Number of augmented images used by the closed-form refits."""
    lr: float = 1e-4
    """Peak learning rate of retraining."""
    centroid_lr: float = 5e-5
    """Peak learning rate of centroid training."""
    criterion: Literal["cost", "magnitude"] = "cost"
    """How to select weights to prune and share: by their cost, with closed-form refits, or by magnitude, as in
    2015."""
    distillation: float = 1.0
    """Share of the loss that compares with the float network's predictions instead of labels; 0 is the method of
    2015."""
    mixup: float = 0.8
    """Blends pairs of images while retraining: for blends, predictions are more informative than labels."""
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges of the options."""
        if not 0 < self.density <= 1:
            raise RecipeError(f"expected `density` above 0 and at most 1, got {self.density}")
        if not 1 <= self.index_bits <= 8:
            raise RecipeError(f"expected `index_bits` from 1 to 8, got {self.index_bits}")
        if self.prune_rounds < 1:
            raise RecipeError(f"expected at least one `prune_rounds`, got {self.prune_rounds}")

    def check(self, *, has_data: bool, has_unlabelled: bool, has_val: bool) -> None:
        """Raise without labelled images to retrain on."""
        refuse_options(not has_data, "deep-compression retrains on labelled images: expected `data`, got none")
        refuse_options(has_unlabelled, "deep-compression retrains on labelled images: expected no `unlabelled`")

    def run(self, job: Job) -> Outcome:
        """Carry it out; see `deep_compress`."""
        assert job.data is not None
        retrainer = Retrainer(job.data, job.model, job.reporter)
        return deep_compress(job.model, retrainer, job.photos.batches(), self)

    def recipe(self, *, epochs: int, lr: float, phase: int) -> Recipe:
        """Training settings of one phase; AdamW, since the scale of gradients differs between layers and clusters."""
        return Recipe(
            name="deep-compression", epochs=epochs, optimizer="adamw", lr=lr, batch_size=self.batch_size,
            warmup_epochs=0.1, clip_grad_norm=5.0, seed=self.seed + phase, dropout=0.0, label_smoothing=0.1,
            distillation=self.distillation, mixup=self.mixup, ema_decay=0.99,
        )  # fmt: skip


def deep_compress(
    model: SqueezeNet, retrainer: Retrainer, calibration: Iterable[NDArray[np.uint8]], settings: DeepCompression
) -> Outcome:
    """Run the whole method.

    Args:
        model: Float network, batch norm folded; it is not changed.
        retrainer: The labelled data to refit and retrain on.
        calibration: Pixels that set the activation scales, each (N, H, W, 3), uint8.
        settings: Densities, bits and lengths of training.

    Raises:
        QuantizationError: If the network has no integer form.
    """
    teacher, model = model, copy.deepcopy(model)
    by_cost = settings.criterion == "cost"
    if by_cost:
        photos = _augmented(retrainer, settings)
        sensitivities = output_sensitivities(teacher, photos)
    say = retrainer.reporter.say
    for number in range(1, settings.prune_rounds + 1):
        # Equal factors between rounds: each removes the same share of the remaining weights.
        density = settings.density ** (number / settings.prune_rounds)
        say(f"pruning to density {density:.0%}")
        if by_cost:
            mask = PruningMask.by_cost(model, photos, sensitivities, density)
        else:
            mask = PruningMask.by_magnitude(model, density)
        mask.on_weights(model)
        if by_cost:
            refit_kept_weights(model, teacher, mask.masks, photos)
        if settings.prune_epochs:
            epochs = settings.prune_epochs * (_LAST_ROUND if number == settings.prune_rounds > 1 else 1)
            recipe = settings.recipe(epochs=epochs, lr=settings.lr, phase=number)
            model = retrainer.run(model, recipe, mask, title=f"retraining at density {density:.0%}", teacher=teacher)
    say(f"sharing {(1 << settings.index_bits) - 1} values per layer")
    if by_cost:
        aim = copy.deepcopy(model) if settings.prune_epochs else teacher
        shared = share_in_turn(
            model, aim, mask.masks, photos, sensitivities, index_bits=settings.index_bits,
            # A bit costs the same everywhere: what removing a weight saves, and what a code of fewer bits saves.
            nats_per_bit=mask.threshold / _BITS_OF_A_WEIGHT,
        )  # fmt: skip
    else:
        shared = SharedWeights.by_k_means(model, index_bits=settings.index_bits)
        shared.on_weights(model)
    if settings.share_epochs:
        recipe = settings.recipe(epochs=settings.share_epochs, lr=settings.centroid_lr, phase=0)
        model = retrainer.run(model, recipe, shared, title="training centroids", teacher=teacher)
    layers = tuple(_layer_sizes(model, shared, settings.index_bits))
    network = quantize_with_ranges(model, activation_ranges(model, calibration), one_step=True)
    return Outcome(network=network, layers_2016=layers)


def _augmented(retrainer: Retrainer, settings: DeepCompression) -> list[NDArray[np.uint8]]:
    """Random crops, as in retraining: on uncropped training photos, a trained network is overconfident."""
    batches = retrainer.epoch(0, batch_size=min(settings.batch_size, retrainer.n_images), seed=settings.seed)
    n_batches = -(-settings.repair_photos // settings.batch_size)
    return [pixels.numpy() for pixels in itertools.islice(batches, n_batches)]


def _layer_sizes(model: SqueezeNet, shared: SharedWeights, index_bits: int) -> Iterable[LayerSizes]:
    for op in model.spec.convs:
        codes = shared.codes[op.name].reshape(-1).numpy()
        yield LayerSizes(
            name=op.name, params=op.params, n_weights=len(codes), n_kept=int((codes != 0).sum()),
            n_centroids=len(np.unique(codes[codes != 0])), sizes=sparse_sizes(codes, index_bits=index_bits),
        )  # fmt: skip
