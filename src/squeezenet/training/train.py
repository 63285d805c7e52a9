"""Training: from a data set and a recipe to a run folder with weights; `squeezenet train` is `train_model`.

`run` has the code of an epoch, `step` that of a step; `state` is the state of a run, `run_folder` writes its files.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import SqueezeNetError, TrainingError
from ..evaluation.confidence import measure_confidence
from ..evaluation.predictor import FloatPredictor, collect_logits
from ..fileformat import temperature_in
from ..models import SqueezeNet, load_model, save_safetensors
from ..process import StopSignals
from ..progress import Reporter, SilentReporter, reporter_of
from ..zoo import find_model
from .distributed import Workers, join_workers
from .feed.batches import CACHE_BYTES, ValBatches
from .recipe import Recipe, load_recipe
from .run import Run
from .run_folder import EpochRow, EpochWriter, RunFolder, tensorboard_writer
from .run_report import write_run_report
from .setup import (
    Data,
    TrainingData,
    choose_recipe,
    enough_epochs,
    open_batches,
    prepare_data,
    start_model,
    with_epochs,
)
from .state import TrainingState, data_fingerprint
from .step import choose_device, choose_precision
from .teacher import open_teacher

__all__ = ["TrainResult", "train", "train_model"]

_IN_MEMORY = "a network in memory"  # stands for `init` in notes where it is not a MODEL
_MAX_MEASURED = 10_000  # images at the end; a page needs no more, and the processor classifies them again for it
_TEACHER_SHARE = 0.5  # of the loss, where a teacher is given and the recipe has no share


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a training run."""

    run_dir: Path
    best: Path
    """File of the weights with the best validation top-1."""
    last: Path
    top1: float
    """Validation top-1 of `best`, percent."""
    top5: float
    n_images: int
    """Number of validation images."""
    epochs_done: int
    is_finished: bool
    """False if a signal stopped the run; it continues with `resume`."""
    seconds: float
    """Duration of this call, including data preparation."""
    alarms: tuple[str, ...]
    history: tuple[EpochRow, ...]
    """All epochs of the run, including those of earlier calls."""


def train_model(
    data: Data, val: Data | None = None, *, run_dir: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str] | None = None, init: SqueezeNet | str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None, epochs: int | None = None, resume: bool = False,
    on_epoch: EpochWriter | None = None, progress: Reporter | bool = True, device: str = "auto",
    cache_bytes: int = CACHE_BYTES, checkpoint_every_s: float = 60.0, tensorboard: bool = False, compile: bool = False,
) -> TrainResult:  # fmt: skip
    """Train a network and write a run folder; several processes started by `torchrun` train one network together.

    Args:
        data: Images in class folders: one or several DATA arguments, or an `ImageSet`.
        val: Images to validate on; by default the validation split of `data`, or a tenth of it.
        run_dir: Folder for weights, checkpoint, log and results; created if it does not exist.
        recipe: A `Recipe`, its name, or its file; by default a recipe that suits the data.
        init: Weights to start from: a MODEL, as for `load_model`, or a network.
        teacher: A MODEL whose predictions are learnt besides the labels; replaces the recipe's.
        epochs: Number of epochs; replaces the recipe's.
        resume: Continue the interrupted run in `run_dir`, with its own recipe; start a run if there is none.
        on_epoch: Called with the log's row after each epoch, once everything is saved; an exception ends the run.
        progress: A `Reporter` that shows progress; True for one on standard error, False for none.
        device: `auto`, or torch's name of the device.
        cache_bytes: Largest size of the decoded images that the processes of a machine keep in memory.
        checkpoint_every_s: Seconds between checkpoints within an epoch.
        tensorboard: Write the log for TensorBoard as well.
        compile: Compile the network with torch first, which takes minutes. Compiled kernels round differently, so use
            the same value when a run is resumed.

    Raises:
        ModelNotFoundError: If `init` or `teacher` does not exist.
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or invalid.
        TrainingError: If the run folder contains another run or cannot be written, or the loss stays infinite.
        WeightsError: If the weights of `init` or of the teacher cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train_model("digits", run_dir=folder, epochs=1, progress=False).best.name
        'best.safetensors'
    """
    started, target, folder = time.monotonic(), choose_device(device), RunFolder(Path(run_dir))
    given = None if recipe is None else load_recipe(recipe)
    wanted = _Wanted(given, init, teacher, epochs, resume).checked(folder)
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(join_workers())
        reporter = reporter_of(progress) if workers.is_first else SilentReporter()
        if workers.is_first:
            stack.enter_context(folder.taken(wanted.to_dict(), resume=resume))
        workers.wait()
        prepared = prepare_data(data, val, reporter)
        resumed = _resume(folder, prepared, target, wanted, reporter)
        state = resumed or _begin(wanted, prepared, target, reporter)
        if compile:
            state.compile_features(reporter)
        writers = _writers(folder, on_epoch, tensorboard=tensorboard and workers.is_first)
        return _carry_out(_open_run(
            state, prepared, folder, workers, cache_bytes, is_new=resumed is None, reporter=reporter, started=started,
            checkpoint_every_s=checkpoint_every_s, epoch_writers=writers,
        ))  # fmt: skip


