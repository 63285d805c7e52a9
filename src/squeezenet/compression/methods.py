"""The compression methods: each is a frozen set of options, checked on construction, that runs on a network."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from ..progress import Reporter, Task
from ..quantization.int8 import quantize_int8
from .deep.deep_compression import DeepCompression
from .outcome import Job, Outcome, refuse_options
from .rate_distortion import DistillSettings, Lessons, compress_rate_distortion
from .retrain import Retrainer
from .sparse import train_sparse
from .stream import PhotoStream

__all__ = ["METHODS", "DeepCompression", "Int8", "Method", "RateDistortion"]

_PATIENCE = 6  # of 16 checks: photos unlike the calibration photos may not help
# Under pure gradient noise a weight drifts by about its rate times the root of the number of steps. 0.4 keeps that
# drift below 0.5, the distance to the next integer.
_WEIGHT_TRAVEL = 0.4
_LARGEST_BATCH, _SMALLEST_BATCH, _STEPS_PER_EPOCH = 64, 16, 300  # integers need steps more than they need large batches


class Method(Protocol):
    """A method that converts a float network to integers."""

    name: ClassVar[str]
    """Name on the command line and in reports."""

    def check(self, *, has_data: bool, has_unlabelled: bool, has_val: bool) -> None:
        """Check the options against the images that are available.

        Raises:
            CompressionError: If something is missing or would be ignored.
        """

    def run(self, job: Job) -> Outcome:
        """Carry the method out."""


@dataclass(frozen=True, kw_only=True)
class RateDistortion:
    """Rounding that spends bytes where the loss is sensitive to them, within one budget; by default a KL of 0.05.

    Raises:
        CompressionError: On construction, if more than one budget is given or a number is out of range.
    """

    name: ClassVar[str] = "rate-distortion"

    max_bytes: int | None = None
    """Largest file, bytes."""
    max_kl: float | None = None
    """Largest mean KL(float || compressed) on held-out photos, nats."""
    max_drop: float | None = None
    """Largest loss of top-1 on `val`, percentage points."""
    polish_minutes: float = 0
    """Minutes of distillation from the float network on the calibration photos, after all other steps."""
    epochs: int = 2
    """Number of epochs on `data` or `unlabelled`, if one of them is given."""
    prune_epochs: int = 0
    """Number of epochs on `data` before rounding that remove weights step by step, until the network fits `max_bytes`
    by an estimate; for budgets far below the size that a KL of 0.05 takes."""

    def __post_init__(self) -> None:
        """Check the ranges of the options."""
        budgets = [name for name in ("max_bytes", "max_kl", "max_drop") if getattr(self, name) is not None]
        given = " and ".join(f"`{name}`" for name in budgets)
        refuse_options(len(budgets) > 1, f"expected one budget, got {given}")
        least_values = {"max_bytes": 1, "max_drop": 0, "polish_minutes": 0, "epochs": 1, "prune_epochs": 0}
        for name, least in least_values.items():
            value = getattr(self, name)
            is_low = value is not None and not value >= least
            refuse_options(is_low, f"expected `{name}` of at least {least}, got {value}")
        refuse_options(self.max_kl is not None and not self.max_kl > 0, f"expected `max_kl` above 0, got {self.max_kl}")
        no_goal = self.prune_epochs > 0 and self.max_bytes is None
        refuse_options(no_goal, "`prune_epochs` prune to a file size: expected `max_bytes`, got none")

    def check(self, *, has_data: bool, has_unlabelled: bool, has_val: bool) -> None:
        """Raise for a budget of points without labelled images, and for two ways to train."""
        no_val = self.max_drop is not None and not has_val
        refuse_options(no_val, "`max_drop` is measured on labelled images: expected `val`, got none")
        reason = "`polish_minutes` cannot be combined with `data` or `unlabelled`: use `epochs` instead"
        refuse_options(bool(self.polish_minutes) and (has_data or has_unlabelled), reason)
        refuse_options(has_data and has_unlabelled, "expected either `data` or `unlabelled` to distil on, got both")
        no_data = self.prune_epochs > 0 and not has_data
        refuse_options(no_data, "`prune_epochs` train on labelled images: expected `data`, got none")

    def run(self, job: Job) -> Outcome:
        """Carry it out; see `compress_rate_distortion`."""
        lessons, settings, model = None, None, job.model
        if job.data is not None:
            retrainer = Retrainer(job.data, job.model, job.reporter)
            if self.prune_epochs and self.max_bytes is not None:
                model = train_sparse(
                    model, retrainer, max_bytes=self.max_bytes, epochs=self.prune_epochs,
                    batch_size=_batch_size(retrainer.n_images),
                )  # fmt: skip
            lessons = _lessons(retrainer, self.epochs)
        elif job.unlabelled is not None:
            stream = PhotoStream(job.unlabelled, job.model, job.reporter)
            lessons = replace(_lessons(stream, self.epochs), held_out=stream.held_out)
        if lessons is not None:
            rate = _WEIGHT_TRAVEL / math.sqrt(lessons.steps)
            settings = DistillSettings(weight_rate=rate, features=0.3, averaging=0.995)
            if job.data is None:
                settings = replace(settings, patience=_PATIENCE)
        with contextlib.ExitStack() as stack:
            return compress_rate_distortion(
                model, job.photos.all_pixels, max_bytes=self.max_bytes, max_kl=self.max_kl, max_drop=self.max_drop,
                points_lost=job.points_lost if self.max_drop is not None else None, lessons=lessons,
                polish_minutes=self.polish_minutes, distillation=settings,
                progress=_stages(job.reporter, stack), overhead_bytes=job.overhead_bytes,
                reference=job.model,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Rounding of weights to 8 bits with a scale per output channel; it has no options."""

    name: ClassVar[str] = "int8"

    def check(self, *, has_data: bool, has_unlabelled: bool, has_val: bool) -> None:
        """Raise for images to train on: nothing is trained."""
        reason = "int8 does not train: expected no `data` or `unlabelled`; use `calibration` to set scales"
        refuse_options(has_data or has_unlabelled, reason)

    def run(self, job: Job) -> Outcome:
        """Carry it out; see `compress_int8`."""
        return Outcome(network=quantize_int8(job.model, job.photos, job.reporter))


METHODS: dict[str, type[RateDistortion] | type[Int8] | type[DeepCompression]] = {
    method.name: method for method in (RateDistortion, Int8, DeepCompression)
}
"""Every method by its name, the default first."""


def _lessons(images: Retrainer | PhotoStream, epochs: int) -> Lessons:
    batch_size = _batch_size(images.n_images)
    steps = epochs * max(1, images.n_images // batch_size)
    return Lessons(epoch=functools.partial(images.epoch, batch_size=batch_size), steps=steps)


def _batch_size(n_images: int) -> int:
    return min(max(n_images // _STEPS_PER_EPOCH, _SMALLEST_BATCH), _LARGEST_BATCH)


def _stages(reporter: Reporter, stack: contextlib.ExitStack) -> Callable[[str, float], None]:
    """Show a run of stages, each with its share done, as one task after another; `stack` closes the last."""
    task: Task | None = None
    current, done = "", 0

    def show(stage: str, share: float) -> None:
        nonlocal task, current, done
        percent = round(100 * share)
        if task is None or stage != current or percent < done:
            stack.close()
            task = stack.enter_context(reporter.task(stage, 100, "%"))
        current, done = stage, percent
        task.update(percent)

    return show
