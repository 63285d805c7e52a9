"""Search spaces: the metaparameters of an architecture that an exploration varies, and their values.

A space is a TOML file. `[fixed]` has fixed arguments of `metaparameter_spec`. `[space]` has the arguments to vary,
each with a list of choices or a range `{ low = 32, high = 128, step = 16 }`. All other arguments come from the recipe.
The package's own spaces are in `spaces/` and can be loaded by name.
"""

from __future__ import annotations

import itertools
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from ..architectures import DEFAULT_INPUT_SIZE, metaparameter_spec, named_spec, pools_within
from ..errors import SpecError, StudyError
from ..files import load_toml
from ..spec import ArchSpec, Bypass
from ..training import Recipe

__all__ = ["PRESET_NAMES", "Range", "Space", "load_space"]

_PRESETS = resources.files(__package__) / "spaces"
PRESET_NAMES: tuple[str, ...] = tuple(
    sorted(entry.name.removesuffix(".toml") for entry in _PRESETS.iterdir() if entry.name.endswith(".toml"))
)
"""Names that `load_space` accepts."""

Sampler = Literal["grid", "pareto"]

_MAX_GRID = 10_000
# Names that a space may have, and the types of their values.
_KINDS: dict[str, type] = {
    "base_e": int, "incr_e": int, "pct_3x3": float, "freq": int, "squeeze_ratio": float, "n_fires": int,
    "stem_channels": int, "stem_kernel": int, "input_size": int, "pools": list, "bypass": str, "squeeze_relu": bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included, in steps."""

    low: int | float
    high: int | float
    step: int | float | None = None
    """Distance between values; None means 1 for integers, and any value for other numbers."""


Value = bool | int | float | str
"""Value of a metaparameter in a study; pools are text such as "1,4,8"."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """The metaparameters that an exploration varies, and those that it keeps fixed."""

    name: str = "custom"
    description: str = ""
    sampler: Sampler = "pareto"
    """`grid`: every combination, in order; `pareto`: the proposals of a multi-objective search."""
    fixed: Mapping[str, Value] = field(default_factory=dict)
    dimensions: Mapping[str, tuple[Value, ...] | Range]

    def grid(self) -> Iterator[dict[str, Value]]:
        """Every combination of the choices, the first dimension slowest.

        Raises:
            StudyError: If a dimension is a range without steps, or there are more than 10,000 combinations.
        """
        axes: list[tuple[Value, ...]] = []
        for name, choices in self.dimensions.items():
            if isinstance(choices, Range):
                if choices.step is None and not isinstance(choices.low, int):
                    raise StudyError(f"expected a `step` for `{name}` in a grid, got a range without one")
                low, step = choices.low, choices.step or 1
                count = int((choices.high - low) / step + 1e-9) + 1
                choices = tuple(low + step * index for index in range(min(count, _MAX_GRID + 1)))
            axes.append(choices)
        if (total := math.prod(map(len, axes))) > _MAX_GRID:
            raise StudyError(f"expected a grid of at most {_MAX_GRID} points, got {total}: use fewer choices")
        for values in itertools.product(*axes):
            yield dict(zip(self.dimensions, values, strict=True))

    def corners(self) -> Iterator[dict[str, Value]]:
        """Yield every combination of the choices and the ends of the ranges; the smallest network is one of them."""
        axes = [(axis.low, axis.high) if isinstance(axis, Range) else axis for axis in self.dimensions.values()]
        for values in itertools.product(*axes):
            yield dict(zip(self.dimensions, values, strict=True))

    def spec(self, point: Mapping[str, Value], recipe: Recipe, num_classes: int) -> ArchSpec:
        """Build the architecture for a point of the space.

        Arguments that are neither in the point nor in `fixed` come from the recipe's architecture. If the recipe sets
        the number of pools, the first pools of a longer list are removed, and so are pools after missing layers.

        Raises:
            SpecError: If the architecture is impossible.
        """
        values: dict[str, Any] = {**self.fixed, **point}
        size = values.pop("input_size", recipe.input_size or DEFAULT_INPUT_SIZE)
        published = named_spec(recipe.architecture)
        stem_channels = values.pop("stem_channels", published.stem.channels)
        stem_kernel = values.pop("stem_kernel", published.stem.kernel)
        pools = published.pools
        if (text := values.pop("pools", None)) is not None:
            try:
                pools = tuple(int(layer) for layer in text.split(","))
            except ValueError:
                raise SpecError(f"expected layer numbers for `pools`, got {text!r}") from None
        n_fires = values.get("n_fires", len(published.fires))
        if recipe.pools is not None:
            pools = recipe.pools if "pools" not in {**self.fixed, **point} else pools[-len(recipe.pools) :]
        pools = pools_within(n_fires, pools)
        values.setdefault("bypass", recipe.bypass or published.bypass)
        values.setdefault("squeeze_relu", recipe.squeeze_relu)
        spec = metaparameter_spec(
            stem_channels=stem_channels, stem_kernel=stem_kernel, pools=pools, input_size=size, num_classes=num_classes,
            head_relu=recipe.head_relu, batch_norm=recipe.batch_norm,
            name=" ".join(f"{key}={value}" for key, value in point.items())[:200], **values,
        )  # fmt: skip
        return spec.replace(pools=pools) if recipe.pools is not None else spec

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        space = {key: vars(a) if isinstance(a, Range) else list(a) for key, a in self.dimensions.items()}
        return {"name": self.name, "sampler": self.sampler, "fixed": dict(self.fixed), "space": space}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """Build from the contents of a space file.

        Raises:
            StudyError: If something is unknown, missing or of another type.
        """
        if unknown := sorted(set(data) - {"name", "description", "sampler", "fixed", "space"}):
            raise StudyError(f"expected description, sampler, [fixed] and [space] in a space; got {', '.join(unknown)}")
        if data.get("sampler", "pareto") not in get_args(Sampler):
            raise StudyError(f"expected `sampler` grid or pareto, got {data['sampler']!r}")
        for section in ("fixed", "space"):
            if not isinstance(data.get(section, {}), dict):
                raise StudyError(f"expected a table [{section}], got {data[section]!r}")
            if unknown := sorted(set(data.get(section, {})) - set(_KINDS)):
                raise StudyError(f"expected only {', '.join(_KINDS)} in [{section}]; got {', '.join(unknown)}")
        if not data.get("space"):
            raise StudyError("expected at least one metaparameter in [space], got none")
        if both := sorted(set(data.get("fixed", {})) & set(data["space"])):
            raise StudyError(f"expected {', '.join(both)} in [fixed] or in [space], got both")
        return cls(
            name=str(data.get("name", "custom")), description=str(data.get("description", "")),
            sampler=data.get("sampler", "pareto"),
            fixed={key: _value(key, value) for key, value in data.get("fixed", {}).items()},
            dimensions={key: _axis(key, value) for key, value in data["space"].items()},
        )  # fmt: skip


def load_space(source: str | os.PathLike[str]) -> Space:
    """Read a space by name, or from a TOML file.

    Args:
        source: One of `PRESET_NAMES`, or the path of a `.toml` file.

    Raises:
        StudyError: If there is no such space, or the file is not a valid one.

    Example:
        >>> [point["squeeze_ratio"] for point in load_space("paper-sr").grid()]
        [0.125, 0.25, 0.5, 0.75, 1.0]
    """
    if source in PRESET_NAMES:
        return Space.from_dict({"name": source, **tomllib.loads((_PRESETS / f"{source}.toml").read_text("utf-8"))})
    path = Path(source)
    if path.suffix != ".toml":
        raise StudyError(f"expected one of {', '.join(PRESET_NAMES)} or a .toml file, got {str(source)!r}")
    return load_toml(path, lambda data: Space.from_dict({"name": path.stem, **data}), StudyError)


def _axis(name: str, axis: Any) -> tuple[Value, ...] | Range:
    if isinstance(axis, dict):
        if _KINDS[name] not in (int, float):
            raise StudyError(f"expected a list of choices for `{name}`, got a range")
        if set(axis) - {"low", "high", "step"} or not {"low", "high"} <= set(axis):
            raise StudyError(f"expected `low`, `high` and perhaps `step` for `{name}`, got {', '.join(axis) or 'none'}")
        numbers = {key: _value(name, value) for key, value in axis.items()}
        found = Range(**numbers)  # type: ignore[arg-type]
        if not found.low <= found.high or (found.step is not None and found.step <= 0):
            raise StudyError(f"expected `low` up to `high` and a positive `step` for `{name}`, got {axis}")
        return found
    if not isinstance(axis, list) or not axis:
        raise StudyError(f"expected choices or a range for `{name}`, got {axis!r}")
    choices = tuple(_value(name, value) for value in axis)
    if len(set(choices)) < len(choices):
        raise StudyError(f"expected different choices for `{name}`, got {axis}")
    return choices


def _value(name: str, value: Any) -> Value:
    kind = _KINDS[name]
    if kind is list:
        if not isinstance(value, list) or not value or not all(type(layer) is int for layer in value):
            raise StudyError(f"expected a list of layer numbers for `{name}`, got {value!r}")
        return ",".join(map(str, value))
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or not isinstance(value, (bool, int, float, str)):
        raise StudyError(f"expected `{name}` to be {_DESCRIBED[kind]}, got {value!r}")
    if name == "bypass" and value not in get_args(Bypass):
        raise StudyError(f"expected `bypass` to be one of {', '.join(get_args(Bypass))}, got {value!r}")
    return value


_DESCRIBED = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
