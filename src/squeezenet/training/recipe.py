"""Recipes: everything that decides how a network is trained, in one frozen dataclass and its TOML file.

The package's own recipes lie in `recipes/`, one file each, and load by name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..architectures import DEFAULT_INPUT_SIZE, SMALL_INPUT, named_spec
from ..errors import RecipeError, SpecError
from ..files import load_toml
from ..preprocess import Preprocessing
from ..spec import ArchSpec, BatchNorm, Bypass

__all__ = ["RANGES", "RECIPE_NAMES", "Recipe", "describe_type", "load_recipe"]

_RECIPES = resources.files(__package__) / "recipes"
RECIPE_NAMES: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _RECIPES.iterdir() if entry.name.endswith(".toml"))
)
"""Names that `load_recipe` accepts."""

_METAPARAMETERS = ("base_e", "incr_e", "pct_3x3", "freq", "squeeze_ratio", "n_fires")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training and, for a run that starts without weights, of the architecture.

    Raises:
        RecipeError: On construction, if a value is of another type or out of range.
    """

    name: str = "custom"
    """Name of the recipe in reports; by default that of its file."""
    description: str = ""
    """Purpose of the recipe, in one line."""

    epochs: int
    """Passes over the training images."""
    min_steps: int = 0
    """Minimum number of steps of a run. For a small set, all numbers of epochs are multiplied to reach it, unless
    `--epochs` is given."""
    batch_size: int = 64
    """Images per step, of all processes together. A smaller set is one batch; otherwise, an incomplete last batch is
    dropped."""
    accumulate: int = 1
    """Number of parts in which each batch is processed, one after the other: the same step in less memory."""
    seed: int = 0
    """Determines the initial weights, the order of images, their augmentation and dropout."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 where the processor multiplies it natively."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Stochastic gradient descent with momentum, or AdamW."""
    lr: float
    """Peak learning rate of the head, and of everything else unless `features_lr_scale` changes that."""
    features_lr_scale: float = 1.0
    """Learning rate of the layers before the head, relative to `lr`; below 1 for pretrained layers."""
    momentum: float = 0.9
    """SGD's momentum; AdamW's first moment."""
    nesterov: bool = False
    """Use Nesterov momentum with SGD."""
    weight_decay: float = 0.0
    """Factor by which the weight is added to its gradient or, with AdamW, by which `lr` times the weight is subtracted
    from it."""
    decay_biases: bool = False
    """Apply weight decay to biases and batch norms too, as the 2016 solver does."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the learning rate falls to 0 after the warm-up."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises from 0."""
    clip_grad_norm: float = 0.0
    """Largest gradient norm a step may have; 0 for no limit."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes."""
    distillation: float = 0.0
    """Share of the loss that compares with the teacher's predictions instead of the labels, if there is a teacher
    (Hinton et al. 2015)."""
    ema_decay: float = 0.0
    """Decay of a running average of the weights, which is validated and saved; 0 for none, 0.999 for about 1000
    steps."""
    freeze_features_epochs: int = 0
    """Number of epochs at the start that train only the head."""
    early_stop_epochs: int = 0
    """End the run after this number of epochs without a better top-1; 0 for never."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`shuffled`: every image once per epoch; `balanced`: every class equally often, repeating images of small ones."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weight each image in the loss by the inverse frequency of its class."""

    teacher: str | None = None
    """A MODEL whose predictions are learnt besides the labels; `distillation` is their share of the loss."""
    distill_temperature: float = 1.0
    """Number by which the logits of teacher and student are divided; above 1, less probable classes count more."""
    sparse_epochs: tuple[int, int] | None = None
    """First and last epoch, counted from 1, in which the smallest weights are kept at zero (dense-sparse-dense)."""
    sparsity: float = 0.5
    """Share of each convolution's weights that are kept at zero during `sparse_epochs`."""
    prune_to: int | None = None
    """Size in bytes of the compressed file that the network is for: weights are removed step by step during training,
    by an estimate of what they cost there. Compress with the same number as `--max-bytes`."""

    input_size: int | None = None
    """Height and width of the input in pixels; by default those of the weights to start from, or 224."""
    resize_size: int | None = None
    """Short side before the centre crop of validation; by default 8/7 of the input size, or the input size itself
    if that is small."""
    crop: Literal["random_resized", "random", "center"] = "random_resized"
    """`random_resized`: any part of the image, scaled to the input size; `random`: any position at scale `resize_size`,
    after padding; `center`: what validation sees."""
    crop_scale: tuple[float, float] = (0.25, 1.0)
    """Area of a random resized crop relative to the image, smallest and largest."""
    crop_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Width over height of a random resized crop, smallest and largest."""
    crop_pad: int = 0
    """Black pixels added to each side before a random crop."""
    hflip: bool = True
    """Mirror half of the images."""
    trivial_augment: bool = False
    """Apply one operation of random kind and strength to each image (colours, rotation, shear, ...)."""
    mixup: float = 0.0
    """Blend pairs of images of a batch, and their labels, with shares from Beta(mixup, mixup); 0 for never."""
    cutmix: float = 0.0
    """Replace a rectangle of each image by another image, with areas from Beta(cutmix, cutmix). If `mixup` is set too,
    each batch gets one of the two."""

    architecture: str = "squeezenet1_1"
    """Name of an architecture, as for `squeezenet info`. This and all settings below except `dropout` are ignored if
    the run starts from weights."""
    bypass: Bypass | None = None
    """Connections around Fire modules: `none`, `simple` or `complex` (paper, section 6)."""
    base_e: int | None = None
    """Expand filters of the first Fire. This and the next five settings are the paper's metaparameters (section 5.1);
    by default they are those of the architecture."""
    incr_e: int | None = None
    """Expand filters that are added from one group of Fire modules to the next."""
    pct_3x3: float | None = None
    """Share of the expand filters that are 3x3."""
    freq: int | None = None
    """Fire modules per group."""
    squeeze_ratio: float | None = None
    """Number of squeeze filters divided by number of expand filters."""
    n_fires: int | None = None
    """Number of Fire modules."""
    pools: tuple[int, ...] | None = None
    """Layers followed by a pool, in the paper's numbering; by default the architecture's for this input size."""
    squeeze_relu: bool = True
    """Put a ReLU after squeeze layers."""
    head_relu: bool = False
    """Put a ReLU after the last convolution, as in the paper."""
    batch_norm: BatchNorm = False
    """Batch norm after every convolution, or only after squeeze layers; folded into the saved weights."""
    dropout: float = 0.5
    """Share of the features before the head that are set to zero in a training step."""

    def __post_init__(self) -> None:
        """Check types and ranges."""
        for field, kind in get_type_hints(type(self)).items():
            value = getattr(self, field)
            if not _is_of(value, kind):
                raise RecipeError(f"expected `{field}` to be {describe_type(kind)}, got {value!r}")
        for field, (lowest, highest) in RANGES.items():
            values = getattr(self, field)
            for value in values if isinstance(values, tuple) else [values]:
                if value is not None and not (math.isfinite(value) and lowest <= value <= highest):
                    raise RecipeError(f"expected `{field}` from {lowest} to {highest}, got {value}")
        for field in ("crop_scale", "crop_ratio"):
            smallest, largest = getattr(self, field)
            if smallest > largest:
                raise RecipeError(f"expected `{field}` as smallest and largest, got {smallest} and {largest}")
        if self.accumulate > self.batch_size:
            raise RecipeError(f"expected `accumulate` of at most `batch_size`, got {self.accumulate}")
        if self.sparse_epochs and self.sparse_epochs[0] > self.sparse_epochs[1]:
            raise RecipeError(f"expected `sparse_epochs` as first and last, got {self.sparse_epochs}")
        if self.sparse_epochs and self.prune_to:
            raise RecipeError("expected either `sparse_epochs` or `prune_to`, got both")
        if self.warmup_epochs >= self.epochs:
            raise RecipeError(f"expected `warmup_epochs` below `epochs` (={self.epochs}), got {self.warmup_epochs}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise RecipeError("expected `optimizer` sgd and a positive `momentum` with `nesterov`, got none of that")
        if (smallest := self.input_size or 0) > (self.resize_size or math.inf):
            raise RecipeError(f"expected `resize_size` of at least `input_size` (={smallest}), got {self.resize_size}")

    def spec(self, num_classes: int) -> ArchSpec:
        """Describe the network to build if no weights are given.

        Raises:
            RecipeError: If the settings describe an impossible network.
        """
        options: dict[str, Any] = {key: value for key in _METAPARAMETERS if (value := getattr(self, key)) is not None}
        changes: dict[str, Any] = {"name": "custom"} if options else {}
        changes |= {} if self.pools is None else {"pools": self.pools}
        options |= {} if self.bypass is None else {"bypass": self.bypass}
        try:
            spec = named_spec(
                self.architecture, input_size=self.input_size or DEFAULT_INPUT_SIZE, num_classes=num_classes,
                squeeze_relu=self.squeeze_relu, head_relu=self.head_relu, batch_norm=self.batch_norm, **options,
            )  # fmt: skip
            return spec.replace(**changes)
        except SpecError as error:
            raise RecipeError(f"recipe {self.name}: {error}") from None

    def preprocessing(self, of_weights: Preprocessing | None = None) -> Preprocessing:
        """Build the preprocessing of the images to train on.

        Args:
            of_weights: Preprocessing of the weights to start from. Its normalisation is used, and also its sizes
                unless the recipe sets them. Without it, pixels are normalised as (pixel - 128) / 64.
        """
        if of_weights is not None and self.input_size is None and self.resize_size is None:
            return of_weights
        size = self.input_size or (of_weights.crop_size if of_weights else DEFAULT_INPUT_SIZE)
        # Photos are cropped from a larger image: 224 of 256, and in proportion.
        resize_size = self.resize_size or (size if size < SMALL_INPUT else round(size * 8 / 7))
        start = of_weights or Preprocessing(crop_size=size, resize_size=size)
        return dataclasses.replace(start, crop_size=size, resize_size=max(size, resize_size))

    def replace(self, **changes: Any) -> Recipe:
        """Copy with some settings changed; the copy is checked like a new one."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and TOML, without settings that have no value; `from_dict` reads it back."""
        known = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Build from `to_dict`'s data.

        Raises:
            RecipeError: If a setting is unknown, missing, of another type or out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise RecipeError(f"expected only the settings {', '.join(sorted(known))}; got {', '.join(unknown)}")
        if missing := [name for name in ("epochs", "lr") if name not in data]:
            raise RecipeError(f"expected a value for {' and '.join(missing)}, got none")
        settings: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return cls(**settings)

    def to_toml(self) -> str:
        """Write all settings as the text of a recipe file."""
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in self.to_dict().items())


RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 100_000), "min_steps": (0, 100_000), "batch_size": (1, 65_536), "accumulate": (1, 65_536),
    "seed": (0, 2**63 - 1),
    "lr": (0, 100), "features_lr_scale": (0, 10), "momentum": (0, 0.9999), "weight_decay": (0, 10),
    "warmup_epochs": (0, 100_000), "clip_grad_norm": (0, 1e9), "label_smoothing": (0, 0.9), "distillation": (0, 1),
    "ema_decay": (0, 0.999999), "freeze_features_epochs": (0, 100_000), "early_stop_epochs": (0, 100_000),
    "distill_temperature": (0.1, 100), "sparse_epochs": (1, 100_000), "sparsity": (0, 0.99), "prune_to": (1, 2**26),
    "input_size": (1, 1024),
    "resize_size": (1, 4096), "crop_scale": (0.001, 1), "crop_ratio": (0.01, 100), "crop_pad": (0, 1024),
    "mixup": (0, 100), "cutmix": (0, 100), "dropout": (0, 0.99),
}  # fmt: skip
"""Smallest and largest value of each numeric setting; they catch mistakes such as a percentage instead of a share."""


def load_recipe(source: Recipe | str | os.PathLike[str]) -> Recipe:
    """Read a recipe by name, or from a TOML file.

    Args:
        source: One of `RECIPE_NAMES`, the path of a `.toml` file, or a recipe, which is returned as it is.

    Raises:
        RecipeError: If there is no such recipe, or the file is not a valid one.

    Example:
        >>> load_recipe("digits").input_size
        8
    """
    if isinstance(source, Recipe):
        return source
    if source in RECIPE_NAMES:
        text = (_RECIPES / f"{source}.toml").read_text(encoding="utf-8")
        return Recipe.from_dict({"name": source, **tomllib.loads(text)})
    path = Path(source)
    if path.suffix != ".toml":
        raise RecipeError(f"expected one of {', '.join(RECIPE_NAMES)} or a .toml file, got {str(source)!r}")
    return load_toml(path, lambda data: Recipe.from_dict({"name": path.stem, **data}), RecipeError)


def _is_of(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, UnionType):
        return any(_is_of(value, choice) for choice in get_args(kind))
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if isinstance(value, tuple) and inner[-1] is Ellipsis:
            inner = inner[:1] * len(value)
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_of, value, inner))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def describe_type(kind: Any) -> str:
    """Describe the values that an annotation of `Recipe` allows.

    Example:
        >>> describe_type(tuple[float, float] | None)
        'a list of 2 numbers'
    """
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(describe_type(choice) for choice in get_args(kind) if choice is not type(None))
    if get_origin(kind) is Literal:
        choices = ", ".join(map(repr, get_args(kind)))
        return f"one of {choices}" if len(get_args(kind)) > 1 else choices
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return f"a list of {'' if inner[-1] is Ellipsis else f'{len(inner)} '}numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
