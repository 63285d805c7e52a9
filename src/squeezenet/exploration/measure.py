"""One trial of an exploration: train a network, round it to int8, and measure the file, all in a folder of its own."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..accounting import network_cost
from ..classifier import Classifier
from ..data import ImageSet
from ..evaluation.metrics import Accuracy
from ..evaluation.predictor import collect_logits, match_classes
from ..fileformat import SqzFile, decode_sqz, encode_sqz
from ..files import atomic_write
from ..labels import Labels
from ..memory import chip_ram_bytes
from ..models import SqueezeNet, load_model
from ..progress import Reporter, SilentReporter
from ..quantization.int8 import quantize_int8
from ..quantization.photos import calibration_from_images
from ..spec import ArchSpec
from ..training import Recipe, train_model
from ..training.run_folder import EpochWriter, RunFolder

__all__ = ["Interrupted", "Measured", "TooFarBehind", "measure_file", "measure_spec", "spec_cost"]

CALIBRATION_PHOTOS = 250


class Interrupted(Exception):  # noqa: N818 (not an error: somebody asked for it)
    """A signal stopped the training; its state is saved."""


class TooFarBehind(Exception):  # noqa: N818
    """The trial was stopped early because it is far behind a comparable one."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Costs and accuracy of one architecture."""

    params: int
    macs: int
    ram_bytes: int
    """RAM on a microcontroller with weights in flash memory: arena, stack and logits, bytes."""
    file_bytes: int
    """Size of the `.sqz` file with int8 weights."""
    float_top1: float
    """Top-1 of the float network with the best epoch's weights, percent."""
    top1: float
    """Top-1 of the file, measured by the engine, percent."""
    top5: float
    top1_interval: tuple[float, float]
    """Bounds of `top1` at 95 % confidence, percent."""
    n_images: int
    seconds: float
    """Duration of the call that finished the trial."""
    alarms: tuple[str, ...] = ()
    top1_by_epoch: tuple[float, ...] = ()
    """Top-1 of the float network after each epoch, percent."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measured:
        """Build from `to_dict`'s data."""
        fields: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**fields)


def spec_cost(spec: ArchSpec) -> dict[str, int]:
    """Exact counts, known before training: parameters, MACs, and RAM on a microcontroller."""
    folded = spec.replace(batch_norm=False)
    cost = network_cost(folded)
    return {"params": cost.params, "macs": cost.macs, "ram_bytes": chip_ram_bytes(folded)}


def measure_spec(
    spec: ArchSpec, recipe: Recipe, train: ImageSet, val: ImageSet, folder: Path, *, epochs: int | None = None,
    keep_checkpoint: bool = False, on_epoch: EpochWriter | None = None, reporter: Reporter | None = None,
) -> Measured:  # fmt: skip
    """Train, round to int8, write `net.sqz` beside the run folder `run/`, and measure that file.

    Args:
        spec: The architecture, for as many classes as `train` has.
        recipe: How to train; its own architecture is not used.
        train: Images to train on.
        val: Images to choose the best epoch and to measure on.
        folder: Folder of the trial; created, or continued.
        epochs: Replaces the recipe's number of epochs.
        keep_checkpoint: Keep the checkpoint after the training has finished.
        on_epoch: As for `train_model`; may raise `TooFarBehind`.
        reporter: Shows progress.

    Raises:
        TooFarBehind: If `on_epoch` does.
        Interrupted: If a signal stopped the training.
        TrainingError: If the loss stays infinite.
        QuantizationError: If the network has no integer form.
    """
    started = time.monotonic()
    finished = folder / "measured.json"
    if finished.exists():  # interrupted between the last file and the study's entry
        return Measured.from_dict(json.loads(finished.read_bytes()))
    reporter = reporter or SilentReporter()
    torch.manual_seed(recipe.seed)
    start = SqueezeNet(spec, dropout=recipe.dropout)
    start.labels = Labels(train.classes)  # a network that has the classes keeps its head as the spec has it
    run = train_model(
        train, val, run_dir=folder / "run", recipe=recipe.replace(input_size=spec.input_size), init=start,
        epochs=epochs, resume=True, on_epoch=on_epoch, progress=reporter,
    )  # fmt: skip
    if not run.is_finished:
        raise Interrupted
    encoded = _write_int8(run.best, train, folder / "net.sqz", reporter)
    accuracy = measure_file(encoded, val)
    measured = Measured(
        **spec_cost(spec), file_bytes=len(encoded), float_top1=run.top1, top1=accuracy.top1, top5=accuracy.top5,
        top1_interval=accuracy.top1_interval, n_images=accuracy.n_images, seconds=time.monotonic() - started,
        alarms=run.alarms, top1_by_epoch=tuple(row.top1 for row in run.history),
    )  # fmt: skip
    with atomic_write(finished) as stream:
        stream.write(json.dumps(measured.to_dict(), indent=1).encode())
    if not keep_checkpoint:
        paths = RunFolder(folder / "run")
        for leftover in (paths.checkpoint, paths.previous_checkpoint, paths.last):
            leftover.unlink(missing_ok=True)
    return measured


def _write_int8(weights: Path, train: ImageSet, path: Path, reporter: Reporter) -> bytes:
    model = load_model(weights).eval()
    assert model.preprocessing is not None
    photos = calibration_from_images(train, model.preprocessing, n_images=CALIBRATION_PHOTOS)
    network = quantize_int8(model, photos, reporter)
    encoded = encode_sqz(SqzFile.of(model, network, preset="int8"))
    with atomic_write(path) as stream:
        stream.write(encoded)
    return encoded


def measure_file(encoded: bytes, images: ImageSet) -> Accuracy:
    """Measure the accuracy of a `.sqz` file on labelled images, through the engine."""
    classifier = Classifier(decode_sqz(encoded))
    scores = collect_logits(classifier, match_classes(classifier, images))
    return Accuracy.of(scores.logits, scores.labels)
