"""Gradual pruning before rounding, for low budgets.

At a low budget, most of the accuracy is lost because rounding sets most weights to zero at once. Training can remove
them a few at a time, while the remaining weights adapt to keep the float network's predictions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..models import SqueezeNet
from ..training.recipe import Recipe
from .retrain import Retrainer

__all__ = ["GradualPruning", "train_sparse"]

_FIRST, _LAST = 0.06, 0.55  # share of the steps at which pruning begins and ends
_CHOICES = 80  # number of times that the removed weights are chosen
_BISECTION_STEPS = 16
_GRADIENT_DECAY = 0.99  # of the averages of squared gradients
_DENSE_BITS = 5.5  # per weight of a network without zeros, where the schedule starts
_KEPT_BITS = 3.3  # sign and magnitude of a nonzero weight
_LEAST_BITS = 1.5  # lower limit of what removing a weight saves
_ROW_BITS = 11  # bias and multiplier of an output channel
# Files take 0.71 to 0.85 of the estimated bytes; at 1 / 1.25, rounding removes a few more weights.
_ESTIMATE = 1.25

_LR = 6e-5  # of AdamW, times the root of the batch size


class GradualPruning:
    """Sets weights to zero during training until the network fits a budget by an estimate; a `Constraint`.

    The removed weights are those whose removal costs least per bit saved, and are chosen again every few steps. The
    cost is the squared weight times its mean squared gradient. A weight whose neighbours are mostly removed saves more
    bits. Until the last choice, removed weights are still updated and may come back.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (the schedule); Lin et al. 2020, "Dynamic model pruning
    with feedback" (weights that come back).
    """

    def __init__(self, max_bytes: int, n_steps: int) -> None:
        """Prune to a file of about `max_bytes`, in `n_steps` steps of training."""
        self._goal = _ESTIMATE * max_bytes
        self._first, self._last = int(_FIRST * n_steps), max(1, int(_LAST * n_steps))
        self._every = max(1, (self._last - self._first) // _CHOICES)
        self._step = 0
        self._layers: dict[str, _Layer] = {}

    @torch.no_grad()
    def on_gradients(self, model: SqueezeNet) -> None:
        """Average the squared gradients; after the last choice, drop the gradients of removed weights."""
        if not self._layers:
            self._layers = {name: _Layer(conv.weight) for name, conv in model.convs.items()}
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                self._layers[name].note(conv.weight.grad)
                if self._step >= self._last:
                    conv.weight.grad *= self._layers[name].kept

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Apply the step to the stored weights, choose again if a choice is due, and set removed weights to zero."""
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
        """Set the removed weights to zero."""
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
    """Stored weights of one convolution, and which of them are kept."""

    def __init__(self, weight: Tensor) -> None:
        self.latent = weight.detach().clone()
        """Weights before removed ones are set to zero, (O, I, k, k)."""
        self.kept = torch.ones_like(self.latent, dtype=torch.bool)
        self._rows, self._columns = self.latent.new_zeros(weight.shape[0]), self.latent.new_zeros(weight.shape[1])

    def note(self, gradient: Tensor) -> None:
        squares = gradient.float().square()
        self._rows.lerp_(squares.mean((1, 2, 3)), 1 - _GRADIENT_DECAY)
        self._columns.lerp_(squares.mean((0, 2, 3)), 1 - _GRADIENT_DECAY)

    def follow(self, weight: Tensor) -> None:
        """Apply to the latent weights the step that the optimiser took on the pruned weights."""
        self.latent += weight - self.latent * self.kept

    def scores(self) -> Tensor:
        """Cost of removing each weight per bit saved, comparable between layers, (O, I, k, k)."""
        mean = self._rows.mean().clamp(min=1e-30)
        importance = (self._rows[:, None] * self._columns / mean)[:, :, None, None]
        density = self._density()
        saved = (((1 - density) / density).log2() + _KEPT_BITS).clamp(min=_LEAST_BITS)
        return self.latent.square() * importance / saved

    def bits(self) -> float:
        """Estimate the bits that the layer takes in a file."""
        density, kept = self._density(), self.kept.float()
        which = -(kept * density.log2() + (1 - kept) * (1 - density).log2()).sum()
        return float(which + _KEPT_BITS * kept.sum()) + _ROW_BITS * len(kept)

    def _density(self) -> Tensor:
        """Share of weights kept in the same row and column, (O, I, 1, 1): the coder's contexts adapt to it."""
        kept = self.kept.float()
        rows, columns = kept.mean((1, 2, 3)), kept.mean((0, 2, 3))
        share = rows[:, None] * columns / kept.mean().clamp(min=1e-3)
        return share.clamp(0.003, 0.97)[:, :, None, None]


def train_sparse(
    model: SqueezeNet, retrainer: Retrainer, *, max_bytes: int, epochs: int, batch_size: int
) -> SqueezeNet:
    """Prune a copy of a network gradually to a budget, with the network itself as the teacher.

    Args:
        model: Float network, batch norm folded; not changed.
        retrainer: The data set to train on.
        max_bytes: Size of the file that the result will be rounded to.
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
