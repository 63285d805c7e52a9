"""Optimiser, learning-rate schedule and running average of a recipe."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from ..models import SqueezeNet
from .recipe import Recipe

__all__ = ["WeightAverage", "build_optimizer", "learning_rate", "set_learning_rate"]

_LEAST_WARMUP_STEPS = 100


def build_optimizer(model: SqueezeNet, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser, with the parameters grouped by learning rate and weight decay."""
    head = {id(parameter) for parameter in model.head.parameters()}
    groups: list[dict[str, Any]] = []
    for is_head in (False, True):
        for is_decayed in (True, False):
            parameters = [
                parameter
                for parameter in model.parameters()
                # Biases and batch norms are vectors, weights of convolutions are not.
                if (id(parameter) in head) == is_head and (recipe.decay_biases or parameter.ndim > 1) == is_decayed
            ]
            lr_scale = 1.0 if is_head else recipe.features_lr_scale
            decay = recipe.weight_decay if is_decayed else 0.0
            if parameters:
                groups.append({"params": parameters, "lr_scale": lr_scale, "weight_decay": decay})
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), foreach=True)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, foreach=True)


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """Look up the learning rate of a step, counted from 0 over the whole run.

    It rises in a line over the warm-up, then falls to 0 as a half cosine or in a line. Epochs of a small set are few
    steps, yet momentum and statistics need steps: a warm-up has at least 100 of them, or a fifth of a short run.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    if warmup:
        warmup = max(warmup, min(_LEAST_WARMUP_STEPS, total // 5))
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    share = 0.5 * (1 + math.cos(math.pi * done)) if recipe.schedule == "cosine" else 1 - done
    return recipe.lr * share


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


class WeightAverage:
    """A copy of a network whose weights follow the original's slowly, which makes them less noisy."""

    def __init__(self, model: SqueezeNet, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.decay = decay
        # The statistics of batch norms are averaged like the weights they belong to.
        self._averages, self._weights = (
            [tensor.detach() for tensor in module.state_dict().values() if tensor.is_floating_point()]
            for module in (self.model, model)
        )

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the original, faster during the first steps, whose weights soon lose their value."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._weights, weight)
