"""Constraints on weights during training."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..models import SqueezeNet
from .recipe import Recipe

__all__ = ["Constraint", "ZerosStay", "is_sparse_epoch", "prune_smallest"]


class Constraint(Protocol):
    """Something about the weights that training must keep, such as zeros that stay zero."""

    def on_gradients(self, model: SqueezeNet) -> None:
        """Change the gradients of a step before the optimiser sees them."""

    def on_weights(self, model: SqueezeNet) -> None:
        """Change the weights after a step."""


class ZerosStay:
    """Weights of convolutions that are zero before a step are zero after it.

    Source: Han et al. 2016, "DSD: Dense-Sparse-Dense Training", section 3.
    """

    def __init__(self) -> None:
        self._masks: list[Tensor] = []

    @torch.no_grad()
    def on_gradients(self, model: SqueezeNet) -> None:
        """Note which weights are zero, and drop their gradients."""
        self._masks = [conv.weight != 0 for conv in model.convs.values()]
        for conv, mask in zip(model.convs.values(), self._masks, strict=True):
            if conv.weight.grad is not None:
                conv.weight.grad *= mask

    @torch.no_grad()
    def on_weights(self, model: SqueezeNet) -> None:
        """Put back the zeros that momentum has moved."""
        for conv, mask in zip(model.convs.values(), self._masks, strict=True):
            conv.weight *= mask


def is_sparse_epoch(recipe: Recipe, epoch: int) -> bool:
    """Return whether zeros stay zeros in an epoch, counted from 0."""
    return recipe.sparse_epochs is not None and recipe.sparse_epochs[0] <= epoch + 1 <= recipe.sparse_epochs[1]


@torch.no_grad()
def prune_smallest(model: SqueezeNet, sparsity: float) -> None:
    """Set the smallest weights of every convolution to zero, in place: the part `sparsity` of them, 0 to 1."""
    for conv in model.convs.values():
        count = int(sparsity * conv.weight.numel())
        if count:
            is_small = torch.zeros(conv.weight.numel(), dtype=torch.bool, device=conv.weight.device)
            is_small[conv.weight.abs().flatten().argsort(stable=True)[:count]] = True
            conv.weight[is_small.view(conv.weight.shape)] = 0
