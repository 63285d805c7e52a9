"""Preparation of a run: the images, the recipe and, if none was given, the network."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..architectures import DEFAULT_INPUT_SIZE, SMALL_INPUT
from ..checking.check import duplicate_groups
from ..classifier import Classifier
from ..data.check import DataCheck, check_data
from ..data.holdout import HOLDOUT_SHARE, moved_with_groups, training_mark
from ..data.imageset import DataSource, ImageSet, open_data, open_train_and_val
from ..data.shards import ShardSet, is_shard_index, open_shards
from ..errors import DataError
from ..labels import Labels
from ..models import SqueezeNet, load_model
from ..native_library import load_library
from ..preprocess import Preprocessing
from ..progress import Reporter
from ..zoo import default_model
from .distributed import ALONE, Workers
from .feed.augment import Augmentation
from .feed.batches import CACHE_BYTES, TrainBatches, view_for
from .feed.resident import move_to_device
from .feed.shards import ShardBatches
from .recipe import Recipe, load_recipe
from .step import epoch_size

__all__ = [
    "Data", "TrainingData", "choose_recipe", "enough_epochs", "open_batches", "prepare_data", "start_model",
    "with_epochs",
]  # fmt: skip

Data = DataSource | Sequence[DataSource] | ImageSet

_MAX_NAMED = 5
_MAX_COMPARED = 20_000  # images among which near-duplicates are looked for: a few minutes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Checked images to train and to validate on, with the same numbering of classes."""

    train: ImageSet | ShardSet
    val: ImageSet
    check: DataCheck
    """Results of checking the files; images in shards are not checked."""
    mark: str = ""
    """Fingerprint of the training images, to recognise them later; empty for shards."""

    @property
    def images(self) -> ImageSet:
        """Images to train on that can be read in any order.

        Raises:
            DataError: If they are in shards.
        """
        if isinstance(self.train, ShardSet):
            raise DataError(f"{self.train.name}: expected a folder, a zip or `digits`, got shards: unpack them first")
        return self.train

    @property
    def short_side(self) -> int:
        """Median of the images' short sides, pixels; images in shards are taken for photos."""
        if isinstance(self.train, ShardSet):
            return DEFAULT_INPUT_SIZE
        return int(np.median(self.check.train_sizes.min(axis=1)))

    def facts(self) -> dict[str, Any]:
        """Plain data for JSON: what was found, and how many images there are."""
        counts = {"n_train": len(self.train), "n_val": len(self.val), "class_counts": self.train.class_counts()}
        return {**self.check.to_dict(), **counts}

    def with_labels(self, labels: Labels | None) -> TrainingData:
        """Number the classes as a network does.

        Raises:
            DataError: If the network lacks a class.
        """
        if labels is None:
            return self
        positions = labels.match(self.train.classes)
        train = self.train.relabel(positions, labels.names)
        return dataclasses.replace(self, train=train, val=self.val.relabel(positions, labels.names))


def prepare_data(data: Data, val: Data | None, reporter: Reporter) -> TrainingData:
    """Open and check the images; choose images to validate on where none are given.

    Raises:
        DataError: If they cannot be used.
    """
    shards = _shard_index(data)
    if shards is not None:
        return _prepare_shards(shards, val, reporter)
    train, validation = _open_sets(data, val)
    moved: list[int] = []
    if validation is None:
        moved = _moved(train, reporter)
        train, validation = train.split_holdout(HOLDOUT_SHARE, moved=moved)
        reporter.say(f"no validation images: {HOLDOUT_SHARE:.0%} of each class is held out for validation")
    if len(train.classes) < 2:
        raise DataError(f"{train.name}: expected at least two classes to tell apart, got only {train.classes[0]!r}")
    if not len(validation):
        raise DataError(f"{train.name}: expected two images in at least one class, got one each: add images")
    with reporter.task("checking", len(train) + len(validation), "files") as task:
        check = check_data(train, validation, on_progress=lambda done, _: task.update(done))
    for line in check.summary():
        reporter.say(line)
    assert check.val is not None
    return TrainingData(train=check.train, val=check.val, check=check, mark=training_mark(train, moved))


