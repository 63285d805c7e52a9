"""Finding a learning rate: a short run with a rising rate shows where the loss falls fastest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import TrainingError
from ..files import atomic_write
from ..models import SqueezeNet
from ..progress import Reporter, reporter_of
from ..reports.charts import line_chart
from ..reports.pages import render
from ..zoo import find_model
from .recipe import Recipe, load_recipe
from .setup import Data, TrainingData, choose_recipe, open_batches, prepare_data, start_model
from .state import TrainingState
from .step import Step, choose_device, choose_precision, epoch_steps

__all__ = ["LearningRates", "find_learning_rate"]

_SMOOTHING = 0.9  # share of the loss so far in its running mean
_DIVERGED = 4.0  # times the best loss so far
# A schedule so long that it stays where it starts.
_LEVEL = {"epochs": 100_000, "schedule": "linear", "warmup_epochs": 0.0, "freeze_features_epochs": 0, "ema_decay": 0.0,
          "teacher": None}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """The learning rates that were tried, and their losses."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Running mean of the training loss after a step at each rate, nats."""
    suggested: float
    """The rate at which the loss falls fastest."""
    lowest: float
    """The rate at which the loss was lowest."""
    data: str
    """Name of the images."""
    weights: str
    """Name of the weights that the network started from."""
    recipe: str

    def page(self) -> str:
        """Draw the curve as one HTML page.

        Raises:
            MissingDependencyError: If Jinja2 is not installed.
        """
        curve = line_chart(
            "Loss, nats", self.rates, [("running mean", self.losses)], mark=self.suggested,
            mark_text=f"{self.suggested:.2g}", x_label="learning rate", is_x_log=True,
        )  # fmt: skip
        facts = [("data", self.data), ("weights", self.weights), ("recipe", self.recipe)]
        return render("lr.html", title=self.data, finding=self, curve=curve, facts=facts)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page.

        Raises:
            MissingDependencyError: If Jinja2 is not installed.
            OSError: If the file cannot be written.
        """
        page = self.page().encode("utf-8", "backslashreplace")
        with atomic_write(Path(path)) as stream:
            stream.write(page)


def find_learning_rate(
    data: Data, *, recipe: Recipe | str | os.PathLike[str] | None = None,
    init: SqueezeNet | str | os.PathLike[str] | None = None, low: float = 1e-5, high: float = 3.0, n_steps: int = 100,
    progress: Reporter | bool = True, device: str = "auto",
) -> LearningRates:  # fmt: skip
    """Train for some steps with a rising learning rate, from `low` to `high` or until the loss diverges.

    Args:
        data: Images to train on, as for `train`.
        recipe: The recipe, as for `train`; its learning rate and length are not used.
        init: Weights to start from, as for `train`.
        low: First learning rate.
        high: Last learning rate.
        n_steps: Number of rates to try, spaced evenly on a logarithmic scale.
        progress: A `Reporter` that shows progress, or whether to show it.
        device: `auto`, or torch's name of the device.

    Raises:
        ModelNotFoundError: If `init` does not exist.
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or invalid.
        TrainingError: If the loss is never finite.

    Example:
        >>> len(find_learning_rate("digits", n_steps=5, progress=False).rates) <= 5
        True
    """
    reporter, target = reporter_of(progress), choose_device(device)
    given = None if recipe is None else load_recipe(recipe)
    if isinstance(init, (str, os.PathLike)):
        find_model(init)
    prepared = prepare_data(data, None, reporter)
    settings = given or choose_recipe(prepared, has_init=init is not None, reporter=reporter)
    settings = settings.replace(**_LEVEL)
    model, prepared = start_model(settings, init, prepared, reporter)
    precision = choose_precision(target) if settings.precision == "auto" else settings.precision
    state = TrainingState.start(settings, model, precision=precision, data_id="", device=target)
    steps = _endless(state, prepared, reporter)
    tried, losses, mean = list[float](), list[float](), 0.0
    with reporter.task("trying learning rates", n_steps, "steps") as task:
        for rate in np.geomspace(low, high, n_steps).tolist():
            state.recipe = settings.replace(lr=rate)
            loss = next(steps).loss
            if loss is None:
                break
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            tried.append(rate)
            losses.append(mean / (1 - _SMOOTHING ** len(tried)))
            task.update(len(tried), f"lr {rate:.2g}, loss {losses[-1]:.3f}")
            if losses[-1] > _DIVERGED * min(losses):
                break
    suggested, lowest = _choose(tried, losses, low)
    return LearningRates(
        rates=tuple(tried), losses=tuple(losses), suggested=suggested, lowest=lowest, data=prepared.train.name,
        weights=init.spec.name if isinstance(init, SqueezeNet) else os.fspath(init or "none"), recipe=settings.name,
    )  # fmt: skip


def _endless(state: TrainingState, prepared: TrainingData, reporter: Reporter) -> Iterator[Step]:
    assert state.model.preprocessing is not None
    batches = open_batches(state.recipe, state.model.preprocessing, prepared, reporter)
    while True:
        yield from epoch_steps(state, batches)
        state.epoch, state.step = state.epoch + 1, 0


def _choose(rates: list[float], losses: list[float], low: float) -> tuple[float, float]:
    """Rates where the loss falls fastest and where it is lowest."""
    if len(losses) < 3:
        raise TrainingError(f"expected a finite loss at a learning rate of {low:g}, got none: start lower")
    lowest = int(np.argmin(losses))
    # Slopes are measured over a tenth of the curve on either side, because neighbouring losses come from different
    # images.
    reach = max(1, len(losses) // 10)
    inner = range(reach, max(min(lowest, len(losses) - 1 - reach), reach) + 1)
    fastest = min(inner, key=lambda i: losses[i + reach] - losses[i - reach])
    return rates[fastest], rates[lowest]