train = train_model


def _writers(folder: RunFolder, on_epoch: EpochWriter | None, *, tensorboard: bool) -> tuple[EpochWriter, ...]:
    board = (tensorboard_writer(folder),) if tensorboard else ()
    return (*board, on_epoch) if on_epoch else board


@dataclass(frozen=True)
class _Wanted:
    """The options that were given for a training."""

    recipe: Recipe | None
    init: SqueezeNet | str | os.PathLike[str] | None
    teacher: str | os.PathLike[str] | None
    epochs: int | None
    is_resumed: bool

    def checked(self, folder: RunFolder) -> _Wanted:
        """Add the options of an interrupted run without a checkpoint, and resolve the MODELs, before anything is
        written.
        """
        if self.is_resumed and folder.has_checkpoint:
            return self
        wanted = self
        if self.is_resumed and (note := folder.remembered()):
            if isinstance(note.get("recipe"), str):  # as the command line notes it
                note["recipe"] = load_recipe(note["recipe"]).to_dict()
            changed = [name for name, value in self.to_dict().items() if value not in (None, note.get(name))]
            if changed:
                raise TrainingError(
                    f"{folder.path}: expected the {changed[0]} that this run began with, got another:"
                    " resume without it, or choose another folder"
                )
            if note.get("init") == _IN_MEMORY and self.init is None:
                raise TrainingError(f"{folder.path}: expected the network that this run began with as `init`, got none")
            recipe = None if note.get("recipe") is None else Recipe.from_dict(note["recipe"])
            init = self.init or note.get("init")
            wanted = replace(self, recipe=recipe, init=init, teacher=note.get("teacher"), epochs=note.get("epochs"))
        for model in (wanted.init, wanted.teacher, wanted.recipe.teacher if wanted.recipe else None):
            if isinstance(model, (str, os.PathLike)):
                find_model(model)
        return wanted

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "recipe": self.recipe and self.recipe.to_dict(),
            "init": _IN_MEMORY if isinstance(self.init, SqueezeNet) else self.init and os.fspath(self.init),
            "teacher": self.teacher and os.fspath(self.teacher),
            "epochs": self.epochs,
        }

    def settings(self, prepared: TrainingData, reporter: Reporter) -> Recipe:
        recipe = self.recipe or choose_recipe(prepared, has_init=self.init is not None, reporter=reporter)
        n_images = len(prepared.train)
        longer = enough_epochs(recipe, n_images) if self.epochs is None else with_epochs(recipe, self.epochs)
        if self.epochs is None and longer != recipe:
            reporter.say(
                f"{n_images} images: {longer.epochs} epochs instead of {recipe.epochs}, to take"
                f" {recipe.min_steps} steps; --epochs sets another number"
            )
        recipe = longer
        if self.teacher is None:
            return recipe
        return recipe.replace(teacher=os.fspath(self.teacher), distillation=recipe.distillation or _TEACHER_SHARE)


def _resume(
    folder: RunFolder, prepared: TrainingData, device: torch.device, wanted: _Wanted, reporter: Reporter
) -> TrainingState | None:
    checkpoints = (folder.checkpoint, folder.previous_checkpoint)
    state = TrainingState.load_newest(checkpoints, device, lambda text: reporter.say(f"skipped {text}"))
    if state:
        _check_same_run(state, prepared, wanted, folder)
        reporter.say(f"continuing {folder.path} at epoch {state.epoch + 1}, step {state.step + 1}")
    elif wanted.is_resumed:
        reporter.say(f"no checkpoint in {folder.path}: the run starts from the beginning")
    return state


def _begin(wanted: _Wanted, prepared: TrainingData, device: torch.device, reporter: Reporter) -> TrainingState:
    settings = wanted.settings(prepared, reporter)
    model, prepared = start_model(settings, wanted.init, prepared, reporter)
    precision = choose_precision(device) if settings.precision == "auto" else settings.precision
    data_id = data_fingerprint(prepared.train)
    state = TrainingState.start(settings, model, precision=precision, data_id=data_id, device=device)
    state.val_id = data_fingerprint(prepared.val)
    return state


