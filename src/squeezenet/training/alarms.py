"""Detecting that a network learns nothing."""

from __future__ import annotations

import math

from ..data.imageset import ImageSet
from ..data.shards import ShardSet
from .recipe import Recipe

__all__ = ["dead_network_alarm", "guessing_loss"]

# A network that has learnt nothing predicts the same for every image; its loss is this close to that of guessing.
_DEAD_MARGIN = 0.02
_DEAD_AFTER_STEPS = 50  # after the warm-up: sooner, a slow start looks the same


def dead_network_alarm(
    images: ImageSet | ShardSet,
    recipe: Recipe,
    *,
    epoch: int,
    steps_per_epoch: int,
    train_loss: float,
    may_norm: bool = True,
) -> str | None:
    """Advise what to do if the mean loss of an epoch, from 0, is that of guessing; None if not, or too early to say.

    `may_norm`: whether the network could have batch norm, and is trained without.
    """
    steps_after_warmup = (epoch + 1 - recipe.warmup_epochs) * steps_per_epoch
    if steps_after_warmup < _DEAD_AFTER_STEPS or len(images.classes) < 2 or recipe.teacher:
        return None
    lowest, highest = guessing_loss(images, recipe.label_smoothing)
    if "balanced" in (recipe.sampling, recipe.class_weights):  # then classes are as good as equally frequent
        lowest = highest
    if not lowest * (1 - _DEAD_MARGIN) <= train_loss <= highest * (1 + _DEAD_MARGIN):
        return None
    return (
        f"ALARM: after epoch {epoch + 1} the loss is ln(classes) = {highest:.3f}, as for guessing: the network"
        f" has learnt nothing. Its ReLUs may be dead: use a smaller `lr` (={recipe.lr})"
        f"{',' if may_norm else ' or'} a longer `warmup_epochs` (={recipe.warmup_epochs:g})"
        f"{' or `batch_norm = true`' if may_norm else ''}"
    )


def guessing_loss(images: ImageSet | ShardSet, label_smoothing: float) -> tuple[float, float]:
    """Compute the loss of a network that ignores its input: guessing by the classes' shares, and all classes alike.

    Returns:
        Both, in nats; they agree where classes are equally frequent.
    """
    counts = list(images.class_counts().values())
    shares = [(1 - label_smoothing) * count / sum(counts) + label_smoothing / len(counts) for count in counts]
    return -sum(share * math.log(share) for share in shares if share), math.log(len(counts))
