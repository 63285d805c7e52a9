"""Exploring architectures: trials in a study that can be cut off at any time.

The study lies in an Optuna storage, by default a SQLite file in its folder. A trial's figures enter it in one
transaction; a trial that was under way when the process ended begins again with the same parameters, and continues
from its own checkpoint.

    study.db        all trials
    trials/ID/      a trial: run folder, net.sqz, measured.json
    winner-N/       the winner, trial N, trained again
    report.html     what was found
    study.json      the same as data

Use this when you explore from Python; `squeezenet explore` is this function.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError, SpecError, StudyError
from ..files import lock_folder
from ..progress import Reporter, SilentReporter, reporter_for
from ..spec import ArchSpec
from ..training import Recipe, load_recipe
from ..training.setup import Data, TrainingData, choose_recipe, prepare_data
from ..training.state import data_fingerprint
from .findings import DIRECTIONS, Finding, StudyResult, findings_of, pareto_front
from .measure import Interrupted, Measured, TooFarBehind, epoch_top1, spec_cost
from .progress import Table
from .report import write_report
from .space import Range, Space, Value, load_space
from .trials import Job, Outcome, Trials, Watch, open_trials

if TYPE_CHECKING:
    import optuna

__all__ = ["explore"]

DEFAULT_TRIALS = 30
_MAX_REFUSED_IN_A_ROW = 200
# Well below what int8 files take (6.8 bits a parameter for ImageNet's 1.1): what would need fewer is never trained.
_FEWEST_BITS_PER_PARAM = 4
_SEED = "seed"


def explore(
    data: Data,
    val: Data | None = None,
    *,
    study_dir: str | os.PathLike[str],
    space: Space | str | os.PathLike[str] = "pareto",
    recipe: Recipe | str | os.PathLike[str] | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    seeds: int = 1,
    max_bytes: int | None = None,
    max_macs: int | None = None,
    storage: str | None = None,
    retrain: bool = True,
    ray: str | None = None,
    progress: Reporter | bool = True,
) -> StudyResult:
    """Train and measure many architectures, and find those worth having; continue where an earlier call was cut off.

    Args:
        data: Images in class folders, as for `train_model`.
        val: Images to choose by; by default as for `train_model`.
        study_dir: Folder of the study; made if it does not exist, continued if it does.
        space: What to vary: a `Space`, the name of one, or its file.
        recipe: How to train every network; by default what suits the data.
        trials: Networks to train in all, earlier calls included; by default the whole grid, or 30.
        epochs: Another number of epochs for the trials than the recipe's; the winner gets the recipe's.
        seeds: Times that each point of a grid is trained.
        max_bytes: Largest file in int8.
        max_macs: Most multiply-accumulates an image.
        storage: URL of an Optuna storage; by default a SQLite file in the folder.
        retrain: Train the winner again, with another seed and all epochs.
        ray: Address of a Ray cluster to train on, or `local` for one trial on each core of this machine; by default
            trials follow one another here. All machines must reach the data and the study's folder.
        progress: A reporter; `True` for one on standard error, `False` for silence.

    Raises:
        StudyError: If the folder holds another study, is in use, or no network meets the limits.
        DataError: If the images cannot be used.
        RecipeError: If the recipe is unknown or impossible.
        ClusterError: If the cluster cannot be reached or gives up.
    """
    reporter = (reporter_for() if progress else SilentReporter()) if isinstance(progress, bool) else progress
    chosen = space if isinstance(space, Space) else load_space(space)
    prepared = prepare_data(data, val, reporter)
    settings = _recipe(recipe, prepared, reporter)
    folder = Path(study_dir)
    try:
        (folder / "trials").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be made a study folder ({error.strerror})") from None
    with lock_folder(folder, StudyError):
        identity = {
            "space": chosen.to_dict(), "recipe": settings.to_dict(), "epochs": epochs, "seeds": seeds,
            "max_bytes": max_bytes, "max_macs": max_macs, "data": data_fingerprint(prepared.train),
        }  # fmt: skip
        study = _open_study(folder, storage, identity, is_parallel=ray is not None)
        explorer = _Explorer(study, folder, chosen, settings, prepared, epochs, seeds, max_bytes, max_macs, reporter)
        with open_trials(ray, prepared, reporter) as carrying_out:
            return explorer.run(carrying_out, trials, retrain=retrain)


class _Explorer:
    """A study under way."""

    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        space: Space,
        recipe: Recipe,
        prepared: TrainingData,
        epochs: int | None,
        seeds: int,
        max_bytes: int | None,
        max_macs: int | None,
        reporter: Reporter,
    ) -> None:
        self.study, self.folder, self.space, self.recipe, self.prepared = study, folder, space, recipe, prepared
        self.epochs, self.seeds, self.max_bytes, self.max_macs, self.reporter = (
            epochs,
            seeds,
            max_bytes,
            max_macs,
            reporter,
        )
        self.distributions = _distributions(space, seeds)
        self.under_way: dict[int, tuple[optuna.Trial, Job]] = {}
        self.grid: list[dict[str, Value]] = []
        if space.sampler == "grid":
            points = list(space.grid())
            self.grid = [{**point, _SEED: seed} if seeds > 1 else point for seed in range(seeds) for point in points]

    def run(self, carrying_out: Trials, n_trials: int | None, *, retrain: bool) -> StudyResult:
        total = min(n_trials or len(self.grid), len(self.grid)) if self.grid else n_trials or DEFAULT_TRIALS
        self._revive()
        self._queue_grid()
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
                    f"no network met the limits in {len(self.study.trials)} trials: raise --max-bytes or --max-macs,"
                    " or widen the space"
                )
            winner = self._winner()
            if retrain and winner is not None:
                retrained = self._retrain(carrying_out, winner)
        except Interrupted:
            is_finished = False
            self.reporter.say(f"stopped by a signal; everything is saved: the same command continues {self.folder}")
        return self._report(retrained, is_finished=is_finished)

    def _has_room(self, carrying_out: Trials, total: int) -> bool:
        is_wanted = self._n_done() + len(self.under_way) < total and (not self.grid or self._has_waiting())
        return is_wanted and len(self.under_way) < carrying_out.capacity

    def _begin_trial(self, carrying_out: Trials, total: int) -> bool:
        """Ask for proposals until one is worth training; false if there seems to be none."""
        for _ in range(_MAX_REFUSED_IN_A_ROW):
            trial = self.study.ask(self.distributions)
            reason = self._refusal(trial)
            if reason is None:
                job = self._job(trial, f"trial {self._n_done() + len(self.under_way) + 1}/{total}")
                self.under_way[trial.number] = trial, job
                carrying_out.submit(trial.number, job)
                return True
            self.reporter.say(f"trial {trial.number} not trained: {reason}")
            if self.grid and not self._has_waiting():
                return False
        self.reporter.say(f"{_MAX_REFUSED_IN_A_ROW} proposals in a row were not worth training: the search ends here")
        return False

    def _revive(self) -> None:
        """Queue again what this folder's last process was working on when it ended."""
        from optuna.trial import TrialState

        waiting = [trial.user_attrs.get("revives") for trial in self.study.get_trials(states=(TrialState.WAITING,))]
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("folder") not in (None, _identify(self.folder)):
                continue  # another machine's
            if trial.number not in waiting and set(trial.params) == set(self.distributions):
                self.study.enqueue_trial(trial.params, user_attrs={"revives": trial.number, "point": trial.params})
                self.reporter.say(f"trial {trial.number} was cut off; it continues")
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _queue_grid(self) -> None:
        from optuna.trial import TrialState

        known = []
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state == TrialState.WAITING:
                known.append(trial.user_attrs.get("point"))
            elif trial.state != TrialState.FAIL or "error" in trial.user_attrs:
                known.append(trial.params)
        for point in self.grid:
            if point not in known:
                self.study.enqueue_trial(point, user_attrs={"point": point})

    def _has_waiting(self) -> bool:
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _n_done(self) -> int:
        from optuna.trial import TrialState

        return sum(
            trial.state == TrialState.COMPLETE or "error" in trial.user_attrs
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _refusal(self, trial: optuna.Trial) -> str | None:
        """Say why a proposal is not worth training, and take it out of the study; None if it is."""
        from optuna.trial import TrialState

        trial.set_user_attr("folder", _identify(self.folder))
        reason = None
        try:
            spec = self._spec(trial.params)
        except SpecError as error:
            reason = str(error)
        else:
            cost = spec_cost(spec)
            least_bytes = cost["params"] * _FEWEST_BITS_PER_PARAM // 8
            if self.max_macs is not None:
                trial.set_constraint("macs", float(cost["macs"] - self.max_macs))
            trial.set_user_attr("spec", spec.to_dict())
            if self.max_bytes is not None and least_bytes > self.max_bytes:
                # A constraint is set once: here from the counts, or from the file when there is one.
                trial.set_constraint("file_bytes", float(least_bytes - self.max_bytes))
                reason = f"{cost['params']:,} parameters cannot fit {self.max_bytes:,} bytes"
            elif self.max_macs is not None and cost["macs"] > self.max_macs:
                reason = f"{cost['macs']:,} MACs, more than {self.max_macs:,}"
            else:
                # Numbers of a spec, its name left out, tell networks apart.
                same = next((f for f in findings_of(self.study) if _bare(f.spec) == _bare(spec)
                             and f.point.get(_SEED) == trial.params.get(_SEED)), None)  # fmt: skip
                reason = f"the same network as trial {same.number}" if same else None
                for number, (other, job) in self.under_way.items():
                    if _bare(job.spec) == _bare(spec) and other.params.get(_SEED) == trial.params.get(_SEED):
                        reason = f"the same network as trial {number}, which is under way"
        if reason is not None:
            trial.set_user_attr("refused", reason)
            self.study.tell(trial, state=TrialState.PRUNED)
        return reason

    def _job(self, trial: optuna.Trial, title: str) -> Job:
        spec = self._spec(trial.params)
        seed = self.recipe.seed + int(trial.params.get(_SEED, 0))
        identity = json.dumps([_bare(spec), seed], sort_keys=True)
        folder = self.folder.absolute() / "trials" / hashlib.sha256(identity.encode()).hexdigest()[:12]
        trial.set_user_attr("trial_folder", folder.name)
        return Job(
            title=title, spec=spec, recipe=self.recipe.replace(seed=seed), folder=folder, epochs=self.epochs,
            watch=None if self.grid else self._watch(spec),
        )  # fmt: skip

    def _record(self, number: int, outcome: Outcome, table: Table, total: int) -> None:
        """Tell the study what came of a trial.

        Raises:
            Interrupted: If that is what came of it; the trial stays under way for the next process.
            StudyError: If no trial can be carried out there.
        """
        from optuna.trial import TrialState

        if isinstance(outcome, (Interrupted, StudyError)):
            raise outcome
        trial, job = self.under_way.pop(number)
        if isinstance(outcome, TooFarBehind):
            trial.set_user_attr("error", str(outcome))
            self.study.tell(trial, state=TrialState.PRUNED)
            self.reporter.say(f"trial {number} ended early: {outcome}")
            return
        if isinstance(outcome, Exception):
            trial.set_user_attr("error", str(outcome))
            self.study.tell(trial, state=TrialState.FAIL)
            self.reporter.say(f"trial {number} failed: {outcome}")
            return
        measured = outcome
        trial.set_user_attr("measured", measured.to_dict())
        if self.max_bytes is not None:
            trial.set_constraint("file_bytes", float(measured.file_bytes - self.max_bytes))
        self.study.tell(trial, [float(getattr(measured, name)) for name in DIRECTIONS])
        finding = Finding(number=number, point=trial.params, spec=job.spec, measured=measured, folder=job.folder.name)
        table.show(finding, self._is_feasible(finding), left_s=self._seconds_left(total))

    def _watch(self, spec: ArchSpec) -> Watch:
        cost = spec_cost(spec)
        rivals = tuple(
            tuple(epoch_top1(self.folder / "trials" / finding.folder / "run"))
            for finding in findings_of(self.study)
            if all(getattr(finding.measured, name) <= count for name, count in cost.items())
        )
        return Watch(rivals, self.epochs or self.recipe.epochs)

    def _seconds_left(self, total: int) -> float:
        """Expect what is left to cost as much a multiply-accumulate as what is done."""
        findings = findings_of(self.study)
        if not self.grid:
            return sum(f.measured.seconds for f in findings) / len(findings) * (total - len(findings))
        done = [f.point for f in findings]
        left = [point for point in self.grid[:total] if point not in done]
        macs = sum(spec_cost(self._spec(point))["macs"] for point in left)
        return macs * sum(f.measured.seconds for f in findings) / sum(f.measured.macs for f in findings)

    def _spec(self, params: Mapping[str, Value]) -> ArchSpec:
        point = {key: value for key, value in params.items() if key != _SEED}
        return self.space.spec(point, self.recipe, len(self.prepared.train.classes))

    def _is_feasible(self, finding: Finding) -> bool:
        measured = finding.measured
        return measured.file_bytes <= (self.max_bytes or measured.file_bytes) and measured.macs <= (
            self.max_macs or measured.macs
        )

    def _winner(self) -> Finding | None:
        feasible = [f for f in findings_of(self.study) if self._is_feasible(f)]

        def mean_top1(finding: Finding) -> float:
            # Over seeds where there are several: luck with one of them makes no better architecture.
            alike = [f.measured.top1 for f in feasible if _without_seed(f) == _without_seed(finding)]
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
            folder=self.folder,
            findings=tuple(findings),
            front=pareto_front(feasible),
            winner=self._winner(),
            retrained=retrained,
            is_finished=is_finished,
        )
        if findings:
            write_report(
                result,
                self.study,
                space=self.space,
                recipe=self.recipe,
                epochs=self.epochs or self.recipe.epochs,
                max_bytes=self.max_bytes,
                max_macs=self.max_macs,
                data_name=self.prepared.train.name.rsplit("/", 1)[-1],
            )
            self.reporter.say(f"report: {self.folder / 'report.html'}")
        return result