def _open_run(
    state: TrainingState, prepared: TrainingData, folder: RunFolder, workers: Workers, cache_bytes: int, *,
    is_new: bool, reporter: Reporter, **options: Any,
) -> Run:  # fmt: skip
    """Load the teacher and the images; `options` are fields of `Run`."""
    workers.wait()  # until all have read the checkpoint that the first may write next
    prepared = prepared.with_labels(state.model.labels)
    teacher = open_teacher(state.recipe, state.model)
    digest = teacher.digest if teacher else ""
    if is_new:
        state.teacher_id = digest
        if workers.is_first:
            folder.begin(state.save, state.recipe.to_toml())
    elif digest != state.teacher_id:
        raise TrainingError(
            f"{folder.path}: expected the teacher that this run began with, got other weights in"
            f" {state.recipe.teacher}: put them back, or begin a new run with --init and this folder"
        )
    preprocessing = state.model.preprocessing
    assert preprocessing is not None
    batches = open_batches(
        state.recipe, preprocessing, prepared, reporter, cache_bytes=cache_bytes, workers=workers, device=state.device
    )
    state.unreadable = state.unreadable or [list(entry) for entry in batches.unreadable]
    val_share = prepared.val.subset(range(workers.rank, len(prepared.val), workers.size))
    val_batches = ValBatches(val_share, preprocessing, cache_bytes=cache_bytes // workers.per_machine)
    return Run(
        state=state, folder=folder, batches=batches, val_batches=val_batches, n_val_images=len(prepared.val),
        workers=workers, teacher=teacher, prepared=prepared, reporter=reporter, **options,
    )  # fmt: skip


def _carry_out(run: Run) -> TrainResult:
    with StopSignals() as stop:
        while not run.is_finished and not run.is_stopped(stop):
            if run.train_epoch(stop):
                run.finish_epoch()
    if run.is_finished and run.workers.is_first and run.folder.best.exists():
        _finish(run)
    return _sum_up(run)


def _finish(run: Run) -> None:
    """Measure the best network, store its temperature with its weights, and write the pages about it."""
    # A run is worth more than a page about it: a failure here is reported, and the run still ends well.
    try:
        model, val = load_model(run.folder.best), run.prepared.val.sample(_MAX_MEASURED)
        predictor = FloatPredictor(model)
        scores = collect_logits(predictor, val)
        predictor.temperature = measure_confidence(scores).temperature
        if predictor.temperature != temperature_in(model.provenance):  # goes into the `.sqz` as well
            model.provenance["temperature"] = predictor.temperature
            save_safetensors(model, run.folder.best)
        write_run_report(run.folder, run.prepared, run.state.alarms, predictor, val, scores)
        run.reporter.say(f"report: {run.folder.path / 'report.html'}")
    except (SqueezeNetError, OSError) as error:
        run.reporter.say(f"no report.html: {error}")


def _sum_up(run: Run) -> TrainResult:
    """Report the result to the user, and return it."""
    state, folder = run.state, run.folder
    best = state.history[state.best_epoch - 1] if state.history else {"top1": 0.0, "top5": 0.0}
    if run.is_finished:
        if state.epoch < state.recipe.epochs:
            run.reporter.say(f"no better top-1 in {state.recipe.early_stop_epochs} epochs: ended early")
        run.reporter.say(f"best top-1 {best['top1']:.2f} % of {run.n_val_images} images: {folder.best}")
    else:
        run.reporter.say(
            f"stopped by a signal in epoch {state.epoch + 1}, step {state.step}; everything is saved:"
            f" continue with --resume -o {folder.path}"
        )
    return TrainResult(
        run_dir=folder.path, best=folder.best, last=folder.last, top1=best["top1"], top5=best["top5"],
        n_images=run.n_val_images, epochs_done=state.epoch, is_finished=run.is_finished,
        seconds=time.monotonic() - run.started, alarms=tuple(state.alarms),
        history=tuple(EpochRow(**row) for row in state.history),  # type: ignore[arg-type] # an epoch is a whole number
    )  # fmt: skip


def _check_same_run(state: TrainingState, prepared: TrainingData, wanted: _Wanted, folder: RunFolder) -> None:
    recipe, epochs = wanted.recipe or state.recipe, wanted.epochs
    recipe = enough_epochs(recipe, len(prepared.train)) if epochs is None else with_epochs(recipe, epochs)
    old, new = state.recipe.to_dict(), recipe.to_dict()
    if changed := sorted(key for key in {**old, **new} if old.get(key) != new.get(key) and key != "min_steps"):
        raise TrainingError(
            f"{folder.path}: expected the recipe that this run began with, got another {', '.join(changed)}:"
            " resume without a recipe, or begin a new run with --init and this folder"
        )
    numbered = prepared.with_labels(state.model.labels)
    ids = data_fingerprint(numbered.train), data_fingerprint(numbered.val)
    if state.data_id != ids[0] or state.val_id not in ("", ids[1]):
        raise TrainingError(
            f"{folder.path}: expected the images that this run began with, got others:"
            " give the same data, or begin a new run with --init and this folder"
        )