def _moved(images: ImageSet, reporter: Reporter) -> list[int]:
    """Images that have to change sides so that no picture is both trained on and validated on."""
    name = default_model()
    if name is None or load_library() is None or not 1 < len(images) <= _MAX_COMPARED:
        return []
    groups = duplicate_groups(images, Classifier(name), reporter)
    moved = moved_with_groups(images, groups)
    if groups:
        n_more = sum(map(len, groups)) - len(groups)
        reporter.say(f"near-duplicates: {n_more} images look like another one; such images are kept in one split")
    return moved


def _open_sets(data: Data, val: Data | None) -> tuple[ImageSet, ImageSet | None]:
    if val is None:
        return (data, None) if isinstance(data, ImageSet) else open_train_and_val(data)
    train = data if isinstance(data, ImageSet) else open_data(data, split="train")
    return train, val if isinstance(val, ImageSet) else open_data(val, split="val")


def _shard_index(data: Data) -> DataSource | None:
    """The index of shards that DATA names; None if it names something else."""
    sources = [data] if isinstance(data, (str, os.PathLike)) else [] if isinstance(data, ImageSet) else list(data)
    for source in sources:
        index = Path(source) / "index.json"
        if index.is_file() and any(Path(source).glob("*.tar")):
            raise DataError(f"{source}: expected images in class folders, got shards: give their index, {index}")
    has_index = any(map(is_shard_index, sources))
    if has_index and len(sources) > 1:
        raise DataError(f"expected the index of shards alone, got {len(sources)} sources: pack them together")
    return sources[0] if has_index else None


def _prepare_shards(index: DataSource, val: Data | None, reporter: Reporter) -> TrainingData:
    """Open shards to train on; looking through them would mean reading them all."""
    train = open_shards(index)
    if val is None:
        raise DataError(f"{train.name}: expected --val with shards, whose images cannot be set aside")
    check = check_data(val if isinstance(val, ImageSet) else open_data(val, split="val"))
    validation = check.train.with_classes_of(train)
    reporter.say(f"{len(train)} images in shards to train on, {len(validation)} to validate on")
    return TrainingData(train=train, val=validation, check=check)


def start_model(
    recipe: Recipe, init: SqueezeNet | str | os.PathLike[str] | None, prepared: TrainingData, reporter: Reporter
) -> tuple[SqueezeNet, TrainingData]:
    """Build or load the network, with a head for the classes of the data, which comes back numbered as the network is.

    Classes that the weights have, by id or name, keep their part of the head.

    Raises:
        RecipeError: If the recipe does not describe a network.
        WeightsError: If the weights cannot be read.
        SpecError: If the weights' network cannot have the recipe's input size.
        DataError: If two classes have the same name but for case and underscores.
    """
    classes = prepared.train.classes
    torch.manual_seed(recipe.seed)
    if init is None:
        model = SqueezeNet(recipe.spec(len(classes)), dropout=recipe.dropout)
    else:
        model = copy.deepcopy(init) if isinstance(init, SqueezeNet) else load_model(init)
        known = _known_classes(model, classes)
        if len(known) == model.spec.num_classes:
            reporter.say(f"the weights have exactly these {len(classes)} classes: their head is kept")
        elif known:
            reporter.say(f"the weights have all {len(classes)} classes and others: the new head keeps their weights")
            _keep_classes(model, known)
        else:
            reporter.say(f"new head for {len(classes)} classes")
            model.reset_classifier(len(classes))
        model.provenance = {"init": model.provenance}
        model.dropout = recipe.dropout
    model.labels = model.labels or Labels(classes)
    model.preprocessing = recipe.preprocessing(model.preprocessing)
    model.spec = model.spec.replace(input_size=model.preprocessing.crop_size)
    return model, prepared.with_labels(model.labels)


def _known_classes(model: SqueezeNet, classes: Sequence[str]) -> list[int]:
    """Find the network's output of every class; empty if one is unknown or two are the same."""
    try:
        positions = model.labels.match(classes) if model.labels else {}
    except DataError:
        positions = {}
    known = [positions[name] for name in classes if name in positions]
    return known if len(set(known)) == len(known) else []


