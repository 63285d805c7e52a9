"""One step and one validation: where images meet the network.

Use this when you change what happens to a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.loader import Batch
from ..evaluate.metrics import Accuracy
from ..models import SqueezeNet, normalize_pixels
from .optimization import learning_rate, set_learning_rate
from .state import TrainingState, seed_step

__all__ = ["Constraint", "choose_precision", "train_step", "validate"]


def choose_precision(device: torch.device) -> str:
    """Take bfloat16 where the processor multiplies it natively; elsewhere it would only be slower."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.4
    capabilities = get_capabilities() if get_capabilities else {}
    has_bfloat16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bfloat16" if has_bfloat16 else "float32"


class Constraint(Protocol):
    """Something about the weights that training must keep, such as zeros that stay zero."""

    def on_gradients(self, model: SqueezeNet) -> None:
        """Change the gradients of a step before the optimiser sees them."""

    def on_weights(self, model: SqueezeNet) -> None:
        """Change the weights after a step."""


def train_step(
    state: TrainingState,
    batch: Batch,
    *,
    steps_per_epoch: int,
    constraint: Constraint | None = None,
    teacher: SqueezeNet | None = None,
) -> float | None:
    """Move the weights by one batch.

    Args:
        state: The run; its model, optimizer and average move.
        batch: The images.
        steps_per_epoch: Places the step in the learning rate's schedule.
        constraint: What the weights must keep to.
        teacher: Network whose predictions make up the recipe's `distillation` share of the loss.

    Returns:
        The mean loss, or None if it or its gradient was not finite: then nothing has moved.
    """
    model, recipe = state.model, state.recipe
    device = model.head.weight.device
    step = state.epoch * steps_per_epoch + state.step
    is_frozen = state.epoch < recipe.freeze_features_epochs
    set_learning_rate(state.optimizer, learning_rate(recipe, step=step, steps_per_epoch=steps_per_epoch))
    seed_step(recipe.seed, step)
    model.train()
    model.features.train(not is_frozen)
    # A forward pass moves the statistics of batch norms, which has to be undone with the step.
    buffers = [buffer.clone() for buffer in model.buffers()]

    labels = batch.labels.to(device)
    assert model.preprocessing is not None
    x_NCHW = normalize_pixels(batch.pixels.to(device), model.preprocessing)
    state.optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=state.precision == "bfloat16"):
        with torch.set_grad_enabled(not is_frozen):
            features = model.forward_features(x_NCHW)
        logits = model.forward_head(features)
        with torch.no_grad():
            soft_targets = teacher(x_NCHW).float().softmax(1) if teacher and recipe.distillation else None
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    if soft_targets is not None:
        loss = torch.lerp(loss, F.cross_entropy(logits.float(), soft_targets), recipe.distillation)
    value = loss.item()
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        if constraint:
            constraint.on_gradients(model)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad_norm or math.inf)
        if torch.isfinite(norm):
            state.optimizer.step()
            if constraint:
                constraint.on_weights(model)
            if state.average:
                state.average.update(model, step)
            return value
    _restore(model, buffers)
    return None


def _restore(model: SqueezeNet, buffers: list[Tensor]) -> None:
    for buffer, before in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(before)


@torch.no_grad()
def validate(model: SqueezeNet, batches: Iterable[Batch]) -> tuple[Accuracy, float]:
    """Measure a network in float32, as it will be used.

    Returns:
        The accuracy, and the mean loss in nats.
    """
    model.eval()
    device = model.head.weight.device
    assert model.preprocessing is not None
    accuracy = Accuracy(n_images=0, top1_correct=0, top5_correct=0)
    loss_sum = 0.0
    for batch in batches:
        if not len(batch.labels):
            continue
        logits = model(normalize_pixels(batch.pixels.to(device), model.preprocessing)).float().cpu()
        loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        accuracy += Accuracy.of(logits.numpy(), batch.labels.numpy())
    return accuracy, loss_sum / max(accuracy.n_images, 1)
