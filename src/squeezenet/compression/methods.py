"""The presets of `squeezenet compress`, behind one kind of result.

Use this when you compress from Python: `run_rate_distortion`, `run_int8` or `run_deep_compression`, then `encode_sqz`.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..data import ImageSet
from ..models import SqueezeNet
from ..network import IntegerNetwork
from ..progress import Reporter, Task
from ..quantization.photos import CalibrationPhotos
from .deep.deep_compression import DeepCompression, LayerSizes, deep_compress
from .rate_distortion import DistillSettings, RDPoint, RDSettings, compress_rate_distortion
from .retrain import Retrainer

__all__ = ["Outcome", "run_deep_compression", "run_rate_distortion"]

# A weight that gets nothing but noise wanders by about its rate times the root of the steps: by less than the half step
# that parts it from the next integer, with this.
_WEIGHT_TRAVEL = 0.4
_LARGEST_BATCH, _SMALLEST_BATCH, _STEPS_AN_EPOCH = 64, 16, 300  # integers need steps more than they need large batches


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The integers, and what the preset has to say about them."""

    network: IntegerNetwork
    layers_2016: tuple[LayerSizes, ...] = ()
    """Sizes under the paper's storage scheme, from `deep-compression`."""
    points: tuple[RDPoint, ...] = ()
    """What the search of `rate-distortion` looked at."""
    meets_target: bool = True
    """Whether the budget was kept; what comes nearest is returned in any case."""


def run_deep_compression(
    model: SqueezeNet, calibration: CalibrationPhotos, data: ImageSet, settings: DeepCompression, reporter: Reporter
) -> Outcome:
    """Prune, retrain, share and train centroids on labelled images; see `deep_compress`.

    Raises:
        DataError: If the images cannot be used, or their classes are none of the model's.
    """
    retrainer = Retrainer(_numbered_as(model, data), model, reporter)
    result = deep_compress(model, retrainer, calibration.batches(), settings)
    return Outcome(network=result.network, layers_2016=result.layers)


def run_rate_distortion(
    model: SqueezeNet,
    calibration: CalibrationPhotos,
    *,
    max_bytes: int | None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    points_lost: Callable[[IntegerNetwork], float] | None = None,
    polish_minutes: float = 0,
    data: ImageSet | None = None,
    epochs: int = 0,
    file_bytes: Callable[[IntegerNetwork], int],
    reporter: Reporter,
) -> Outcome:
    """Meet a budget from unlabelled photos, or with labelled images; see `compress_rate_distortion`.

    Args:
        model: Batch norm folded, with its preprocessing.
        calibration: Photos to measure sensitivities and scales on.
        max_bytes: As there, like the three that follow.
        max_kl: See `max_bytes`.
        max_drop: See `max_bytes`.
        points_lost: See `max_bytes`.
        polish_minutes: Time to distil on the calibration photos.
        data: Labelled images to train on instead, with `epochs`.
        epochs: Times to go through `data`.
        file_bytes: Measures the file a network will become.
        reporter: Shows progress.

    Raises:
        QuantizationError: If there are fewer than 10 photos, or more than one budget is given.
        DataError: If the images cannot be used, or their classes are none of the model's.
    """
    labelled, steps = None, 0
    if data is not None and epochs:
        retrainer = Retrainer(_numbered_as(model, data), model, reporter)
        batch_size = min(max(retrainer.n_images // _STEPS_AN_EPOCH, _SMALLEST_BATCH), _LARGEST_BATCH)
        labelled = functools.partial(retrainer.epoch, batch_size=batch_size)
        steps = epochs * max(1, retrainer.n_images // batch_size)
    with _Stages(reporter) as stages:
        result = compress_rate_distortion(
            model,
            calibration.all_pixels,
            max_bytes=max_bytes,
            max_kl=max_kl,
            max_drop=max_drop,
            points_lost=points_lost,
            polish_minutes=polish_minutes,
            labelled=labelled,
            labelled_steps=steps,
            settings=RDSettings(distillation=_on_a_set(steps)) if steps else None,
            progress=stages,
            file_bytes=file_bytes,
        )
    return Outcome(network=result.network, points=result.points, meets_target=result.meets_target)


def _on_a_set(steps: int) -> DistillSettings:
    return DistillSettings(weight_rate=_WEIGHT_TRAVEL / math.sqrt(steps), features=0.3, averaging=0.995)


def _numbered_as(model: SqueezeNet, data: ImageSet) -> ImageSet:
    return data if model.labels is None else data.relabel(model.labels.match(data.classes), model.labels.names)


class _Stages:
    """Shows a run of stages, each with its share done, as one task after another."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._open = contextlib.ExitStack()
        self._task: Task | None = None
        self._stage, self._percent = "", 0

    def __call__(self, stage: str, share: float) -> None:
        percent = round(100 * share)
        if self._task is None or stage != self._stage or percent < self._percent:
            self._open.close()
            self._task = self._open.enter_context(self._reporter.task(stage, 100, "%"))
        self._stage, self._percent = stage, percent
        self._task.update(percent)

    def __enter__(self) -> _Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
