"""Training: from a data set and a recipe to a run folder with weights.

`train_model` is the whole of it; the functions below it are its chapters. What a step does is in `steps`, what a run
remembers in `state`, what it writes in `run_folder`.

Use this when you want to train a network from Python; `squeezenet train` is this function.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.augment import Augmentation, draw_epoch
from ..data.check import refuse_unreadable
from ..data.decode import Unreadable
from ..data.imageset import ImageSet
from ..data.loader import CACHE_BYTES, TrainBatches, ValBatches
from ..errors import TrainingError
from ..evaluate.metrics import Accuracy
from ..models import SqueezeNet
from ..preprocess import Preprocessing
from .optimization import learning_rate
from .preparation import Data, TrainingData, choose_recipe, prepare_data, start_model
from .progress import Reporter, SilentReporter, Task, reporter_for
from .recipe import Recipe, load_recipe
from .run_folder import RunFolder
from .signals import StopSignals
from .state import TrainingState, data_fingerprint
from .steps import choose_precision, train_step, validate

__all__ = ["TrainResult", "guessing_loss", "train_model"]

CHECKPOINT_EVERY_S = 60.0
MAX_SKIPPED_IN_A_ROW = 10
# A network that has learnt nothing gives every image the same answer; its loss lies this close to what guessing costs.
_DEAD_MARGIN = 0.02
_DEAD_AFTER_STEPS = 50  # after the warm-up: sooner, a slow start looks the same


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came out of a run."""

    run_dir: Path
    best: Path
    """Weights with the best validation top-1."""
    last: Path
    top1: float
    """Validation top-1 of `best`, percent."""
    top5: float
    n_images: int
    """Images validated on."""
    epochs_done: int
    is_finished: bool
    """False if a signal stopped the run; it continues with `resume`."""
    seconds: float
    """Of this call, data preparation included."""
    alarms: tuple[str, ...]


def train_model(
    data: Data,
    val: Data | None = None,
    *,
    run_dir: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str] | None = None,
    init: SqueezeNet | str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    resume: bool = False,
    progress: Reporter | bool = True,
    device: str = "auto",
    cache_bytes: int = CACHE_BYTES,
) -> TrainResult:
    """Train a network and write a run folder.

    Args:
        data: Images in class folders: a DATA argument, several, or an `ImageSet`.
        val: Images to validate on; by default the validation split that `data` has, or a tenth of it.
        run_dir: Folder for weights, checkpoint, log and facts; made if it does not exist.
        recipe: A `Recipe`, the name of one, or its file; by default one that suits the task.
        init: Weights to start from: anything `load_model` takes, or a network.
        epochs: Another number of epochs than the recipe's.
        resume: Continue the run that was cut off in `run_dir`, with its own recipe; start if there is none.
        progress: A reporter; `True` for one on standard error, `False` for silence.
        device: `auto`, or what torch calls it.
        cache_bytes: Decoded images that may be kept in memory.

    Raises:
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or impossible.
        TrainingError: If the run folder holds another run, or the loss stays infinite.
        WeightsError: If `init` cannot be read.
    """
    started = time.monotonic()
    say = _reporter(progress)
    folder = RunFolder.create(run_dir, resume=resume)
    chosen_device = _device(device)
    prepared = prepare_data(data, val, say)
    if folder.checkpoint.exists():
        state = TrainingState.load(folder.checkpoint, chosen_device)
        _check_same_run(state, prepared, recipe, epochs, folder)
        prepared = prepared.with_labels(state.model.labels)
        say.say(f"continuing {folder.path} at epoch {state.epoch + 1}, step {state.step + 1}")
    else:
        settings = _settings(recipe, epochs, prepared, has_init=init is not None, say=say)
        model, prepared = start_model(settings, init, prepared, say)
        state = TrainingState.start(
            settings,
            model,
            precision=choose_precision(chosen_device) if settings.precision == "auto" else settings.precision,
            data_id=data_fingerprint(prepared.train),
            device=chosen_device,
        )
        folder.write_recipe(settings)
    preprocessing = state.model.preprocessing
    assert preprocessing is not None
    batches = _open_batches(state.recipe, preprocessing, prepared, cache_bytes, say)
    val_batches = ValBatches(prepared.val, preprocessing, cache_bytes=cache_bytes)
    state.unreadable = state.unreadable or [list(entry) for entry in batches.unreadable]
    run = _Run(state, folder, batches, val_batches, prepared.check.to_dict(), say, started)
    with StopSignals() as stop:
        while state.epoch < state.recipe.epochs and not stop.is_set:
            if run.train_epoch(stop):
                run.finish_epoch()
    return run.result(is_finished=state.epoch >= state.recipe.epochs)