def _keep_classes(model: SqueezeNet, kept: list[int]) -> None:
    head, labels = model.head, model.labels
    assert labels is not None
    assert head.bias is not None
    model.reset_classifier(len(kept))
    assert model.head.bias is not None
    with torch.no_grad():
        model.head.weight.copy_(head.weight[kept])
        model.head.bias.copy_(head.bias[kept])
    names, ids = labels.names, labels.ids
    model.labels = Labels(tuple(names[i] for i in kept), tuple(ids[i] for i in kept) if ids else ())


def choose_recipe(prepared: TrainingData, *, has_init: bool, reporter: Reporter) -> Recipe:
    """Choose a recipe that suits the data, and report the reason."""
    side = prepared.short_side
    if has_init:
        name, reason = "finetune", "there are weights to start from"
    elif prepared.train.name == "digits":
        name, reason = "digits", "made for this data"
    elif side < SMALL_INPUT:
        name, reason = "cifar10", f"images are small (short side {side} pixels)"
    else:
        name, reason = "small-photos", f"photos (short side {side} pixels) and no weights to start from"
    reporter.say(f"recipe {name}: {reason}")
    return load_recipe(name)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Change the length of a recipe; phases at the start keep their part of a shorter run."""
    warmup = recipe.warmup_epochs * min(1.0, epochs / recipe.epochs)
    frozen = min(recipe.freeze_features_epochs, epochs - 1)
    return recipe.replace(epochs=epochs, min_steps=0, warmup_epochs=warmup, freeze_features_epochs=frozen)


def enough_epochs(recipe: Recipe, n_images: int) -> Recipe:
    """Multiply all numbers of epochs of a recipe, if it would otherwise take fewer than `min_steps` steps."""
    factor = math.ceil(recipe.min_steps / (recipe.epochs * epoch_size(recipe, n_images)[1]))
    if factor <= 1:
        return recipe
    first, last = recipe.sparse_epochs or (1, 1)
    return recipe.replace(
        epochs=recipe.epochs * factor, warmup_epochs=recipe.warmup_epochs * factor,
        freeze_features_epochs=recipe.freeze_features_epochs * factor,
        early_stop_epochs=recipe.early_stop_epochs * factor,
        sparse_epochs=recipe.sparse_epochs and ((first - 1) * factor + 1, last * factor),
    )  # fmt: skip


def open_batches(
    recipe: Recipe, preprocessing: Preprocessing, prepared: TrainingData, reporter: Reporter, *,
    cache_bytes: int = CACHE_BYTES, workers: Workers = ALONE, device: torch.device | None = None,
) -> TrainBatches | ShardBatches:  # fmt: skip
    """Decode the images to train on into memory, or a GPU's, if they fit, else prepare to stream them.

    Raises:
        DataError: If too many images are unreadable, or the recipe needs images in an order that shards do not allow.
    """
    on_gpu = device is not None and device.type == "cuda"
    augmentation = Augmentation.of(recipe, preprocessing)
    if isinstance(prepared.train, ShardSet):
        if recipe.sampling == "balanced":
            text = 'expected images that can be read in any order for `sampling = "balanced"`, got shards'
            raise DataError(f"{prepared.train.name}: {text}: use `class_weights` instead")
        return ShardBatches(prepared.train, augmentation, view_for(augmentation, preprocessing))
    with reporter.task("decoding", len(prepared.train)) as task:
        batches = TrainBatches.open(
            prepared.train, prepared.check.train_sizes, augmentation, preprocessing,
            cache_bytes=cache_bytes // workers.per_machine, n_processes=workers.per_machine,
            feeds_gpu=on_gpu, on_progress=lambda done, _: task.update(done),
        )  # fmt: skip
    for name, reason in batches.unreadable[:_MAX_NAMED]:
        reporter.say(f"skipped {name}: {reason}")
    if len(batches.unreadable) > _MAX_NAMED:
        reporter.say(f"skipped {len(batches.unreadable) - _MAX_NAMED} more unreadable images")
    return (move_to_device(batches, device) if on_gpu and device else None) or batches
