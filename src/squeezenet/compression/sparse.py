"""Training with fewer and fewer weights before rounding: zeros that training has made cost little to round.

A network that is dense loses most by the weights that rounding sets to zero at a low budget. Here training sets them to
zero, a few at a time, while the others adapt and the float network's answers are imitated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import SqueezeNet
from ..training.recipe import Recipe
from .retrain import Retrainer

__all__ = ["GradualPruning", "train_sparse"]

_FIRST, _LAST = 0.06, 0.55  # share of the steps at which pruning begins and ends; the rest trains what is kept
_CHOICES = 80  # times to choose what is pruned
_BISECTION_STEPS = 16
_GRADIENT_DECAY = 0.99  # of the averages of squared gradients
_DENSE_BITS = 5.5  # a weight of a network without zeros, for the start of the schedule
_KEPT_BITS = 3.3  # sign and magnitude of a weight that is kept
_LEAST_BITS = 1.5  # what removing a weight saves at least
_ROW_BITS = 11  # bias and multiplier of an output channel
# The estimate is higher than what the coder needs (0.71 to 0.85 of it), and rounding removes some more weights.
_ESTIMATE = 1.25

_LR = 6e-5  # of AdamW, times the root of the batch size


class GradualPruning:
    """Sets weights to zero while a network trains, until an estimate of its file meets a budget; a `Constraint`.

    What goes are the weights whose removal costs least for the bits that it saves, chosen anew from time to time: the
    cost is the squared weight times its mean squared gradient; a weight saves more bits where few around it are left.
    Until the last choice removed weights are updated too and may come back.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (the schedule); Lin et al. 2020, "Dynamic model pruning
    with feedback" (weights that come back).
    """

    def __init__(self, max_bytes: int, n_steps: int) -> None:
        """Prune to about `max_bytes` of file in a training of `n_steps` steps."""
        self._goal, self._n_steps = _ESTIMATE * max_bytes, n_steps
        self._first, self._last = int(_FIRST * n_steps), max(1, int(_LAST * n_steps))
        self._every = max(1, (self._last - self._first) // _CHOICES)
        self._step = 0
        self._layers: dict[str, _Layer] = {}

    @torch.no_grad()
    def on_gradients(self, model: SqueezeNet) -> None:
        """Note how much each weight matters; after the last choice, drop the gradients of removed weights."""
        if not self._layers:
            self._layers = {name: _Layer(conv.weight) for name, conv in model.convs.items()}
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                self._layers[name].note(conv.weight.grad)
                if self._step >= self._last:
                    conv.weight.grad *= self._layers[name].kept

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Update the removed weights out of sight, choose again when it is time, and set what is removed to zero."""
        for name, conv in model.convs.items():
            self._layers[name].follow(conv.weight)
        self._step += 1
        is_due = self._step >= self._first and (self._step - self._first) % self._every == 0
        if self._step == self._last or (is_due and self._step < self._last):
            self._choose()
        for name, conv in model.convs.items():
            torch.mul(self._layers[name].latent, self._layers[name].kept, out=conv.weight.data)

    @torch.no_grad()
    def apply(self, model: SqueezeNet) -> None:
        """Set what is removed to zero."""
        for name, conv in model.convs.items():
            conv.weight *= self._layers[name].kept.to(conv.weight.device)

    def _choose(self) -> None:
        layers = list(self._layers.values())
        dense = _DENSE_BITS / 8 * sum(layer.latent.numel() for layer in layers)
        left = max(0.0, 1 - (self._step - self._first) / max(1, self._last - self._first))
        goal = self._goal * max(1.0, dense / self._goal) ** (left**3)
        scores = [layer.scores() for layer in layers]
        ordered = torch.cat([each.flatten() for each in scores]).sort().values
        low, high = 0.0, 1.0
        for _ in range(_BISECTION_STEPS):
            share = (low + high) / 2
            threshold = ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            for layer, each in zip(layers, scores, strict=True):
                layer.kept = each >= threshold
            n_bytes = sum(layer.bits() for layer in layers) / 8
            low, high = (share, high) if n_bytes > goal else (low, share)


class _Layer:
    """One convolution while it is pruned."""

    def __init__(self, weight: Tensor) -> None:
        self.latent = weight.detach().clone()
        """Weights as they would be without pruning, (O, I, k, k)."""
        self.kept = torch.ones_like(self.latent, dtype=torch.bool)
        self._rows, self._columns = self.latent.new_zeros(weight.shape[0]), self.latent.new_zeros(weight.shape[1])

    def note(self, gradient: Tensor) -> None:
        squares = gradient.float().square()
        self._rows.lerp_(squares.mean((1, 2, 3)), 1 - _GRADIENT_DECAY)
        self._columns.lerp_(squares.mean((0, 2, 3)), 1 - _GRADIENT_DECAY)

    def follow(self, weight: Tensor) -> None:
        """Make the latent weights take the step that the weights took from where pruning had put them."""
        self.latent += weight - self.latent * self.kept

    def scores(self) -> Tensor:
        """What a removal costs, in a unit common to all layers, for a bit that it saves."""
        mean = self._rows.mean().clamp(min=1e-30)
        importance = (self._rows[:, None] * self._columns / mean)[:, :, None, None]
        density = self._density()
        saved = (((1 - density) / density).log2() + _KEPT_BITS).clamp(min=_LEAST_BITS)
        return self.latent.square() * importance / saved

    def bits(self) -> float:
        """Estimate what the layer takes in a file."""
        density, kept = self._density(), self.kept.float()
        which = -(kept * density.log2() + (1 - kept) * (1 - density).log2()).sum()
        return float(which + _KEPT_BITS * kept.sum()) + _ROW_BITS * len(kept)

    def _density(self) -> Tensor:
        """Share of weights kept around each weight, (O, I, 1, 1), as the coder's contexts find out."""
        kept = self.kept.float()
        rows, columns = kept.mean((1, 2, 3)), kept.mean((0, 2, 3))
        share = rows[:, None] * columns / kept.mean().clamp(min=1e-3)
        return share.clamp(0.003, 0.97)[:, :, None, None]


def train_sparse(
    model: SqueezeNet, retrainer: Retrainer, *, max_bytes: int, epochs: int, batch_size: int
) -> SqueezeNet:
    """Train a copy of a network to do with weights that fit a budget, imitating the network as it was.

    Args:
        model: Float network, batch norm folded; not changed.
        retrainer: The data set to train on.
        max_bytes: Size of the file that it is going to be rounded to.
        epochs: Length of the training.
        batch_size: Images per step.

    Raises:
        TrainingError: If the loss is not finite in 10 steps in a row.
    """
    rule = GradualPruning(max_bytes, epochs * max(1, retrainer.n_images // batch_size))
    recipe = Recipe(
        name="pruning", epochs=epochs, batch_size=batch_size, optimizer="adamw", lr=_LR * batch_size**0.5,
        warmup_epochs=min(0.5, epochs / 4), clip_grad_norm=5.0, dropout=0.0, distillation=1.0, distill_temperature=2.0,
    )  # fmt: skip
    student = retrainer.run(model, recipe, rule, title="pruning", teacher=model)
    rule.apply(student)
    return student
