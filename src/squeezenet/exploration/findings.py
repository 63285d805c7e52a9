"""What an exploration finds: trials with their architectures and figures, and the front among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..spec import ArchSpec
from .measure import Measured
from .space import Value

if TYPE_CHECKING:
    import optuna

__all__ = ["DIRECTIONS", "Finding", "StudyResult", "findings_of", "pareto_front"]

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "top1": "maximize",
    "file_bytes": "minimize",
    "macs": "minimize",
    "peak_activation_bytes": "minimize",
}
"""The objectives of a study."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finished trial."""

    number: int
    point: Mapping[str, Value]
    """The metaparameters that were varied, and `seed` where there are several."""
    spec: ArchSpec
    measured: Measured
    folder: str = ""
    """Its name in the study's `trials/`."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """What came out of an exploration."""

    folder: Path
    findings: tuple[Finding, ...]
    front: tuple[Finding, ...]
    """Findings within the limits that no other beats in accuracy, bytes, MACs and memory at once."""
    winner: Finding | None
    """The most accurate within the limits."""
    retrained: Measured | None
    """The winner after a training of its own, in `winner-N/`."""
    is_finished: bool
    """False if a signal stopped it; the same call continues."""


def findings_of(study: optuna.Study) -> list[Finding]:
    """Finished trials of a study, in order."""
    from optuna.trial import TrialState

    return [
        Finding(
            number=trial.number,
            point=trial.params,
            spec=ArchSpec.from_dict(trial.user_attrs["spec"]),
            measured=Measured.from_dict(trial.user_attrs["measured"]),
            folder=trial.user_attrs.get("trial_folder", ""),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]


def _beats(one: Finding, other: Finding) -> bool:
    """Whether one is no worse in anything and better in something."""
    signs = [1 if direction == "maximize" else -1 for direction in DIRECTIONS.values()]
    a, b = (
        [sign * getattr(finding.measured, name) for sign, name in zip(signs, DIRECTIONS, strict=True)]
        for finding in (one, other)
    )
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def pareto_front(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings that no other beats in accuracy, bytes, MACs and memory at once, in order."""
    return tuple(f for f in findings if not any(_beats(other, f) for other in findings))
