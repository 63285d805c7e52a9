"""A run under way: epochs of steps, and what is saved, said and logged in between.

Use this when you change what happens between two steps or two epochs; what a step does is in `steps`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from ..data.check import refuse_unreadable
from ..data.decode import Unreadable
from ..errors import TrainingError
from ..evaluation.metrics import Accuracy
from ..process import StopSignals
from ..progress import PlainReporter, Reporter, Task
from .alarms import dead_network_alarm
from .constraints import ZerosStay, is_sparse_epoch, prune_smallest
from .distributed import Workers
from .feed.augment import draw_epoch
from .feed.batches import TrainBatches, ValBatches
from .feed.shards import ShardBatches
from .run_folder import EpochWriter, RunFolder
from .schedule import learning_rate
from .state import TrainingState
from .step import train_step, validate
from .teacher import Teacher

__all__ = ["Run"]

MAX_SKIPPED_IN_A_ROW = 10


@dataclass(kw_only=True)
class Run:
    """A run's state, and where things come from and go."""

    state: TrainingState
    folder: RunFolder
    batches: TrainBatches | ShardBatches
    val_batches: ValBatches
    """This process's share of the images to validate on."""
    n_val_images: int
    """Of all processes; those that turn out to be unreadable are subtracted."""
    workers: Workers
    teacher: Teacher | None
    data_facts: dict[str, Any]
    reporter: Reporter
    started: float
    """`time.monotonic` at the start of the call."""
    checkpoint_every_s: float
    epoch_writers: tuple[EpochWriter, ...] = ()
    """Told about every finished epoch."""

    def __post_init__(self) -> None:
        """Work out what follows from the data."""
        recipe = self.state.recipe
        self.batch_size = min(recipe.batch_size, self.batches.n_images)
        self.steps_per_epoch = self.batches.n_images // self.batch_size
        self.class_weights = self._class_weights() if recipe.class_weights == "balanced" else None

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or no better one came for as long as the recipe waits."""
        state, patience = self.state, self.state.recipe.early_stop_epochs
        return state.epoch >= state.recipe.epochs or self._is_stuck(patience)

    def _is_stuck(self, patience: int) -> bool:
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def _class_weights(self) -> torch.Tensor:
        counts = torch.tensor(list(self.batches.images.class_counts().values()), dtype=torch.float32).clamp(min=1)
        weights = counts.sum() / len(counts) / counts  # an average image weighs 1
        return weights.to(self.state.device)

    def is_stopped(self, stop: StopSignals) -> bool:
        """Whether any process was asked to stop: one may have the signal before the others, but all stop together."""
        return self.workers.sum_numbers(stop.is_set)[0] > 0

    def train_epoch(self, stop: StopSignals) -> bool:
        """Take the remaining steps of the current epoch; False if a signal came in between."""
        state, recipe = self.state, self.state.recipe
        balance = self.batches.labels if recipe.sampling == "balanced" else None
        draw = draw_epoch(self.batches.n_images, seed=recipe.seed, epoch=state.epoch, balance=balance)
        is_sparse = is_sparse_epoch(recipe, state.epoch)
        if is_sparse and state.step == 0 and not is_sparse_epoch(recipe, state.epoch - 1):
            prune_smallest(state.model, recipe.sparsity)
        constraint = ZerosStay() if is_sparse else None
        clock = saved = time.monotonic()
        title = f"epoch {state.epoch + 1}/{recipe.epochs}"
        total, done = self.steps_per_epoch * self.batch_size, state.step * self.batch_size
        with self.reporter.task(title, total, done=done) as task:
            for batch in self.batches.epoch(
                draw,
                batch_size=self.batch_size,
                first_step=state.step,
                n_steps=self.steps_per_epoch,
                share=self.workers.share,
            ):
                self._note_unreadable(batch.unreadable)
                loss = train_step(
                    state,
                    batch,
                    steps_per_epoch=self.steps_per_epoch,
                    constraint=constraint,
                    workers=self.workers,
                    teacher=self.teacher,
                    class_weights=self.class_weights,
                )
                if loss is not None or len(batch.labels):
                    self._count(loss, len(batch.labels))
                state.step += 1
                now = time.monotonic()
                state.epoch_seconds, clock = state.epoch_seconds + now - clock, now
                self._show(task)
                is_stopped = self.is_stopped(stop)
                if is_stopped or now - saved > self.checkpoint_every_s:
                    self._save_checkpoint(is_needed=is_stopped)
                    saved = now
                if is_stopped and state.step < self.steps_per_epoch:
                    return False
        return True

    def _show(self, task: Task) -> None:
        state = self.state
        loss = state.loss_sum / state.images_seen if state.images_seen else math.nan
        task.update(state.step * self.batch_size, f"loss {loss:.3f}")

    def _count(self, loss: float | None, n_images: int) -> None:
        state = self.state
        if loss is not None:
            state.loss_sum += loss * n_images
            state.images_seen += n_images
            state.skipped_in_a_row = 0
            return
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        self.reporter.say(f"epoch {state.epoch + 1}, step {state.step + 1}: loss or gradient not finite, step undone")
        if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"expected a finite loss, got none in {state.skipped_in_a_row} steps in a row: use a smaller `lr`"
                f" (={state.recipe.lr}), a longer `warmup_epochs` or a limit for `clip_grad_norm`"
            )

    def _note_unreadable(self, unreadable: list[Unreadable]) -> None:
        known = {name for name, _ in self.state.unreadable}
        # Every process sees other files, so each speaks for itself here.
        reporter = self.reporter if self.workers.is_first else PlainReporter()
        for entry in unreadable:
            if entry.name not in known:
                reporter.say(f"skipped {entry.name}: {entry.reason}")
                self.state.unreadable.append(list(entry))
                refuse_unreadable([Unreadable(*known) for known in self.state.unreadable], self.batches.n_images)

    def finish_epoch(self) -> None:
        """Validate, save what is new, write the log and begin the next epoch."""
        state = self.state
        lr = learning_rate(
            state.recipe,
            step=(state.epoch + 1) * self.steps_per_epoch - 1,
            steps_per_epoch=self.steps_per_epoch,
        )
        accuracy, val_loss = validate(state.usable_model, self.val_batches, self.workers)
        self.n_val_images = accuracy.n_images
        train_loss = state.loss_sum / state.images_seen if state.images_seen else math.nan
        row = {
            "epoch": state.epoch + 1,
            "train_loss": train_loss,
            "val_loss": val_loss,
            "top1": accuracy.top1,
            "top5": accuracy.top5,
            "lr": lr,
            "img_per_s": self.steps_per_epoch * self.batch_size / max(state.epoch_seconds, 1e-9),
            "seconds": state.epoch_seconds,
        }
        self.reporter.say(
            f"epoch {state.epoch + 1}/{state.recipe.epochs}: train loss {train_loss:.3f}, val loss {val_loss:.3f},"
            f" top-1 {accuracy.top1:.2f} %, top-5 {accuracy.top5:.2f} % of {accuracy.n_images} images,"
            f" {row['img_per_s']:.0f} img/s"
        )
        alarm = dead_network_alarm(
            self.batches.images,
            state.recipe,
            epoch=state.epoch,
            steps_per_epoch=self.steps_per_epoch,
            train_loss=train_loss,
        )
        if alarm:
            state.alarms.append(alarm)
            self.reporter.say(alarm)
        state.history.append(row)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.images_seen, state.epoch_seconds = 0.0, 0, 0.0
        is_best = accuracy.top1 > state.best_top1
        if is_best:
            state.best_top1, state.best_epoch = accuracy.top1, state.epoch
        if self.workers.is_first:
            self._save_epoch(accuracy, is_best=is_best)
            for writer in self.epoch_writers:
                writer(row)

    def _save_epoch(self, accuracy: Accuracy, *, is_best: bool) -> None:
        state, folder = self.state, self.folder
        try:
            # Weights before the checkpoint: whatever is cut off after here is written again, the same.
            facts = self._model_facts(accuracy)
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
            f"WARNING: {self.folder.path} cannot be written ({error.strerror}): the run goes on, but what it does from"
            " the last checkpoint on is lost if it ends now; the next attempt follows"
        )

    def _give_up_saving(self, error: OSError) -> NoReturn:
        raise TrainingError(
            f"{self.folder.path}: cannot be written ({error.strerror}); the last whole checkpoint is still there:"
            " make room or repair the disk, then continue with --resume"
        ) from None

    def _model_facts(self, accuracy: Accuracy) -> dict[str, Any]:
        # Only what a repetition of the run gives again; times are in run.json.
        return {
            "recipe": self.state.recipe.name,
            "data": self.batches.images.name.rsplit("/", 1)[-1],
            "n_train_images": self.batches.n_images,
            "epoch": self.state.epoch,
            "top1": accuracy.top1,
            "top5": accuracy.top5,
            "n_images": accuracy.n_images,
        }

    def _run_facts(self) -> dict[str, Any]:
        state = self.state
        best = state.history[state.best_epoch - 1]
        return {
            "recipe": state.recipe.to_dict(),
            "spec": state.model.spec.name,
            "precision": state.precision,
            "device": str(state.device),
            "processes": self.workers.size,
            "data": self.data_facts,
            "epochs_done": state.epoch,
            "best_epoch": state.best_epoch,
            "top1": best["top1"],
            "top5": best["top5"],
            "n_images": self.n_val_images,
            "training_seconds": sum(row["seconds"] for row in state.history),
            "seconds": time.monotonic() - self.started,
            "skipped_steps": state.skipped_steps,
            "unreadable_while_training": state.unreadable,
            "alarms": state.alarms,
        }
