"""Gradual pruning of a trained network before rounding, for low budgets; see `training.pruning`."""

from __future__ import annotations

from ..models import SqueezeNet
from ..training.pruning import GradualPruning, PruningSchedule
from ..training.recipe import Recipe
from .retrain import Retrainer

__all__ = ["train_sparse"]

_SCHEDULE = PruningSchedule(first=0.06, last=0.55, choices=80, estimate=1.25)
_LR = 6e-5  # of AdamW, times the root of the batch size


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
    rule = GradualPruning(max_bytes, epochs * max(1, retrainer.n_images // batch_size), _SCHEDULE)
    recipe = Recipe(
        name="pruning", epochs=epochs, batch_size=batch_size, optimizer="adamw", lr=_LR * batch_size**0.5,
        warmup_epochs=min(0.5, epochs / 4), clip_grad_norm=5.0, dropout=0.0, distillation=1.0, distill_temperature=2.0,
    )  # fmt: skip
    student = retrainer.run(model, recipe, rule, title="pruning", teacher=model)
    rule.apply(student)
    return student
