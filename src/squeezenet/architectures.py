"""Architectures by name and by the paper's metaparameters: functions that build an `ArchSpec`.

This is the only definition of the published networks, their bypasses and their forms for small images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .errors import SpecError
from .spec import MAX_FIRES, ArchSpec, Bypass, FireSpec, StemSpec, check_range, pool_size

__all__ = ["DEFAULT_INPUT_SIZE", "SMALL_INPUT", "SPEC_NAMES", "metaparameter_spec", "named_spec", "pools_within"]

DEFAULT_INPUT_SIZE = 224
SMALL_INPUT = 96
"""Below this input size, the stem has stride 1, and pools that would make the last map smaller than 4x4 are
removed."""
_SMALL_LAST_MAP = 4

_PAPER_FIRES = 8
_METAPARAMETERS = (
    "base_e", "incr_e", "pct_3x3", "freq", "squeeze_ratio", "n_fires", "stem_channels", "stem_kernel", "pools",
    "input_size",
)  # fmt: skip
# The other fields of a spec.
_SPEC_OPTIONS = tuple(
    field.name for field in fields(ArchSpec) if field.name not in ("stem", "fires", "pools", "input_size")
)
# name -> (stem channels, kernel, pools); the Fire widths are the same in both.
_VERSIONS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "squeezenet1_0": (96, 7, (1, 4, 8)),
    "squeezenet1_1": (64, 3, (1, 3, 5)),
}
_BYPASS_SUFFIXES: dict[str, Bypass] = {"": "none", "_simple_bypass": "simple", "_complex_bypass": "complex"}

SPEC_NAMES: tuple[str, ...] = tuple(version + suffix for version in _VERSIONS for suffix in _BYPASS_SUFFIXES)
"""Names that `named_spec` accepts."""


def pools_within(n_fires: int, pools: Sequence[int]) -> tuple[int, ...]:
    """Remove the pools after layers that do not exist in a network of `n_fires` Fire modules."""
    return tuple(layer for layer in pools if layer <= n_fires + 1)


def named_spec(name: str, *, input_size: int = DEFAULT_INPUT_SIZE, **options: Any) -> ArchSpec:
    """Look up an architecture of the paper, in the form for the given input size.

    From 96 pixels on, this is the published network. Below, it is a small-image form: a 3x3 stem with stride 1 and
    padding 1, and only the last pools, so that the last map has at least 4x4 positions.

    Args:
        name: One of `SPEC_NAMES`.
        input_size: Height and width in pixels.
        options: Other fields of `ArchSpec` (`num_classes`, `head_relu`, `bypass`, ...) and metaparameters. If the
            network is shorter than the published one, pools after missing layers are removed.

    Raises:
        SpecError: If the name is unknown or the options describe an impossible network.

    Example:
        >>> named_spec("squeezenet1_1").fires[0].squeeze_channels
        16
    """
    for version, (channels, kernel, pools) in _VERSIONS.items():
        for suffix, bypass in _BYPASS_SUFFIXES.items():
            if name == version + suffix:
                pools = pools_within(options.get("n_fires", _PAPER_FIRES), pools)
                published = {"stem_channels": channels, "stem_kernel": kernel, "pools": pools}
                settings = {**published, "bypass": bypass, "name": name, **options}
                return metaparameter_spec(input_size=input_size, **settings)
    raise SpecError(f"expected one of {', '.join(SPEC_NAMES)}, got {name!r}")


def metaparameter_spec(
    *, base_e: int = 128, incr_e: int = 128, pct_3x3: float = 0.5, freq: int = 2, squeeze_ratio: float = 0.125,
    n_fires: int = _PAPER_FIRES, stem_channels: int = 96, stem_kernel: int = 7, pools: tuple[int, ...] = (1, 4, 8),
    input_size: int = DEFAULT_INPUT_SIZE, **options: Any,
) -> ArchSpec:  # fmt: skip
    """Build an architecture from the paper's metaparameters; the defaults give SqueezeNet 1.0.

    With i counting Fire modules from 0: e_i = base_e + incr_e * floor(i / freq), e_i,3x3 = pct_3x3 * e_i,
    s_i = squeeze_ratio * e_i, each rounded to the nearest whole filter, and at least one filter of each kind.

    Args:
        base_e: Expand filters of the first Fire module.
        incr_e: Filters added every `freq` modules.
        pct_3x3: Share of 3x3 filters among the expand filters, 0 to 1.
        freq: Fire modules that share a width.
        squeeze_ratio: Number of squeeze filters divided by number of expand filters.
        n_fires: Number of Fire modules.
        stem_channels: Filters of conv1.
        stem_kernel: Kernel size of conv1 for large inputs (stride 2); for small inputs conv1 is 3x3 with stride 1.
        pools: Layers followed by a pool, in the paper's numbering.
        input_size: Height and width in pixels.
        options: Other fields of `ArchSpec`.

    Raises:
        SpecError: If a value is out of range.

    Example:
        >>> metaparameter_spec(squeeze_ratio=0.5).fires[0].squeeze_channels
        64

    Source: Iandola et al. 2016, section 5.1.
    """
    if unknown := sorted(set(options) - set(_SPEC_OPTIONS)):
        known = ", ".join((*_METAPARAMETERS, *_SPEC_OPTIONS))
        raise SpecError(f"expected only the options {known}, got {', '.join(unknown)} (images are always RGB)")
    if not 0 <= pct_3x3 <= 1:
        raise SpecError(f"expected `pct_3x3` from 0 to 1, got {pct_3x3}")
    if not 0 < squeeze_ratio <= 8:
        raise SpecError(f"expected `squeeze_ratio` above 0 and at most 8, got {squeeze_ratio}")
    check_range("freq", freq, 1, MAX_FIRES)
    check_range("n_fires", n_fires, 1, MAX_FIRES)
    fires = []
    for i in range(n_fires):
        expand_channels = base_e + incr_e * (i // freq)
        expand3x3_channels = min(max(1, round(pct_3x3 * expand_channels)), expand_channels - 1)
        fires.append(
            FireSpec(
                squeeze_channels=max(1, round(squeeze_ratio * expand_channels)),
                expand1x1_channels=expand_channels - expand3x3_channels,
                expand3x3_channels=expand3x3_channels,
            )
        )
    if input_size < SMALL_INPUT:
        stem = StemSpec(channels=stem_channels, kernel=3, stride=1, padding=1)
        while pools and _size_after_pools(input_size, len(pools)) < _SMALL_LAST_MAP:
            pools = pools[1:]
    else:
        stem = StemSpec(channels=stem_channels, kernel=stem_kernel, stride=2)
    return ArchSpec(stem=stem, fires=tuple(fires), pools=tuple(pools), input_size=input_size, **options)


def _size_after_pools(size: int, count: int) -> int:
    for _ in range(count):
        size = pool_size(size, ceil_mode=True)
    return size
