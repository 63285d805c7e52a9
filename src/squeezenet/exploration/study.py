"""Exploring architectures: trials in a study that can be interrupted at any time.

The folder of a study holds:

    study.db        all trials
    trials/ID/      a trial: run folder, net.sqz, measured.json
    winner-N/       the winner, trial N, trained again
    report.html     the report
    study.json      the same figures as JSON
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpecError, StudyError
from ..files import lock_folder
from ..progress import Reporter, reporter_of
from ..spec import ArchSpec
from ..training import Recipe, load_recipe
from ..training.setup import Data, TrainingData, choose_recipe, prepare_data
from ..training.state import data_fingerprint
from .findings import DIRECTIONS, Finding, StudyResult, findings_of, pareto_front
from .measure import Interrupted, Measured, TooFarBehind, spec_cost
from .progress import Table
from .report import write_report
from .space import Space, Value, load_space
from .storage import SEED, distributions_of, has_waiting, n_done, open_study, process_id, queue_points, revive
from .trials import Job, Outcome, Trials, Watch, open_trials

if TYPE_CHECKING:
    import optuna

__all__ = ["explore"]

DEFAULT_TRIALS = 30
_MAX_REFUSED_IN_A_ROW = 200
_MAX_CORNERS = 4096  # about four seconds
# Well below int8 files (6.8 bits per parameter for ImageNet's 1.1): a network that would need fewer is not trained.
_FEWEST_BITS_PER_PARAM = 4


def explore(
    data: Data, val: Data | None = None, *, study_dir: str | os.PathLike[str],
    space: Space | str | os.PathLike[str] = "pareto", recipe: Recipe | str | os.PathLike[str] | None = None,
    trials: int | None = None, epochs: int | None = None, seeds: int = 1, max_bytes: int | None = None,
    max_macs: int | None = None, max_ram: int | None = None, storage: str | None = None, retrain: bool = True,
    ray: str | None = None, progress: Reporter | bool = True,
) -> StudyResult:  # fmt: skip
    """Train and measure many architectures and find the best; an interrupted call continues if it is repeated.

    Args:
        data: Images in class folders, as for `train`.
        val: Images to validate on and to choose the best network by; by default as for `train`.
        study_dir: Folder of the study; created if it does not exist, continued if it does.
        space: The architectures to try: a `Space`, its name, or its file.
        recipe: How to train every network; by default a recipe that suits the data.
        trials: Total number of networks to train, including those of earlier calls; by default the whole grid, or 30.
        epochs: Number of epochs of each trial; by default the recipe's. The winner is always trained for the recipe's.
        seeds: Number of times that each point of a grid is trained.
        max_bytes: Largest file in int8, bytes.
        max_macs: Largest number of multiply-accumulates per image.
        max_ram: Largest RAM on a microcontroller, with weights in flash memory, bytes.
        storage: URL of an Optuna storage; by default a SQLite file in the folder.
        retrain: Train the winner again, with another seed and all epochs.
        ray: Address of a Ray cluster that can reach `data` and `study_dir`, or `local` for one trial per core here.
        progress: A reporter; `True` for one on standard error, `False` for silence.

    Raises:
        StudyError: If the folder contains another study or is in use, or if no network meets the limits.
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or impossible.
        ClusterError: If the cluster cannot be reached or fails.

    Example:
        >>> import tempfile
        >>> space = Space(sampler="grid", fixed={"incr_e": 8, "n_fires": 2}, dimensions={"base_e": (8, 16)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = explore("digits", study_dir=folder, space=space, epochs=1, retrain=False, progress=False)
        >>> [finding.point for finding in result.findings]
        [{'base_e': 8}, {'base_e': 16}]
    """
    reporter, given = reporter_of(progress), None if recipe is None else load_recipe(recipe)
    folder, chosen = Path(study_dir), space if isinstance(space, Space) else load_space(space)
    prepared = prepare_data(data, val, reporter)
    settings = given or choose_recipe(prepared, has_init=False, reporter=reporter)
    _check_limits(chosen, settings, len(prepared.train.classes), max_bytes, max_macs, max_ram)
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be made a study folder ({error.strerror})") from None
    with lock_folder(folder, StudyError):
        identity = {
            "space": chosen.to_dict(), "recipe": settings.to_dict(), "epochs": epochs, "seeds": seeds,
            "max_bytes": max_bytes, "max_macs": max_macs, "max_ram": max_ram, "data": data_fingerprint(prepared.images),
        }  # fmt: skip
        study = open_study(folder, storage, identity, is_parallel=ray is not None)
        with open_trials(ray, prepared, reporter) as carrying_out:
            return _Explorer(
                study=study, folder=folder, space=chosen, recipe=settings, prepared=prepared, epochs=epochs,
                seeds=seeds, max_bytes=max_bytes, max_macs=max_macs, max_ram=max_ram, reporter=reporter,
            ).run(carrying_out, trials, retrain=retrain)  # fmt: skip


def _check_limits(
    space: Space, recipe: Recipe, n_classes: int, max_bytes: int | None, max_macs: int | None, max_ram: int | None
) -> None:
    """Check that some network of a space can meet the limits, before there is a study."""
    if (max_bytes, max_macs, max_ram) == (None, None, None):
        return
    points, costs = list(itertools.islice(space.corners(), _MAX_CORNERS + 1)), list[dict[str, int]]()
    for point in points if len(points) <= _MAX_CORNERS else ():
        with contextlib.suppress(SpecError):
            costs.append(spec_cost(space.spec(point, recipe, n_classes)))
    for limit, unit, counts in (
        (max_bytes, "bytes", [_least_bytes(cost) for cost in costs]),
        (max_macs, "multiply-accumulates", [cost["macs"] for cost in costs]),
        (max_ram, "bytes of RAM", [cost["ram_bytes"] for cost in costs]),
    ):
        if limit is not None and counts and min(counts) > limit:
            raise StudyError(
                f"expected a limit that a network of the space {space.name} meets, got {limit:,} {unit}:"
                f" the smallest takes {min(counts):,} {unit}"
            )


def _least_bytes(cost: Mapping[str, int]) -> int:
    return cost["params"] * _FEWEST_BITS_PER_PARAM // 8


@dataclass
class _Explorer:
    """A study under way."""

    study: optuna.Study
    folder: Path
    space: Space
    recipe: Recipe
    prepared: TrainingData
    epochs: int | None
    seeds: int
    max_bytes: int | None
    max_macs: int | None
    max_ram: int | None
    reporter: Reporter

    def __post_init__(self) -> None:
        self.distributions = distributions_of(self.space, self.seeds)
        self.under_way: dict[int, tuple[optuna.Trial, Job]] = {}
        points = list(self.space.grid()) if self.space.sampler == "grid" else []
        seeds = range(self.seeds)
        self.grid = [{**point, SEED: seed} if self.seeds > 1 else point for seed in seeds for point in points]

    def run(self, carrying_out: Trials, n_trials: int | None, *, retrain: bool) -> StudyResult:
        total = min(n_trials or len(self.grid), len(self.grid)) if self.grid else n_trials or DEFAULT_TRIALS
        revive(self.study, self.folder, set(self.distributions), self.reporter)
        queue_points(self.study, self.grid)
        table = Table(self.reporter, total)
        for finding in findings_of(self.study):
            table.show(finding, self._is_feasible(finding))
        is_finished, retrained = True, None
        try:
            is_exhausted = False
            while True:
                while not is_exhausted and self._has_room(carrying_out, total):
                    is_exhausted = not self._begin_trial(carrying_out, total)
                if not self.under_way:
                    break
                number, outcome = carrying_out.next_outcome()
                self._record(number, outcome, table, total)
            if not any(self._is_feasible(finding) for finding in findings_of(self.study)):
                raise StudyError(
                    f"no network met the limits in {len(self.study.trials)} trials:"
                    " raise the limits on bytes, MACs and RAM, or widen the space"
                )
            winner = self._winner()
            if retrain and winner is not None:
                retrained = self._retrain(carrying_out, winner)
        except Interrupted:
            is_finished = False
            self.reporter.say(f"stopped by a signal; everything is saved: repeat the command to continue {self.folder}")
        return self._report(retrained, is_finished=is_finished)

    def _has_room(self, carrying_out: Trials, total: int) -> bool:
        is_wanted = n_done(self.study) + len(self.under_way) < total and (not self.grid or has_waiting(self.study))
        return is_wanted and len(self.under_way) < carrying_out.capacity

    def _begin_trial(self, carrying_out: Trials, total: int) -> bool:
        """Ask for proposals until one is worth training; false after too many that are not."""
        for _ in range(_MAX_REFUSED_IN_A_ROW):
            trial = self.study.ask(self.distributions)
            reason = self._refusal(trial)
            if reason is None:
                job = self._job(trial, f"trial {n_done(self.study) + len(self.under_way) + 1}/{total}")
                self.under_way[trial.number] = trial, job
                carrying_out.submit(trial.number, job)
                return True
            self.reporter.say(f"trial {trial.number} not trained: {reason}")
            if self.grid and not has_waiting(self.study):
                return False
        self.reporter.say(f"the search ends: {_MAX_REFUSED_IN_A_ROW} proposals in a row were rejected before training")
        return False

    def _refusal(self, trial: optuna.Trial) -> str | None:
        """Return why a proposal is not worth training, and take it out of the study; None if it is."""
        from optuna.trial import TrialState

        trial.set_user_attr("folder", process_id(self.folder))
        try:
            spec = self._spec(trial.params)
        except SpecError as error:
            reason: str | None = str(error)
        else:
            trial.set_user_attr("spec", spec.to_dict())
            reason = self._over_limits(trial, spec) or self._known_as(trial, spec)
        if reason is not None:
            trial.set_user_attr("refused", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        return reason

    def _over_limits(self, trial: optuna.Trial, spec: ArchSpec) -> str | None:
        cost = spec_cost(spec)
        least_bytes = _least_bytes(cost)
        if self.max_macs is not None:
            trial.set_constraint("macs", float(cost["macs"] - self.max_macs))
        if self.max_ram is not None:
            trial.set_constraint("ram_bytes", float(cost["ram_bytes"] - self.max_ram))
        if self.max_bytes is not None and least_bytes > self.max_bytes:
            # A constraint is set once: here from the counts, or from the file when it exists.
            trial.set_constraint("file_bytes", float(least_bytes - self.max_bytes))
            return f"{cost['params']:,} parameters cannot fit {self.max_bytes:,} bytes"
        if self.max_macs is not None and cost["macs"] > self.max_macs:
            return f"{cost['macs']:,} MACs, more than {self.max_macs:,}"
        if self.max_ram is not None and cost["ram_bytes"] > self.max_ram:
            return f"{cost['ram_bytes']:,} bytes of RAM, more than {self.max_ram:,}"
        return None

    def _known_as(self, trial: optuna.Trial, spec: ArchSpec) -> str | None:
        # Two specs are the same network if they differ only in name.
        wanted = _bare(spec), trial.params.get(SEED)
        others = [(f"{n}, which is under way", job.spec, t.params) for n, (t, job) in self.under_way.items()]
        others += [(str(f.number), f.spec, dict(f.point)) for f in findings_of(self.study)]
        alike = (name for name, other, params in others if (_bare(other), params.get(SEED)) == wanted)
        return next((f"the same network as trial {name}" for name in alike), None)

    def _job(self, trial: optuna.Trial, title: str) -> Job:
        spec = self._spec(trial.params)
        seed = self.recipe.seed + int(trial.params.get(SEED, 0))
        identity = json.dumps([_bare(spec), seed], sort_keys=True)
        folder = self.folder.absolute() / "trials" / hashlib.sha256(identity.encode()).hexdigest()[:12]
        trial.set_user_attr("trial_folder", folder.name)
        return Job(
            title=title, spec=spec, recipe=self.recipe.replace(seed=seed), folder=folder, epochs=self.epochs,
            watch=None if self.grid else self._watch(spec),
        )  # fmt: skip

    def _record(self, number: int, outcome: Outcome, table: Table, total: int) -> None:
        """Report a trial's outcome to the study.

        Raises:
            Interrupted: If that is the outcome; the trial stays under way for the next process.
            StudyError: If no trial can be carried out there.
        """
        from optuna.trial import TrialState

        if isinstance(outcome, (Interrupted, StudyError)):
            raise outcome
        trial, job = self.under_way.pop(number)
        if isinstance(outcome, Exception):
            is_behind = isinstance(outcome, TooFarBehind)
            trial.set_user_attr("error", str(outcome))
            self.study.tell(trial, state=TrialState.PRUNED if is_behind else TrialState.FAIL)
            self.reporter.say(f"trial {number} {'ended early' if is_behind else 'failed'}: {outcome}")
            return
        trial.set_user_attr("measured", outcome.to_dict())
        if self.max_bytes is not None:
            trial.set_constraint("file_bytes", float(outcome.file_bytes - self.max_bytes))
        self.study.tell(trial, [float(getattr(outcome, name)) for name in DIRECTIONS])
        finding = Finding(number=number, point=trial.params, spec=job.spec, measured=outcome, folder=job.folder.name)
        table.show(finding, self._is_feasible(finding), left_s=self._seconds_left(total))

    def _watch(self, spec: ArchSpec) -> Watch:
        cost = spec_cost(spec).items()
        measured = [finding.measured for finding in findings_of(self.study)]
        rivals = [m.top1_by_epoch for m in measured if all(getattr(m, name) <= count for name, count in cost)]
        return Watch(tuple(rivals), self.epochs or self.recipe.epochs)

    def _seconds_left(self, total: int) -> float:
        """Estimate the time left, from the time per trial, or per multiply-accumulate in a grid."""
        findings = findings_of(self.study)
        if not self.grid:
            return sum(f.measured.seconds for f in findings) / len(findings) * (total - len(findings))
        done = [f.point for f in findings]
        left = [point for point in self.grid[:total] if point not in done]
        macs = sum(spec_cost(self._spec(point))["macs"] for point in left)
        return macs * sum(f.measured.seconds for f in findings) / sum(f.measured.macs for f in findings)

    def _spec(self, params: Mapping[str, Value]) -> ArchSpec:
        point = {key: value for key, value in params.items() if key != SEED}
        return self.space.spec(point, self.recipe, len(self.prepared.train.classes))

    def _is_feasible(self, finding: Finding) -> bool:
        m = finding.measured
        limits = ((m.file_bytes, self.max_bytes), (m.macs, self.max_macs), (m.ram_bytes, self.max_ram))
        return all(limit is None or count <= limit for count, limit in limits)

    def _winner(self) -> Finding | None:
        feasible = [f for f in findings_of(self.study) if self._is_feasible(f)]

        def mean_top1(finding: Finding) -> float:
            # The mean over seeds, if there are several: a good result of one seed may be luck.
            alike = [f.measured.top1 for f in feasible if {**f.point, SEED: 0} == {**finding.point, SEED: 0}]
            return sum(alike) / len(alike)

        return max(feasible, key=lambda f: (mean_top1(f), f.measured.top1, -f.measured.file_bytes), default=None)

    def _retrain(self, carrying_out: Trials, winner: Finding) -> Measured:
        self.reporter.say(f"training the winner, trial {winner.number}, again: another seed, all epochs of the recipe")
        job = Job(
            title="winner", spec=winner.spec, recipe=self.recipe.replace(seed=self.recipe.seed + 1000),
            folder=self.folder.absolute() / f"winner-{winner.number}", keep_checkpoint=True,
        )  # fmt: skip
        carrying_out.submit(winner.number, job)
        _, outcome = carrying_out.next_outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _report(self, retrained: Measured | None, *, is_finished: bool) -> StudyResult:
        findings = findings_of(self.study)
        feasible = [f for f in findings if self._is_feasible(f)]
        result = StudyResult(
            folder=self.folder, findings=tuple(findings), front=pareto_front(feasible), winner=self._winner(),
            retrained=retrained, is_finished=is_finished,
        )  # fmt: skip
        if findings:
            write_report(
                result, self.study, space=self.space, recipe=self.recipe, epochs=self.epochs or self.recipe.epochs,
                max_bytes=self.max_bytes, max_macs=self.max_macs, max_ram=self.max_ram,
                data_name=self.prepared.train.name.rsplit("/", 1)[-1],
            )  # fmt: skip
            self.reporter.say(f"report: {self.folder / 'report.html'}")
        return result


def _bare(spec: ArchSpec) -> dict[str, Any]:
    # Converted through JSON, so that lists and tuples compare as equal.
    data: dict[str, Any] = json.loads(json.dumps(spec.replace(name="").to_dict()))
    return data
