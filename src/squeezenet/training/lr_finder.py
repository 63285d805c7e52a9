"""Trying learning rates: a short run whose rate rises with every step shows where the loss falls, and where it bursts.

Use this when a recipe meets a new kind of data, or does not learn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import TrainingError
from ..models import SqueezeNet
from ..progress import Reporter, reporter_of
from .feed.augment import draw_epoch
from .feed.batches import Batch
from .recipe import Recipe
from .setup import Data, choose_device, choose_settings, open_batches, prepare_data, start_model
from .state import TrainingState
from .step import choose_precision, train_step

__all__ = ["LearningRates", "find_learning_rate"]

_SMOOTHING = 0.9  # share of the loss so far in its running mean
_BURST = 4.0  # a loss so many times the best one has burst
_LONG = 100_000  # epochs of a schedule that stays where it starts


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """What was tried, and what came of it."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Running mean of the training loss after a step at each rate, nats."""
    suggested: float
    """Where the loss falls fastest."""
    lowest: float
    """Where it was lowest."""


def find_learning_rate(
    data: Data,
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    init: SqueezeNet | str | os.PathLike[str] | None = None,
    low: float = 1e-5,
    high: float = 3.0,
    n_steps: int = 100,
    progress: Reporter | bool = True,
    device: str = "auto",
) -> LearningRates:
    """Train for some steps at rising rates, from `low` to `high` or until the loss bursts.

    Args:
        data: As for `train_model`.
        recipe: As for `train_model`; everything but its learning rate and length holds.
        init: As for `train_model`.
        low: First rate.
        high: Last rate.
        n_steps: Rates tried, evenly spaced by their logarithm.
        progress: As for `train_model`.
        device: As for `train_model`.

    Raises:
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or impossible.
        TrainingError: If the loss is never finite.
    """
    reporter = reporter_of(progress)
    target = choose_device(device)
    prepared = prepare_data(data, None, reporter)
    settings = choose_settings(recipe, None, prepared, has_init=init is not None, reporter=reporter)
    settings = settings.replace(
        epochs=_LONG, schedule="linear", warmup_epochs=0.0, freeze_features_epochs=0, ema_decay=0.0, teacher=None
    )
    model, prepared = start_model(settings, init, prepared, reporter)
    assert model.preprocessing is not None
    precision = choose_precision(target) if settings.precision == "auto" else settings.precision
    state = TrainingState.start(settings, model, precision=precision, data_id="", device=target)
    batches = open_batches(settings, model.preprocessing, prepared, reporter)
    batch_size = min(settings.batch_size, batches.n_images)
    steps_per_epoch = batches.n_images // batch_size

    def endless() -> Iterator[Batch]:
        for epoch in range(_LONG):
            draw = draw_epoch(batches.n_images, seed=settings.seed, epoch=epoch)
            yield from batches.epoch(draw, batch_size=batch_size, first_step=0, n_steps=steps_per_epoch)

    tried: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with reporter.task("trying learning rates", n_steps, "steps") as task:
        for step, (rate, batch) in enumerate(zip(np.geomspace(low, high, n_steps).tolist(), endless(), strict=False)):
            state.recipe = settings.replace(lr=rate)
            state.step = step
            loss = train_step(state, batch, steps_per_epoch=steps_per_epoch)
            if loss is None:
                break
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            tried.append(rate)
            losses.append(mean / (1 - _SMOOTHING ** (step + 1)))
            task.update(step + 1, f"lr {rate:.2g}, loss {losses[-1]:.3f}")
            if losses[-1] > _BURST * min(losses):
                break
    if len(losses) < 3:
        raise TrainingError(f"expected a finite loss at a learning rate of {low:g}, got none: start lower")
    return LearningRates(rates=tuple(tried), losses=tuple(losses), **_judge(tried, losses))


def _judge(rates: list[float], losses: list[float]) -> dict[str, float]:
    lowest = int(np.argmin(losses))
    # Slopes over a tenth of the curve either way: neighbouring losses differ by which images they are of.
    reach = max(1, len(losses) // 10)
    inner = range(reach, max(min(lowest, len(losses) - 1 - reach), reach) + 1)
    fastest = min(inner, key=lambda i: losses[i + reach] - losses[i - reach])
    return {"suggested": rates[fastest], "lowest": rates[lowest]}
