"""The study in its Optuna storage, by default a SQLite file in the study's folder.

A trial's figures enter it in one transaction. A trial that was under way when the process ended is queued again with
the same parameters, and continues from its own checkpoint.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError, StudyError
from ..progress import Reporter
from .findings import DIRECTIONS, findings_of
from .space import Range, Space, Value

if TYPE_CHECKING:
    import optuna

__all__ = ["SEED", "distributions_of", "has_waiting", "n_done", "open_study", "process_id", "queue_points", "revive"]

SEED = "seed"
"""Name of the parameter that tells repeated trainings of a point apart."""


def open_study(folder: Path, storage: str | None, identity: Mapping[str, Any], *, is_parallel: bool) -> optuna.Study:
    """Open the study of a folder, or begin it.

    Args:
        folder: It has a folder `trials`.
        storage: URL of an Optuna storage; None for a SQLite file in the folder.
        identity: Settings that must not change between calls, as plain data.
        is_parallel: Whether several trials are under way at a time.

    Raises:
        MissingDependencyError: If Optuna is not installed.
        StudyError: If the storage cannot be opened, or the study was begun with other settings.
    """
    with MissingDependencyError.named():
        import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage or f"sqlite:///{folder.resolve() / 'study.db'}"
    # A continued search must not repeat its first proposals, so the seed depends on the number of trials.
    seed = len(list((folder / "trials").iterdir()))
    try:
        study = optuna.create_study(
            storage=url,
            study_name=folder.resolve().name or "study",
            directions=[*DIRECTIONS.values()],
            # A running trial counts as poor, so that simultaneous proposals differ.
            sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=is_parallel),
            load_if_exists=True,
        )
        before = study.user_attrs.get("identity")
        for finding in findings_of(study):  # a damaged storage is found before a trial is trained
            _ = [float(getattr(finding.measured, name)) for name in DIRECTIONS], dict(finding.point)
        if before is None:
            study.set_user_attr("identity", dict(identity))
    except Exception as error:  # SQLAlchemy's and every driver's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"{url}: cannot be opened as an Optuna storage ({reason[:200]})") from None
    wanted = json.loads(json.dumps(identity))
    if before is not None and before != wanted:
        known = before if isinstance(before, dict) else {}
        changed = sorted(key for key in wanted if known.get(key) != wanted[key])
        raise StudyError(
            f"{folder}: expected the study that was begun here, got another {', '.join(changed)}:"
            " use the same settings, or another folder"
        )
    return study


def distributions_of(space: Space, seeds: int) -> dict[str, Any]:
    """Describe a space to Optuna; only a grid may train points several times."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, axis in space.dimensions.items():
        if not isinstance(axis, Range) or space.sampler == "grid":
            values = axis if not isinstance(axis, Range) else tuple({point[name]: None for point in space.grid()})
            found[name] = CategoricalDistribution(values)
        elif isinstance(axis.low, int):
            found[name] = IntDistribution(axis.low, int(axis.high), step=int(axis.step or 1))
        else:
            found[name] = FloatDistribution(axis.low, axis.high, step=axis.step)
    if seeds > 1:
        if space.sampler != "grid":
            raise StudyError("expected one seed in a search, got several: train the front again with a grid instead")
        found[SEED] = CategoricalDistribution(tuple(range(seeds)))
    return found


def revive(study: optuna.Study, folder: Path, parameters: set[str], reporter: Reporter) -> None:
    """Queue again this folder's trials (not other machines') that were under way when its last process ended."""
    from optuna.trial import TrialState

    waiting = [trial.user_attrs.get("revives") for trial in study.get_trials(states=(TrialState.WAITING,))]
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("folder") not in (None, process_id(folder)):
            continue
        if trial.number not in waiting and set(trial.params) == parameters:
            study.enqueue_trial(trial.params, user_attrs={"revives": trial.number, "point": trial.params})
            reporter.say(f"trial {trial.number} was interrupted; it continues")
        study.tell(trial.number, state=TrialState.FAIL)


def queue_points(study: optuna.Study, points: Sequence[Mapping[str, Value]]) -> None:
    """Queue the points of a grid that are neither queued nor tried."""
    from optuna.trial import TrialState

    known = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.FAIL or "error" in trial.user_attrs:
            known.append(trial.user_attrs.get("point") if trial.state == TrialState.WAITING else trial.params)
    for point in points:
        if point not in known:
            study.enqueue_trial(dict(point), user_attrs={"point": dict(point)})


def has_waiting(study: optuna.Study) -> bool:
    """Whether a queued trial has not begun."""
    return any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False))


def n_done(study: optuna.Study) -> int:
    """Count the trials that were trained, with or without success."""
    return sum(
        trial.state.name == "COMPLETE" or "error" in trial.user_attrs for trial in study.get_trials(deepcopy=False)
    )


def process_id(folder: Path) -> str:
    """Name the machine and the folder that a trial is under way in."""
    return f"{platform.node()}:{folder.resolve()}"