def _reporter(progress: Reporter | bool) -> Reporter:
    if isinstance(progress, bool):
        return reporter_for() if progress else SilentReporter()
    return progress


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"expected `device` auto, cpu or cuda, got {name!r} ({error})") from None


def _settings(
    recipe: Recipe | str | os.PathLike[str] | None,
    epochs: int | None,
    prepared: TrainingData,
    *,
    has_init: bool,
    say: Reporter,
) -> Recipe:
    if recipe is None:
        name, reason = choose_recipe(prepared, has_init=has_init)
        say.say(f"recipe {name}: {reason}")
        recipe = load_recipe(name)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    return recipe if epochs is None else _with_epochs(recipe, epochs)


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    # Phases at the start keep their part of a shorter run.
    share = min(1.0, epochs / recipe.epochs)
    return recipe.replace(
        epochs=epochs,
        warmup_epochs=recipe.warmup_epochs * share,
        freeze_features_epochs=min(recipe.freeze_features_epochs, epochs - 1),
    )


def _check_same_run(
    state: TrainingState,
    prepared: TrainingData,
    recipe: Recipe | str | os.PathLike[str] | None,
    epochs: int | None,
    folder: RunFolder,
) -> None:
    if recipe is not None or epochs is not None:
        wanted = state.recipe if recipe is None else recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        wanted = wanted if epochs is None or epochs == wanted.epochs else _with_epochs(wanted, epochs)
        old, new = state.recipe.to_dict(), wanted.to_dict()
        if changed := sorted(key for key in {**old, **new} if old.get(key) != new.get(key)):
            raise TrainingError(
                f"{folder.path}: expected the recipe that this run began with, got another {', '.join(changed)}:"
                " resume without a recipe, or begin a new run with --init and this folder"
            )
    if state.data_id != data_fingerprint(prepared.with_labels(state.model.labels).train):
        raise TrainingError(
            f"{folder.path}: expected the images that this run began with, got others:"
            " give the same data, or begin a new run with --init and this folder"
        )


def _open_batches(
    recipe: Recipe, preprocessing: Preprocessing, prepared: TrainingData, cache_bytes: int, say: Reporter
) -> TrainBatches:
    augmentation = Augmentation(
        size=preprocessing.crop_size,
        crop=recipe.crop,
        crop_scale=recipe.crop_scale,
        crop_ratio=recipe.crop_ratio,
        crop_pad=recipe.crop_pad,
        hflip=recipe.hflip,
    )
    with say.task("decoding", len(prepared.train)) as task:
        return TrainBatches.open(
            prepared.train, prepared.check.train_sizes, augmentation, preprocessing,
            cache_bytes=cache_bytes, on_progress=lambda done, _: task.update(done),
        )  # fmt: skip


