"""Training: from a data set and a recipe to a run folder with weights.

`train_model` is the whole of it; the functions below it are its chapters. What happens in an epoch is in `run`, in a
step in `steps`; what a run remembers is in `state`, what it writes in `run_folder`.

Use this when you want to train a network from Python; `squeezenet train` is this function.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import SqueezeNetError, TrainingError
from ..models import SqueezeNet
from ..process import StopSignals
from ..progress import Reporter, SilentReporter, reporter_of
from .distributed import join_workers
from .feed.batches import CACHE_BYTES, ValBatches
from .recipe import Recipe, load_recipe
from .run import Run
from .run_folder import RunFolder, tensorboard_writer
from .run_report import write_run_report
from .setup import (
    Data,
    TrainingData,
    choose_device,
    choose_settings,
    open_batches,
    prepare_data,
    start_model,
    with_epochs,
)
from .state import TrainingState, data_fingerprint
from .step import choose_precision
from .teacher import open_teacher

__all__ = ["TrainResult", "train_model"]

CHECKPOINT_EVERY_S = 60.0
_TEACHER_SHARE = 0.5  # of the loss, where a teacher is given and the recipe does not say


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
    teacher: str | os.PathLike[str] | None = None,
    epochs: int | None = None,
    resume: bool = False,
    progress: Reporter | bool = True,
    device: str = "auto",
    cache_bytes: int = CACHE_BYTES,
    checkpoint_every_s: float | None = None,
    tensorboard: bool = False,
    compile: bool = False,  # noqa: A002 (torch's word)
) -> TrainResult:
    """Train a network and write a run folder.

    Started by `torchrun`, the processes train one network together, and the first of them writes.

    Args:
        data: Images in class folders: a DATA argument, several, or an `ImageSet`.
        val: Images to validate on; by default the validation split that `data` has, or a tenth of it.
        run_dir: Folder for weights, checkpoint, log and facts; made if it does not exist.
        recipe: A `Recipe`, the name of one, or its file; by default one that suits the task.
        init: Weights to start from: anything `load_model` takes, or a network.
        teacher: A MODEL whose answers are learnt besides the labels; another than the recipe's.
        epochs: Another number of epochs than the recipe's.
        resume: Continue the run that was cut off in `run_dir`, with its own recipe; start if there is none.
        progress: A reporter; `True` for one on standard error, `False` for silence.
        device: `auto`, or what torch calls it.
        cache_bytes: Decoded images that the processes of a machine may keep in memory.
        checkpoint_every_s: Seconds between checkpoints within an epoch; by default 60.
        tensorboard: Write the log for TensorBoard as well.
        compile: Let torch write kernels for this network first: minutes for the first step, fewer launches to wait for
            in all that follow. They round otherwise than the plain ones, so resume with the same choice.

    Raises:
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or impossible.
        TrainingError: If the run folder holds another run or cannot be written, or the loss stays infinite.
        WeightsError: If `init` or the teacher cannot be read.
    """
    started = time.monotonic()
    with join_workers() as workers:
        reporter = reporter_of(progress) if workers.is_first else SilentReporter()
        folder = RunFolder(Path(run_dir))
        if workers.is_first:
            folder.prepare(resume=resume)
        workers.wait()
        chosen_device = choose_device(device)
        prepared = prepare_data(data, val, reporter)
        checkpoints = (folder.checkpoint, folder.previous_checkpoint)
        state = TrainingState.load_newest(checkpoints, chosen_device, lambda text: reporter.say(f"passed over {text}"))
        if state:
            _check_same_run(state, prepared, recipe, epochs, folder)
            prepared = prepared.with_labels(state.model.labels)
            reporter.say(f"continuing {folder.path} at epoch {state.epoch + 1}, step {state.step + 1}")
        else:
            settings = choose_settings(recipe, epochs, prepared, has_init=init is not None, reporter=reporter)
            if teacher is not None:
                share = settings.distillation or _TEACHER_SHARE
                settings = settings.replace(teacher=os.fspath(teacher), distillation=share)
            state = _start(settings, init, prepared, chosen_device, reporter)
            prepared = prepared.with_labels(state.model.labels)
            if workers.is_first:
                folder.write_recipe(settings)
        if compile:
            reporter.say("compiling the network: the first step takes minutes")
            state.compile_features()
        workers.wait()  # until all have read the checkpoint that the first may write next
        teaching = open_teacher(state.recipe, state.model)
        _check_same_teacher(state, teaching.digest if teaching else "", folder)
        preprocessing = state.model.preprocessing
        assert preprocessing is not None
        batches = open_batches(
            state.recipe,
            preprocessing,
            prepared,
            reporter,
            cache_bytes=cache_bytes,
            workers=workers,
            device=chosen_device,
        )
        val_share = prepared.val.subset(range(workers.rank, len(prepared.val), workers.size))
        state.unreadable = state.unreadable or [list(entry) for entry in batches.unreadable]
        run = Run(
            state=state,
            folder=folder,
            batches=batches,
            val_batches=ValBatches(val_share, preprocessing, cache_bytes=cache_bytes // workers.per_machine),
            n_val_images=len(prepared.val),
            workers=workers,
            teacher=teaching,
            data_facts=prepared.check.to_dict(),
            reporter=reporter,
            started=started,
            checkpoint_every_s=CHECKPOINT_EVERY_S if checkpoint_every_s is None else checkpoint_every_s,
            epoch_writers=(tensorboard_writer(folder),) if tensorboard and workers.is_first else (),
        )
        with StopSignals() as stop:
            while not run.is_finished and not run.is_stopped(stop):
                if run.train_epoch(stop):
                    run.finish_epoch()
        if run.is_finished and workers.is_first and folder.best.exists():
            _write_report(run, prepared)
        return _sum_up(run)


def _start(
    settings: Recipe,
    init: SqueezeNet | str | os.PathLike[str] | None,
    prepared: TrainingData,
    device: torch.device,
    reporter: Reporter,
) -> TrainingState:
    model, prepared = start_model(settings, init, prepared, reporter)
    return TrainingState.start(
        settings,
        model,
        precision=choose_precision(device) if settings.precision == "auto" else settings.precision,
        data_id=data_fingerprint(prepared.train),
        device=device,
    )


def _write_report(run: Run, prepared: TrainingData) -> None:
    # A run is worth more than a page about it: whatever is wrong there is said, and the run still ends well.
    try:
        write_run_report(run.folder, prepared.val, prepared.check, run.state.alarms)
        run.reporter.say(f"report: {run.folder.path / 'report.html'}")
    except (SqueezeNetError, OSError) as error:
        run.reporter.say(f"no report.html: {error}")


def _sum_up(run: Run) -> TrainResult:
    """Say what came out, for the caller and the user."""
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
        run_dir=folder.path,
        best=folder.best,
        last=folder.last,
        top1=best["top1"],
        top5=best["top5"],
        n_images=run.n_val_images,
        epochs_done=state.epoch,
        is_finished=run.is_finished,
        seconds=time.monotonic() - run.started,
        alarms=tuple(state.alarms),
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
        wanted = wanted if epochs is None or epochs == wanted.epochs else with_epochs(wanted, epochs)
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


def _check_same_teacher(state: TrainingState, digest: str, folder: RunFolder) -> None:
    if state.epoch or state.step:
        if digest != state.teacher_id:
            raise TrainingError(
                f"{folder.path}: expected the teacher that this run began with, got other weights in"
                f" {state.recipe.teacher}: put them back, or begin a new run with --init and this folder"
            )
    else:
        state.teacher_id = digest