def _without_seed(finding: Finding) -> dict[str, Value]:
    return {key: value for key, value in finding.point.items() if key != _SEED}


def _bare(spec: ArchSpec) -> dict[str, Any]:
    # Through JSON, so that lists and tuples compare alike.
    data: dict[str, Any] = json.loads(json.dumps(spec.replace(name="").to_dict()))
    return data


def _recipe(recipe: Recipe | str | os.PathLike[str] | None, prepared: TrainingData, reporter: Reporter) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return load_recipe(recipe)
    name, reason = choose_recipe(prepared, has_init=False)
    reporter.say(f"recipe {name}: {reason}")
    return load_recipe(name)


def _distributions(space: Space, seeds: int) -> dict[str, Any]:
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
        found[_SEED] = CategoricalDistribution(tuple(range(seeds)))
    return found


def _open_study(folder: Path, storage: str | None, identity: Mapping[str, Any], *, is_parallel: bool) -> optuna.Study:
    try:
        import optuna
    except ImportError:
        raise MissingDependencyError("optuna", "explore") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = storage or f"sqlite:///{folder.resolve() / 'study.db'}"
    try:
        study = optuna.create_study(
            storage=url,
            study_name=folder.resolve().name or "study",
            directions=[*DIRECTIONS.values()],
            # What is under way counts as poor, so that several proposals at a time are not one and the same.
            sampler=optuna.samplers.TPESampler(seed=_next_seed(folder), multivariate=True, constant_liar=is_parallel),
            load_if_exists=True,
        )
        before = study.user_attrs.get("identity")
        if before is None:
            study.set_user_attr("identity", dict(identity))
    except Exception as error:  # SQLAlchemy's and every driver's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StudyError(f"{url}: cannot be opened as an Optuna storage ({reason})") from None
    wanted = json.loads(json.dumps(identity))
    if before is not None and before != wanted:
        changed = sorted(key for key in wanted if before.get(key) != wanted[key])
        raise StudyError(
            f"{folder}: expected the study that was begun here, got another {', '.join(changed)}:"
            " use the same settings, or another folder"
        )
    return study


def _next_seed(folder: Path) -> int:
    # A continued search must not propose again what it proposed first; what is already there moves the seed on.
    return len(list((folder / "trials").iterdir()))


def _identify(folder: Path) -> str:
    import platform

    return f"{platform.node()}:{folder.resolve()}"