class _Run:
    """A run under way: its state, and where things come from and go."""

    def __init__(
        self,
        state: TrainingState,
        folder: RunFolder,
        batches: TrainBatches,
        val_batches: ValBatches,
        data_facts: dict[str, Any],
        say: Reporter,
        started: float,
    ) -> None:
        self.state, self.folder, self.batches, self.val_batches = state, folder, batches, val_batches
        self.data_facts, self.say, self.started = data_facts, say, started
        self.batch_size = min(state.recipe.batch_size, batches.n_images)
        self.steps_per_epoch = batches.n_images // self.batch_size

    def train_epoch(self, stop: StopSignals) -> bool:
        """Take the remaining steps of the current epoch; False if a signal came in between."""
        state = self.state
        draw = draw_epoch(self.batches.n_images, seed=state.recipe.seed, epoch=state.epoch)
        clock = saved = time.monotonic()
        title = f"epoch {state.epoch + 1}/{state.recipe.epochs}"
        total, done = self.steps_per_epoch * self.batch_size, state.step * self.batch_size
        with self.say.task(title, total, done=done) as task:
            for batch in self.batches.epoch(
                draw, batch_size=self.batch_size, first_step=state.step, n_steps=self.steps_per_epoch
            ):
                self._note_unreadable(batch.unreadable)
                if len(batch.labels):
                    self._count(train_step(state, batch, steps_per_epoch=self.steps_per_epoch), len(batch.labels))
                state.step += 1
                now = time.monotonic()
                state.epoch_seconds, clock = state.epoch_seconds + now - clock, now
                self._show(task)
                if stop.is_set or now - saved > CHECKPOINT_EVERY_S:
                    state.save(self.folder.checkpoint)
                    saved = now
                if stop.is_set and state.step < self.steps_per_epoch:
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
        self.say.say(f"epoch {state.epoch + 1}, step {state.step + 1}: loss or gradient not finite, step undone")
        if state.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"expected a finite loss, got none in {state.skipped_in_a_row} steps in a row: use a smaller `lr`"
                f" (={state.recipe.lr}), a longer `warmup_epochs` or a limit for `clip_grad_norm`"
            )

    def _note_unreadable(self, unreadable: list[Unreadable]) -> None:
        known = {name for name, _ in self.state.unreadable}
        for entry in unreadable:
            if entry.name not in known:
                self.say.say(f"skipped {entry.name}: {entry.reason}")
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
        accuracy, val_loss = validate(state.usable_model, self.val_batches)
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
        self.say.say(
            f"epoch {state.epoch + 1}/{state.recipe.epochs}: train loss {train_loss:.3f}, val loss {val_loss:.3f},"
            f" top-1 {accuracy.top1:.2f} %, top-5 {accuracy.top5:.2f} % of {accuracy.n_images} images,"
            f" {row['img_per_s']:.0f} img/s"
        )
        self._raise_alarm(train_loss)
        state.history.append(row)
        state.epoch, state.step = state.epoch + 1, 0
        state.loss_sum, state.images_seen, state.epoch_seconds = 0.0, 0, 0.0
        # Weights before the checkpoint: whatever is cut off after here is written again, the same.
        facts = self._model_facts(accuracy)
        if accuracy.top1 > state.best_top1:
            state.best_top1, state.best_epoch = accuracy.top1, state.epoch
            self.folder.write_model(self.folder.best, state.usable_model, facts)
        self.folder.write_model(self.folder.last, state.usable_model, facts)
        state.save(self.folder.checkpoint)
        self.folder.write_log(state.history)
        self.folder.write_facts(self._run_facts())

    def _raise_alarm(self, train_loss: float) -> None:
        state, recipe = self.state, self.state.recipe
        steps_after_warmup = (state.epoch + 1 - recipe.warmup_epochs) * self.steps_per_epoch
        lowest, highest = guessing_loss(self.batches.images, recipe.label_smoothing)
        if steps_after_warmup < _DEAD_AFTER_STEPS or len(self.batches.images.classes) < 2:
            return
        if lowest * (1 - _DEAD_MARGIN) <= train_loss <= highest * (1 + _DEAD_MARGIN):
            text = (
                f"ALARM: after epoch {state.epoch + 1} the loss sits at ln(classes) = {highest:.3f}, as if guessed: the"
                f" network has learnt nothing. Its ReLUs may be dead: use a smaller `lr` (={recipe.lr}), a longer"
                f" `warmup_epochs` (={recipe.warmup_epochs:g}) or `batch_norm = true`"
            )
            state.alarms.append(text)
            self.say.say(text)

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
            "device": str(state.model.head.weight.device),
            "data": self.data_facts,
            "epochs_done": state.epoch,
            "best_epoch": state.best_epoch,
            "top1": best["top1"],
            "top5": best["top5"],
            "n_images": self.val_batches.n_images,
            "training_seconds": sum(row["seconds"] for row in state.history),
            "seconds": time.monotonic() - self.started,
            "skipped_steps": state.skipped_steps,
            "unreadable_while_training": state.unreadable,
            "alarms": state.alarms,
        }

    def result(self, *, is_finished: bool) -> TrainResult:
        """Sum the run up, for the caller and the user."""
        state, folder = self.state, self.folder
        best = state.history[state.best_epoch - 1] if state.history else {"top1": 0.0, "top5": 0.0}
        if is_finished:
            self.say.say(f"best top-1 {best['top1']:.2f} % of {self.val_batches.n_images} images: {folder.best}")
        else:
            self.say.say(
                f"stopped by a signal in epoch {state.epoch + 1}, step {state.step}; everything is saved:"
                f" continue with --resume -o {folder.path}"
            )
        return TrainResult(
            run_dir=folder.path,
            best=folder.best,
            last=folder.last,
            top1=best["top1"],
            top5=best["top5"],
            n_images=self.val_batches.n_images,
            epochs_done=state.epoch,
            is_finished=is_finished,
            seconds=time.monotonic() - self.started,
            alarms=tuple(state.alarms),
        )


def guessing_loss(images: ImageSet, label_smoothing: float) -> tuple[float, float]:
    """Work out the loss of a network that does not look: guessing by the classes' shares, and all classes alike.

    Returns:
        Both, in nats; they agree where classes are equally frequent.
    """
    counts = list(images.class_counts().values())
    shares = [(1 - label_smoothing) * count / sum(counts) + label_smoothing / len(counts) for count in counts]
    return -sum(share * math.log(share) for share in shares if share), math.log(len(counts))
