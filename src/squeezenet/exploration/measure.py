"""One trial of an exploration: train a network, round it to int8, and measure the file.

Everything lies in the trial's own folder, and each step that is finished stays finished: a trial that was cut off
continues where it was.

Use this when you want the figures of one architecture as the studies measure them.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..accounting import network_cost, peak_activation_bytes
from ..classifier import Classifier
from ..data import ImageSet
from ..evaluation.metrics import Accuracy
from ..evaluation.predictor import collect_logits, match_classes
from ..fileformat import SqzFile, decode_sqz, encode_sqz
from ..files import atomic_write
from ..labels import Labels
from ..models import SqueezeNet, fold_batch_norm, load_model
from ..progress import Reporter, SilentReporter, Task
from ..quantization.int8 import quantize_int8
from ..quantization.photos import calibration_from_images
from ..spec import ArchSpec
from ..training import Recipe, train_model

__all__ = ["Interrupted", "Measured", "TooFarBehind", "epoch_top1", "measure_file", "measure_spec", "spec_cost"]

CALIBRATION_PHOTOS = 250


class Interrupted(Exception):  # noqa: N818 (no error: somebody asked for it)
    """A signal stopped the training; what was done is saved."""


class TooFarBehind(Exception):  # noqa: N818
    """What watches the training saw that it leads nowhere; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one architecture costs and is worth."""

    params: int
    macs: int
    peak_activation_bytes: int
    """Bytes of uint8 tensors that exist at the same time."""
    file_bytes: int
    """Of the whole `.sqz` file, weights in int8."""
    float_top1: float
    """Percent, of the float network with the best epoch's weights."""
    top1: float
    """Percent, of the file by the engine."""
    top5: float
    top1_interval: tuple[float, float]
    """Bounds at 95 % confidence, percent."""
    n_images: int
    seconds: float
    """Of the call that finished the trial."""
    alarms: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measured:
        """Build from `to_dict`'s data."""
        return cls(**{**data, "top1_interval": tuple(data["top1_interval"]), "alarms": tuple(data["alarms"])})


def spec_cost(spec: ArchSpec) -> dict[str, int]:
    """Exact counts, known before training: parameters, MACs, and peak bytes of activations."""
    folded = spec.replace(batch_norm=False)
    cost = network_cost(folded)
    return {"params": cost.params, "macs": cost.macs, "peak_activation_bytes": peak_activation_bytes(folded)}


def measure_spec(
    spec: ArchSpec,
    recipe: Recipe,
    train: ImageSet,
    val: ImageSet,
    folder: Path,
    *,
    epochs: int | None = None,
    keep_checkpoint: bool = False,
    watch: Callable[[Sequence[float]], None] | None = None,
    reporter: Reporter | None = None,
) -> Measured:
    """Train, round to int8, write `net.sqz` beside the run folder `run/`, and measure that file.

    Args:
        spec: The architecture, for as many classes as `train` has.
        recipe: How to train; its own architecture is not used.
        train: Images to train on.
        val: Images to choose the best epoch and to measure on.
        folder: Of the trial; made if it does not exist, continued if it does.
        epochs: Another number of epochs than the recipe's.
        keep_checkpoint: Leave the training resumable once it is finished.
        watch: Called before an epoch with the top-1 of those before it; may raise `TooFarBehind`.
        reporter: Shows progress.

    Raises:
        TooFarBehind: If `watch` does.
        Interrupted: If a signal stopped the training.
        TrainingError: If the loss stays infinite.
        QuantizationError: If the network has no integer form.
    """
    started = time.monotonic()
    finished = folder / "measured.json"
    if finished.exists():  # cut off between the last file and the study's entry
        return Measured.from_dict(json.loads(finished.read_bytes()))
    reporter = reporter or SilentReporter()
    torch.manual_seed(recipe.seed)
    start = SqueezeNet(spec, dropout=recipe.dropout)
    start.labels = Labels(train.classes)  # a network that knows the classes keeps its head as the spec has it
    run = train_model(
        train,
        val,
        run_dir=folder / "run",
        recipe=recipe.replace(input_size=spec.input_size),
        init=start,
        epochs=epochs,
        resume=True,
        progress=_Watched(reporter, folder / "run", watch) if watch else reporter,
    )
    if not run.is_finished:
        raise Interrupted
    model = fold_batch_norm(load_model(run.best).eval())
    assert model.preprocessing is not None
    seen = calibration_from_images(train, model.preprocessing, n_images=CALIBRATION_PHOTOS)
    network = quantize_int8(model, seen, reporter)
    facts = {"provenance": {**model.provenance, "compressed": {"preset": "int8"}}}
    encoded = encode_sqz(SqzFile(network=network, labels=model.labels, preprocessing=model.preprocessing, facts=facts))
    with atomic_write(folder / "net.sqz") as stream:
        stream.write(encoded)
    accuracy = measure_file(encoded, val)
    measured = Measured(
        **spec_cost(spec),
        file_bytes=len(encoded),
        float_top1=run.top1,
        top1=accuracy.top1,
        top5=accuracy.top5,
        top1_interval=accuracy.top1_interval,
        n_images=accuracy.n_images,
        seconds=time.monotonic() - started,
        alarms=run.alarms,
    )
    with atomic_write(finished) as stream:
        stream.write(json.dumps(measured.to_dict(), indent=1).encode())
    if not keep_checkpoint:
        for leftover in ("checkpoint.pt", "checkpoint.previous.pt", "last.safetensors"):
            (folder / "run" / leftover).unlink(missing_ok=True)
    return measured


def epoch_top1(run_dir: Path) -> list[float]:
    """Top-1 of the float network after each epoch of a run, percent; empty where there is no log yet."""
    try:
        with (run_dir / "log.csv").open(newline="") as stream:
            return [float(row["top1"]) for row in csv.DictReader(stream)]
    except FileNotFoundError:
        return []


class _Watched:
    """A reporter that lets somebody look at the log whenever an epoch begins."""

    def __init__(self, reporter: Reporter, run_dir: Path, watch: Callable[[Sequence[float]], None]) -> None:
        self._reporter, self._run_dir, self._watch = reporter, run_dir, watch

    def say(self, text: str) -> None:
        """Show a line."""
        self._reporter.say(text)

    def task(self, title: str, total: int, unit: str = "img", done: int = 0) -> contextlib.AbstractContextManager[Task]:
        """Show a job, after the look."""
        self._watch(epoch_top1(self._run_dir))
        return self._reporter.task(title, total, unit, done)


def measure_file(encoded: bytes, images: ImageSet) -> Accuracy:
    """Count what a `.sqz` file gets right of labelled images, through the engine."""
    classifier = Classifier(decode_sqz(encoded))
    scores = collect_logits(classifier, match_classes(classifier, images))
    return Accuracy.of(scores.logits, scores.labels)
