"""The complete state of a run, in one object that is saved to disk and restored unchanged.

No random-generator state is saved: the order and augmentation of an epoch come from (seed, epoch), dropout from (seed,
step). A killed run repeats its steps bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.imageset import ImageSet
from ..data.shards import ShardSet
from ..errors import SqueezeNetError, TrainingError
from ..files import atomic_write, keep_as
from ..labels import Labels
from ..models import SqueezeNet, model_from_state
from ..preprocess import Preprocessing
from ..progress import Reporter
from ..spec import ArchSpec
from .pruning import GradualPruning
from .recipe import Recipe
from .run_folder import LOG_COLUMNS
from .schedule import WeightAverage, build_optimizer

__all__ = ["TrainingState", "data_fingerprint", "seed_step"]

_FORMAT = 1
_ADVICE = ": start the run again"
_MAX_FILE_BYTES = 1 << 30

# Fields of plain data that are stored unchanged, with their types.
_PLAIN: dict[str, type] = {
    "precision": str, "data_id": str, "val_id": str, "teacher_id": str, "epoch": int, "step": int, "loss_sum": float,
    "images_seen": int, "epoch_seconds": float, "history": list, "best_top1": float, "best_epoch": int,
    "skipped_steps": int, "skipped_in_a_row": int, "alarms": list, "unreadable": list,
}  # fmt: skip


@dataclass(kw_only=True)
class TrainingState:
    """A run between two steps."""

    recipe: Recipe
    model: SqueezeNet
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    precision: str
    """`float32` or `bfloat16`, chosen when the run began."""
    data_id: str
    """Fingerprint of the training images."""
    val_id: str = ""
    """Fingerprint of the validation images."""
    teacher_id: str = ""
    """Fingerprint of the teacher; empty without one."""
    pruning: GradualPruning | None = None
    """Removed weights, if the recipe has `prune_to`; made when the number of steps is known."""
    saved_pruning: Mapping[str, Any] | None = None
    """State of `pruning` in the checkpoint that was read."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps finished in the current epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of the images seen in the current epoch."""
    images_seen: int = 0
    epoch_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    """One row of the log for every epoch."""
    best_top1: float = -1.0
    best_epoch: int = 0
    skipped_steps: int = 0
    """Steps undone because their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    alarms: list[str] = field(default_factory=list)
    unreadable: list[list[str]] = field(default_factory=list)
    """Name and reason of images that failed while training."""

    @classmethod
    def start(
        cls, recipe: Recipe, model: SqueezeNet, *, precision: str, data_id: str, device: torch.device
    ) -> TrainingState:
        """Begin a run with a network."""
        # Convolutions run two to three times faster on channels-last tensors.
        model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        optimizer = build_optimizer(model, recipe)
        return cls(
            recipe=recipe, model=model, optimizer=optimizer, average=average, precision=precision, data_id=data_id
        )

    def __post_init__(self) -> None:
        """Run the features as they are; `compile_features` makes a faster function of it."""
        self.forward_features: Callable[[torch.Tensor], torch.Tensor] = self.model.forward_features

    def compile_features(self, reporter: Reporter) -> None:
        """Let torch write kernels for the features, and record their launches: a GPU waits for Python otherwise."""
        reporter.say("compiling the network: the first step takes minutes")
        self.forward_features = torch.compile(self.model.forward_features, mode="reduce-overhead")

    def begin_pruning(self, n_steps: int) -> None:
        """Start or continue the recipe's pruning, in a run of `n_steps` steps.

        Raises:
            TrainingError: If the checkpoint's state is not that of this network.
        """
        assert self.recipe.prune_to
        self.pruning = GradualPruning(self.recipe.prune_to, n_steps)
        if self.saved_pruning is not None:
            self.pruning.load_state_dict(self.saved_pruning, self.model)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.model.head.weight.device

    @property
    def usable_model(self) -> SqueezeNet:
        """The network to validate and save; it has the running average of the weights, if the recipe keeps one."""
        return self.average.model if self.average else self.model

    def save(self, path: Path, previous: Path | None = None) -> None:
        """Write the checkpoint whole or not at all; what was at `path` is kept under the name `previous`.

        Raises:
            OSError: If it cannot be written; an older checkpoint is then still there.
        """
        labels, preprocessing = self.model.labels, self.model.preprocessing
        assert labels is not None
        assert preprocessing is not None
        buffer = io.BytesIO()
        data = {
            "format": _FORMAT, "recipe": self.recipe.to_dict(), "spec": self.model.spec.to_dict(),
            "labels": labels.to_dict(), "preprocessing": preprocessing.to_dict(), "provenance": self.model.provenance,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.model.state_dict() if self.average and (self.epoch or self.step) else None,
            "pruning": self.pruning and self.pruning.state_dict(),
            **{name: getattr(self, name) for name in _PLAIN},
        }  # fmt: skip
        torch.save(data, buffer)
        if previous:
            keep_as(path, previous)
        with atomic_write(path) as stream:
            stream.write(buffer.getbuffer())

    @classmethod
    def load_newest(
        cls, paths: Sequence[Path], device: torch.device, on_damage: Callable[[str], None]
    ) -> TrainingState | None:
        """Read the first checkpoint of `paths` that is whole; None if no file exists.

        Raises:
            TrainingError: If files exist, but none is whole.
        """
        error: TrainingError | None = None
        for path in paths:
            if not path.exists():
                continue
            try:
                return cls.load(path, device)
            except TrainingError as damage:
                error = error or damage
                on_damage(str(damage).removesuffix(_ADVICE))
        if error:
            raise error
        return None

    @classmethod
    def load(cls, path: Path, device: torch.device) -> TrainingState:
        """Read a checkpoint; no code in it is run.

        Raises:
            TrainingError: If the file is damaged or not a checkpoint.
        """
        try:
            return cls._from_data(_read(path), device)
        except OSError as error:
            raise TrainingError(f"{path}: cannot be read ({error.strerror})") from None
        except TrainingError as error:
            if str(error).startswith(f"{path}: "):
                raise
            raise TrainingError(f"{path}: {error}{_ADVICE}") from None
        except Exception as error:  # the unpickler raises almost anything on broken files
            is_ours = isinstance(error, SqueezeNetError)
            reason = (str(error).splitlines() or [""])[0] if is_ours else type(error).__name__
            text = f"expected a checkpoint of a run, got a damaged file ({reason}){_ADVICE}"
            raise TrainingError(f"{path}: {text}") from None

    @classmethod
    def _from_data(cls, data: Mapping[str, Any], device: torch.device) -> TrainingState:
        recipe = Recipe.from_dict(data["recipe"])
        spec = ArchSpec.from_dict(data["spec"])
        model = model_from_state(spec, data["model"], dropout=recipe.dropout)
        model.labels = Labels.from_dict(data["labels"])
        model.preprocessing = Preprocessing.from_dict(data["preprocessing"])
        model.provenance = dict(data["provenance"])
        state = cls.start(recipe, model, precision=data["precision"], data_id=data["data_id"], device=device)
        # Learning rates and groups come from the recipe; the file has only the state after the steps.
        state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": data["optimizer"]["state"]})
        for parameter, found in state.optimizer.state.items():
            if any(t is not None and t.numel() > 1 and t.shape != parameter.shape for t in found.values()):
                raise TrainingError("expected an optimiser of this network's shapes, got others")
        if state.average and (data["epoch"] or data["step"]):  # before the first step it is the network itself
            state.average.model.load_state_dict(data["average"])
        state.saved_pruning = data.get("pruning")
        if state.recipe.prune_to:  # a damaged checkpoint is found here, where an older one can take its place
            state.begin_pruning(n_steps=1)
        for name, kind in _PLAIN.items():
            if name in data:  # a checkpoint of an earlier version has fewer
                if not isinstance(data[name], (int, float) if kind is float else kind):
                    raise TrainingError(f"expected `{name}` to be {kind.__name__}, got {type(data[name]).__name__}")
                setattr(state, name, data[name])
        state._check()
        return state

    def _check(self) -> None:
        """Check that the data could have been saved by a run."""
        assert self.model.labels is not None
        assert self.model.preprocessing is not None
        sizes = self.model.preprocessing.crop_size, self.model.spec.input_size
        if sizes[0] != sizes[1] or len(self.model.labels) != self.model.spec.num_classes:
            raise TrainingError(f"expected labels and pixels of this network, got {sizes[0]} pixels for {sizes[1]}")
        counters = (self.epoch, self.step, self.best_epoch, self.images_seen, self.skipped_steps, self.skipped_in_a_row)
        is_known = all(
            isinstance(row, dict)
            and set(row) == set(LOG_COLUMNS)
            and all(type(n) in (int, float) for n in row.values())
            for row in self.history
        )
        is_text = all(isinstance(text, str) for text in (*self.alarms, *(t for pair in self.unreadable for t in pair)))
        if (
            min(counters) < 0
            or self.precision not in ("float32", "bfloat16")
            or not (is_known and is_text and len(self.history) == self.epoch <= self.recipe.epochs)
            or self.best_epoch > self.epoch
            or any(len(pair) != 2 for pair in self.unreadable)
        ):
            raise TrainingError("expected counters and a log that fit together, got others")


def _read(path: Path) -> dict[str, Any]:
    size_bytes = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        size_bytes = max(size_bytes, sum(member.file_size for member in archive.infolist()))
        # torch does not compare checksums when it loads: a flipped bit would only be a slightly other network.
        if size_bytes <= _MAX_FILE_BYTES and (damaged := archive.testzip()):
            raise TrainingError(f"{path}: expected a checkpoint of a run, got a damaged file ({damaged}){_ADVICE}")
    if size_bytes > _MAX_FILE_BYTES:
        raise TrainingError(f"{path}: expected at most {_MAX_FILE_BYTES} bytes, got {size_bytes}")
    data = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(data, dict):
        raise TrainingError(f"{path}: expected a checkpoint of a run, got {type(data).__name__}")
    if data.get("format") != _FORMAT:
        raise TrainingError(f"{path}: expected checkpoint format {_FORMAT}, got {data.get('format')!r}")
    return data


def data_fingerprint(images: ImageSet | ShardSet) -> str:
    """Identify a training set by its classes, labels and file names, wherever it lies: SHA-256 in hexadecimal."""
    digest = hashlib.sha256("\0".join(images.classes).encode("utf-8", "surrogateescape"))
    entries: Iterable[tuple[str, int | None]] = images.shards if isinstance(images, ShardSet) else images.items
    if isinstance(images, ShardSet):
        digest.update(f"\0{images.numbers}\0{images.counts}".encode())
    for name, number in entries:
        digest.update(f"\0{number}\0{name.rsplit('/', 1)[-1]}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Set torch's generators for one step of one process, so that its dropout depends on nothing else."""
    entropy = [seed, step, rank] if rank else [seed, step]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
