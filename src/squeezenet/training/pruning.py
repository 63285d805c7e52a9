"""Gradual pruning while a network is trained, for a compressed file of a given size.

At a low budget, most of the accuracy is lost because rounding sets most weights to zero at once. Training can remove
them a few at a time, while the remaining weights adapt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..models import SqueezeNet

__all__ = ["GradualPruning", "PruningSchedule"]

_BISECTION_STEPS = 16
_GRADIENT_DECAY = 0.99  # of the averages of squared gradients
_DENSE_BITS = 5.5  # per weight of a network without zeros, where the schedule starts
_KEPT_BITS = 3.3  # sign and magnitude of a nonzero weight
_LEAST_BITS = 1.5  # lower limit of what removing a weight saves
_ROW_BITS = 11  # bias and multiplier of an output channel


@dataclass(frozen=True, kw_only=True)
class PruningSchedule:
    """How fast weights are removed; the defaults are for training from scratch, while the learning rate is high."""

    first: float = 0.15
    """Share of the steps after which weights begin to be removed."""
    last: float = 0.65
    """Share of the steps after which the choice is final."""
    choices: int = 160
    """Number of times that the removed weights are chosen."""
    estimate: float = 1.4
    """Estimated bytes to prune to, relative to the size of the file. Files take 0.71 to 0.85 of the estimate; rounding
    removes a few more weights if this is larger than 1.25."""


class GradualPruning:
    """Sets weights to zero during training until the network fits a budget by an estimate; a `Constraint`.

    The removed weights are those whose removal costs least per bit saved, and are chosen again every few steps. The
    cost is the squared weight times its mean squared gradient. A weight whose neighbours are mostly removed saves more
    bits. Until the last choice, removed weights are still updated and may come back.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (the schedule); Lin et al. 2020, "Dynamic model pruning
    with feedback" (weights that come back).
    """

    def __init__(self, max_bytes: int, n_steps: int, schedule: PruningSchedule | None = None) -> None:
        """Prune to a file of about `max_bytes`, in `n_steps` steps of training."""
        schedule = schedule or PruningSchedule()
        self._goal = schedule.estimate * max_bytes
        self._first, self._last = int(schedule.first * n_steps), max(1, int(schedule.last * n_steps))
        self._every = max(1, (self._last - self._first) // schedule.choices)
        self._step = 0
        self._layers: dict[str, _Layer] = {}

    @property
    def is_final(self) -> bool:
        """Whether the last choice is made: from now on, removed weights stay at zero."""
        return self._step >= self._last

    @torch.no_grad()
    def on_gradients(self, model: SqueezeNet) -> None:
        """Average the squared gradients; after the last choice, drop the gradients of removed weights."""
        if not self._layers:
            self._layers = {name: _Layer(conv.weight) for name, conv in model.convs.items()}
        for name, conv in model.convs.items():
            if conv.weight.grad is not None:
                self._layers[name].note(conv.weight.grad)
                if self.is_final:
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
        """Set the removed weights to zero, in place."""
        for name, conv in model.convs.items():
            conv.weight *= self._layers[name].kept.to(conv.weight.device)

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes, for a checkpoint."""
        return {"step": self._step, "layers": {name: dict(vars(layer)) for name, layer in self._layers.items()}}

    def load_state_dict(self, state: Mapping[str, Any], model: SqueezeNet) -> None:
        """Restore what `state_dict` returned.

        Raises:
            TrainingError: If the state is not that of this network.
        """
        layers = {}
        for name, found in state["layers"].items():
            layer = layers[name] = _Layer(model.convs[name].weight)
            for key, expected in vars(layer).items():
                if found[key].shape != expected.shape or found[key].dtype != expected.dtype:
                    raise TrainingError("expected the pruning of a network of these shapes, got another")
                setattr(layer, key, found[key].to(expected.device, memory_format=torch.preserve_format))
        if type(state["step"]) is not int or (layers and layers.keys() != model.convs.keys()):
            raise TrainingError("expected the pruning of all layers of this network, got another")
        self._step, self._layers = state["step"], layers

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
        self.rows, self.columns = self.latent.new_zeros(weight.shape[0]), self.latent.new_zeros(weight.shape[1])

    def note(self, gradient: Tensor) -> None:
        squares = gradient.float().square().nan_to_num(0.0, 0.0, 0.0)  # a step that is not finite is undone
        self.rows.lerp_(squares.mean((1, 2, 3)), 1 - _GRADIENT_DECAY)
        self.columns.lerp_(squares.mean((0, 2, 3)), 1 - _GRADIENT_DECAY)

    def follow(self, weight: Tensor) -> None:
        """Apply to the latent weights the step that the optimiser took on the pruned weights."""
        self.latent += weight - self.latent * self.kept

    def scores(self) -> Tensor:
        """Cost of removing each weight per bit saved, comparable between layers, (O, I, k, k)."""
        mean = self.rows.mean().clamp(min=1e-30)
        importance = (self.rows[:, None] * self.columns / mean)[:, :, None, None]
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
