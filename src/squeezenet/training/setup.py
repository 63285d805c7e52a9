"""Before the first step: which images, which recipe, which network.

Use this when you need to know how `train_model` fills in what it was not told.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import torch

from ..data.check import DataCheck, check_data
from ..data.imageset import DataSource, ImageSet, open_data
from ..data.shards import is_shard_index, open_shards, shard_source
from ..errors import DataError, TrainingError
from ..labels import Labels
from ..models import SqueezeNet, load_model
from ..preprocess import Preprocessing
from ..progress import Reporter
from .distributed import ALONE, Workers
from .feed.augment import Augmentation
from .feed.batches import CACHE_BYTES, TrainBatches, view_for
from .feed.resident import ResidentBatches
from .feed.shards import ShardBatches
from .recipe import Recipe, load_recipe

__all__ = [
    "HOLDOUT_SHARE",
    "Data",
    "TrainingData",
    "choose_device",
    "choose_recipe",
    "choose_settings",
    "open_batches",
    "prepare_data",
    "start_model",
    "with_epochs",
]

Data = DataSource | Sequence[DataSource] | ImageSet

_CPU = torch.device("cpu")

HOLDOUT_SHARE = 0.1
"""Part of the images that is set aside for validation where no others are given."""

_SMALL_IMAGE = 96
_MAX_NAMED = 5


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Checked images to train and to validate on, with the same numbering of classes."""

    check: DataCheck

    @property
    def train(self) -> ImageSet:
        """Images to train on."""
        return self.check.train

    @property
    def val(self) -> ImageSet:
        """Images to validate on."""
        assert self.check.val is not None
        return self.check.val

    def with_labels(self, labels: Labels | None) -> TrainingData:
        """Number the classes as a network does.

        Raises:
            DataError: If a class is none of the network's.
        """
        if labels is None:
            return self
        positions = labels.match(self.train.classes)
        train, val = (images.relabel(positions, labels.names) for images in (self.train, self.val))
        return TrainingData(dataclasses.replace(self.check, train=train, val=val))


def prepare_data(data: Data, val: Data | None, reporter: Reporter) -> TrainingData:
    """Open and check the images; choose what to validate on if that was left open.

    Raises:
        DataError: If they cannot be used.
    """
    shards = _shard_index(data)
    if shards is not None:
        return _prepare_shards(shards, val, reporter)
    train = data if isinstance(data, ImageSet) else open_data(data, split="train")
    if val is not None:
        validation = val if isinstance(val, ImageSet) else open_data(val, split="val")
    elif not isinstance(data, ImageSet) and {"train", "val"} <= set(train.splits):
        validation = open_data(data, split="val")
    else:
        train, validation = train.split_holdout(HOLDOUT_SHARE)
        reporter.say(f"no images to validate on were given: every class sets aside {HOLDOUT_SHARE:.0%} of its images")
    if len(train.classes) < 2:
        raise DataError(f"{train.name}: expected at least two classes to tell apart, got only {train.classes[0]!r}")
    if not len(validation):
        raise DataError(f"{train.name}: expected two images in at least one class, got one each: add images")
    with reporter.task("checking", len(train) + len(validation), "files") as task:
        check = check_data(train, validation, on_progress=lambda done, _: task.update(done))
    for line in check.summary():
        reporter.say(line)
    return TrainingData(check)


def _shard_index(data: Data) -> DataSource | None:
    """The index of shards that DATA names; None if it names something else."""
    sources = [data] if isinstance(data, (str, os.PathLike)) else [] if isinstance(data, ImageSet) else list(data)
    if any(map(is_shard_index, sources)):
        if len(sources) > 1:
            raise DataError(f"expected the index of shards alone, got {len(sources)} sources: pack them together")
        return sources[0]
    return None


def _prepare_shards(index: DataSource, val: Data | None, reporter: Reporter) -> TrainingData:
    """Open shards to train on; they are not looked through before, which would mean to read them all."""
    train = open_shards(index)
    if val is None:
        raise DataError(f"{train.name}: expected --val with shards, whose images cannot be set aside")
    validation = val if isinstance(val, ImageSet) else open_data(val, split="val")
    check = check_data(validation)
    validation = check.train.with_classes_of(train)
    reporter.say(f"{len(train)} images in shards to train on, {len(validation)} to validate on")
    return TrainingData(
        dataclasses.replace(check, train=train, val=validation, train_sizes=np.full((1, 2), _PHOTO_SIDE))
    )


