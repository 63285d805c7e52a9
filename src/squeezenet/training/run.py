"""A run under way: what is saved, reported and logged between steps and between epochs."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from ..data.check import refuse_unreadable
from ..data.decode import Unreadable
from ..data.holdout import TRAINED_ON
from ..errors import TrainingError
from ..evaluation.metrics import Accuracy
from ..process import StopSignals
from ..progress import PlainReporter, Reporter
from .alarms import dead_network_alarm
from .constraints import ZerosStay, is_sparse_epoch, prune_smallest
from .distributed import Workers
from .feed.batches import TrainBatches, ValBatches
from .feed.shards import ShardBatches
from .run_folder import EpochRow, EpochWriter, RunFolder
from .schedule import learning_rate
from .setup import TrainingData
from .state import TrainingState
from .step import epoch_size, epoch_steps, validate
from .teacher import Teacher

__all__ = ["Run"]


@dataclass(kw_only=True)
class Run:
    """A run's state, with its data and its outputs."""

    state: TrainingState
    folder: RunFolder
    batches: TrainBatches | ShardBatches
    val_batches: ValBatches
    """This process's share of the images to validate on."""
    n_val_images: int
    """Number of validation images of all processes; unreadable images are subtracted when they are found."""
    workers: Workers
    teacher: Teacher | None
    prepared: TrainingData
    reporter: Reporter
    started: float
    """`time.monotonic` at the start of the call."""
    checkpoint_every_s: float
    epoch_writers: tuple[EpochWriter, ...] = ()
    """Called in the first process after every finished epoch."""

    def __post_init__(self) -> None:
        """Derive the size of an epoch and the weights of classes."""
        recipe = self.state.recipe
        self.batch_size, self.steps_per_epoch = epoch_size(recipe, self.batches.n_images)
        if recipe.prune_to:
            self.state.begin_pruning(recipe.epochs * self.steps_per_epoch)
        self.class_weights = None
        if recipe.class_weights == "balanced":  # an average image weighs 1
            counts = torch.tensor(list(self.batches.images.class_counts().values()), dtype=torch.float32).clamp(min=1)
            self.class_weights = (counts.sum() / len(counts) / counts).to(self.state.device)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the recipe's `early_stop_epochs` passed without a better one."""
        state, patience = self.state, self.state.recipe.early_stop_epochs
        is_stuck = bool(patience) and self._is_pruned and state.epoch - state.best_epoch >= patience
        return is_stuck or state.epoch >= state.recipe.epochs

    @property
    def _is_pruned(self) -> bool:
        """Whether no more weights will be removed; networks before that are too large to be the best."""
        return self.state.pruning is None or self.state.pruning.is_final

    def is_stopped(self, stop: StopSignals) -> bool:
        """Whether any process was asked to stop: one may have the signal before the others, but all stop together."""
        return self.workers.sum_numbers(stop.is_set)[0] > 0

    def train_epoch(self, stop: StopSignals) -> bool:
        """Take the remaining steps of the current epoch; False if a signal interrupted it."""
        state, recipe = self.state, self.state.recipe
        is_sparse = is_sparse_epoch(recipe, state.epoch)
        if is_sparse and state.step == 0 and not is_sparse_epoch(recipe, state.epoch - 1):
            prune_smallest(state.model, recipe.sparsity)
        steps = epoch_steps(
            state, self.batches, constraint=ZerosStay() if is_sparse else state.pruning, workers=self.workers,
            teacher=self.teacher, class_weights=self.class_weights,
        )  # fmt: skip
        clock = saved = time.monotonic()
        total, done = self.steps_per_epoch * self.batch_size, state.step * self.batch_size
        with self.reporter.task(f"epoch {state.epoch + 1}/{recipe.epochs}", total, done=done) as task:
            for step in steps:
                now = time.monotonic()
                state.epoch_seconds, clock = state.epoch_seconds + now - clock, now
                self._note_unreadable(step.unreadable)
                if step.is_undone:
                    text = "loss or gradient not finite, step undone"
                    self.reporter.say(f"epoch {state.epoch + 1}, step {state.step}: {text}")
                task.update(state.step * self.batch_size, f"loss {self._train_loss():.3f}")
                is_stopped = self.is_stopped(stop)
                if is_stopped or now - saved > self.checkpoint_every_s:
                    self._save_checkpoint(is_needed=is_stopped)
                    saved = now
                if is_stopped and state.step < self.steps_per_epoch:
                    return False
        return True

    def _train_loss(self) -> float:
        """Mean over the images seen in this epoch, nats."""
        state = self.state
        return state.loss_sum / state.images_seen if state.images_seen else math.nan

    def _note_unreadable(self, unreadable: list[Unreadable]) -> None:
        known = {name for name, _ in self.state.unreadable}
        # Every process reads other files, so each reports its own.
        reporter = self.reporter if self.workers.is_first else PlainReporter()
        for entry in unreadable:
            if entry.name not in known:
                reporter.say(f"skipped {entry.name}: {entry.reason}")
                self.state.unreadable.append(list(entry))
                refuse_unreadable([Unreadable(*known) for known in self.state.unreadable], self.batches.n_images)

    def finish_epoch(self) -> None:
        """Validate, save what is new, write the log and begin the next epoch."""
        state = self.state
        if state.pruning and state.average and self._is_pruned:
            state.pruning.apply(state.average.model)  # which remembers removed weights for a while
        accuracy, val_loss = validate(state.usable_model, self.val_batches, self.workers)
        self.n_val_images = accuracy.n_images
        row = self._row(accuracy, val_loss)
        self.reporter.say(
            f"epoch {row.epoch}/{state.recipe.epochs}: train loss {row.train_loss:.3f}, val loss {val_loss:.3f}, top-1"
            f" {row.top1:.2f} %, top-5 {row.top5:.2f} % of {accuracy.n_images} images, {row.img_per_s:.0f} img/s"
        )
        if row.alarm:
            state.alarms.append(row.alarm)
            self.reporter.say(row.alarm)
        state.history.append(row.to_dict())
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.images_seen, state.epoch_seconds = 0.0, 0, 0.0
        is_best = row.top1 > state.best_top1 and self._is_pruned
        if is_best:
            state.best_top1, state.best_epoch = row.top1, state.epoch
        if self.workers.is_first:
            self._save_epoch(accuracy, is_best=is_best)
            for writer in self.epoch_writers:
                writer(row)

    def _row(self, accuracy: Accuracy, val_loss: float) -> EpochRow:
        """Sum up the epoch that ends."""
        state, n_steps = self.state, self.steps_per_epoch
        train_loss = self._train_loss()
        may_norm = not state.model.spec.batch_norm and "init" not in state.model.provenance
        alarm = dead_network_alarm(
            self.batches.images, state.recipe, epoch=state.epoch, steps_per_epoch=n_steps, train_loss=train_loss,
            may_norm=may_norm,
        )  # fmt: skip
        return EpochRow(
            epoch=state.epoch + 1, train_loss=train_loss, val_loss=val_loss, top1=accuracy.top1, top5=accuracy.top5,
            lr=learning_rate(state.recipe, step=(state.epoch + 1) * n_steps - 1, steps_per_epoch=n_steps),
            img_per_s=n_steps * self.batch_size / max(state.epoch_seconds, 1e-9), seconds=state.epoch_seconds,
            alarm=alarm,
        )  # fmt: skip

    def _save_epoch(self, accuracy: Accuracy, *, is_best: bool) -> None:
        state, folder = self.state, self.folder
        facts = {  # the same when the run is repeated; times are in run.json
            "recipe": state.recipe.name, "data": self.batches.images.name.rsplit("/", 1)[-1],
            "n_train_images": self.batches.n_images, "epoch": state.epoch, "top1": accuracy.top1,
            "top5": accuracy.top5, "n_images": accuracy.n_images,
            **({TRAINED_ON: self.prepared.mark} if self.prepared.mark else {}),
        }  # fmt: skip
        try:
            # Weights are written before the checkpoint: after an interruption, they are computed and written again.
            if is_best:
                folder.write_model(folder.best, state.usable_model, facts)
            folder.write_model(folder.last, state.usable_model, facts)
            state.save(folder.checkpoint, folder.previous_checkpoint)
            folder.write_log(state.history)
            folder.write_facts(self._run_facts())
        except OSError as error:
            if self.is_finished or is_best:  # the best weights are what a run is for
                self._give_up_saving(error)
            self._warn_of_unsaved(error)

    def _save_checkpoint(self, *, is_needed: bool) -> None:
        if not self.workers.is_first:
            return
        try:
            self.state.save(self.folder.checkpoint, self.folder.previous_checkpoint)
        except OSError as error:
            if is_needed:
                self._give_up_saving(error)
            self._warn_of_unsaved(error)

    def _warn_of_unsaved(self, error: OSError) -> None:
        self.reporter.say(
            f"WARNING: {self.folder.path} cannot be written ({error.strerror}): the run continues and tries again, but"
            " if it ends before that, everything since the last checkpoint is lost"
        )

    def _give_up_saving(self, error: OSError) -> NoReturn:
        raise TrainingError(
            f"{self.folder.path}: cannot be written ({error.strerror}); the last whole checkpoint is still there:"
            " make room or repair the disk, then continue with --resume"
        ) from None

    def _run_facts(self) -> dict[str, Any]:
        state = self.state
        best = state.history[state.best_epoch - 1]
        return {
            "recipe": state.recipe.to_dict(), "spec": state.model.spec.name, "precision": state.precision,
            "device": str(state.device), "processes": self.workers.size, "data": self.prepared.facts(),
            TRAINED_ON: self.prepared.mark,
            "epochs_done": state.epoch, "best_epoch": state.best_epoch, "top1": best["top1"], "top5": best["top5"],
            "n_images": self.n_val_images, "training_seconds": sum(row["seconds"] for row in state.history),
            "seconds": time.monotonic() - self.started, "skipped_steps": state.skipped_steps,
            "unreadable_while_training": state.unreadable, "alarms": state.alarms,
        }  # fmt: skip
