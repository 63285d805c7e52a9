"""Results of an exploration: trials with their architectures and measurements, and the Pareto front."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..reports.plots import front
from ..spec import ArchSpec
from .measure import Measured
from .space import Value

if TYPE_CHECKING:
    import optuna

__all__ = ["DIRECTIONS", "Finding", "StudyResult", "findings_of", "pareto_front"]

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "top1": "maximize", "file_bytes": "minimize", "macs": "minimize", "ram_bytes": "minimize",
}  # fmt: skip
"""The objectives of a study."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finished trial."""

    number: int
    point: Mapping[str, Value]
    """Values of the metaparameters that were varied, and of `seed` if there are several."""
    spec: ArchSpec
    measured: Measured
    folder: str = ""
    """Name of its folder in the study's `trials/`."""


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """The result of an exploration."""

    folder: Path
    findings: tuple[Finding, ...]
    front: tuple[Finding, ...]
    """The Pareto front of accuracy, bytes, MACs and memory, among the findings within the limits."""
    winner: Finding | None
    """The most accurate finding within the limits."""
    retrained: Measured | None
    """The winner after it was trained again, in `winner-N/`."""
    is_finished: bool
    """False if a signal stopped it; the same call continues."""


def findings_of(study: optuna.Study) -> list[Finding]:
    """Finished trials of a study, in order."""
    from optuna.trial import TrialState

    return [
        Finding(
            number=trial.number, point=trial.params, spec=ArchSpec.from_dict(trial.user_attrs["spec"]),
            measured=Measured.from_dict(trial.user_attrs["measured"]), folder=trial.user_attrs.get("trial_folder", ""),
        )
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ]  # fmt: skip


def pareto_front(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Select the Pareto front of accuracy, bytes, MACs and memory; the order is kept."""
    m = operator.attrgetter
    return front(findings, [lambda f: -f.measured.top1, *(m(f"measured.{name}") for name in list(DIRECTIONS)[1:])])