_PHOTO_SIDE = 224  # nothing is known of images in shards; they are taken for photos


def choose_recipe(prepared: TrainingData, *, has_init: bool) -> tuple[str, str]:
    """Name the recipe that suits a task, and say why."""
    if has_init:
        return "finetune", "there are weights to start from"
    if prepared.train.name == "digits":
        return "digits", "made for this data"
    short_side = int(np.median(prepared.check.train_sizes.min(axis=1)))
    if short_side < _SMALL_IMAGE:
        return "cifar10", f"images are small (short side {short_side} pixels)"
    return "small-photos", f"photos (short side {short_side} pixels) and no weights to start from"


def start_model(
    recipe: Recipe, init: SqueezeNet | str | os.PathLike[str] | None, prepared: TrainingData, reporter: Reporter
) -> tuple[SqueezeNet, TrainingData]:
    """Build or load the network, with a head for the classes of the data.

    Classes that the weights have, by id or name, keep their part of the head. The data comes back with the network's
    names and numbers of the classes.

    Raises:
        RecipeError: If the recipe describes no network.
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
            reporter.say(f"the weights have these {len(classes)} classes and no others: their head is kept")
        elif known:
            reporter.say(
                f"the weights have all {len(classes)} classes among others: the new head starts with their part"
            )
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
    if model.labels is None:
        return []
    try:
        positions = model.labels.match(classes)
    except DataError:
        return []
    known = [positions[name] for name in classes]
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


def choose_device(name: str) -> torch.device:
    """Look up a device by torch's name; `auto` is the GPU if there is one.

    Raises:
        TrainingError: If torch knows no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"expected `device` auto, cpu or cuda, got {name!r} ({error})") from None


def choose_settings(
    recipe: Recipe | str | os.PathLike[str] | None,
    epochs: int | None,
    prepared: TrainingData,
    *,
    has_init: bool,
    reporter: Reporter,
) -> Recipe:
    """Find the recipe to train by: the one given, or one that suits the task.

    Raises:
        RecipeError: If it is unknown or impossible.
    """
    if recipe is None:
        name, reason = choose_recipe(prepared, has_init=has_init)
        reporter.say(f"recipe {name}: {reason}")
        recipe = load_recipe(name)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    return recipe if epochs is None else with_epochs(recipe, epochs)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Change the length of a recipe."""
    # Phases at the start keep their part of a shorter run.
    share = min(1.0, epochs / recipe.epochs)
    return recipe.replace(
        epochs=epochs,
        warmup_epochs=recipe.warmup_epochs * share,
        freeze_features_epochs=min(recipe.freeze_features_epochs, epochs - 1),
    )


def open_batches(
    recipe: Recipe,
    preprocessing: Preprocessing,
    prepared: TrainingData,
    reporter: Reporter,
    *,
    cache_bytes: int = CACHE_BYTES,
    workers: Workers = ALONE,
    device: torch.device = _CPU,
) -> TrainBatches | ShardBatches:
    """Decode the images to train on into memory if they fit, else prepare to stream them.

    A GPU that trains gets a small set into its own memory, and worker processes to feed it with a larger one.

    Raises:
        DataError: If too many images are unreadable.
    """
    augmentation = Augmentation(
        size=preprocessing.crop_size,
        crop=recipe.crop,
        crop_scale=recipe.crop_scale,
        crop_ratio=recipe.crop_ratio,
        crop_pad=recipe.crop_pad,
        hflip=recipe.hflip,
    )
    source = shard_source(prepared.train)
    if source is not None:
        view = view_for(augmentation, preprocessing)
        return ShardBatches(prepared.train, source, augmentation, view)
    with reporter.task("decoding", len(prepared.train)) as task:
        batches = TrainBatches.open(
            prepared.train, prepared.check.train_sizes, augmentation, preprocessing,
            cache_bytes=cache_bytes // workers.per_machine, n_processes=workers.per_machine,
            feeds_gpu=device.type == "cuda",
            on_progress=lambda done, _: task.update(done),
        )  # fmt: skip
    for name, reason in batches.unreadable[:_MAX_NAMED]:
        reporter.say(f"skipped {name}: {reason}")
    if len(batches.unreadable) > _MAX_NAMED:
        reporter.say(f"skipped {len(batches.unreadable) - _MAX_NAMED} more unreadable images")
    if device.type == "cuda":
        return ResidentBatches.of(batches, device) or batches
    return batches
