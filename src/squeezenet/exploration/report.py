"""The report of a study: one HTML file that needs nothing else, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..files import atomic_write
from ..reports.pages import render
from ..training import Recipe
from .findings import Finding, StudyResult
from .plots import curve_chart, front_chart
from .space import Space, Value

if TYPE_CHECKING:
    import optuna

__all__ = ["write_report"]

_TITLES = {
    "squeeze_ratio": "Squeeze ratio", "pct_3x3": "Share of 3x3 filters", "bypass": "Bypass", "input_size": "Input size",
    "pools": "Where the network pools", "squeeze_relu": "ReLU after the squeeze layers",
}  # fmt: skip
_LABELS = {
    "squeeze_ratio": "squeeze ratio: squeeze filters over expand filters",
    "pct_3x3": "share of 3x3 filters among the expand filters",
    "pools": "layers that a pool follows",
}
_FEWEST_FOR_IMPORTANCE = 8


def write_report(
    result: StudyResult, study: optuna.Study, *, space: Space, recipe: Recipe, epochs: int, max_bytes: int | None,
    max_macs: int | None, max_ram: int | None, data_name: str,
) -> None:  # fmt: skip
    """Write `report.html` and `study.json` into the folder of a study with at least one finding.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
    """
    names = [*space.dimensions, *(["seed"] if any("seed" in f.point for f in result.findings) else [])]
    facts: dict[str, Any] = {
        "space": space.to_dict(), "recipe": recipe.to_dict(), "epochs": epochs, "data": data_name,
        "max_bytes": max_bytes, "max_macs": max_macs, "max_ram": max_ram, **_outcome(result, study),
        "importance": _importance(study, space) if len(result.findings) >= _FEWEST_FOR_IMPORTANCE else {},
    }  # fmt: skip
    curves = [
        (_TITLES.get(name, name), curve_chart(name, groups, _LABELS.get(name, name)))
        for name, groups in _curves(result.findings, space).items()
    ]
    page = render(
        "study.html", result=result, facts=facts, names=names, space=space, recipe=recipe, curves=curves,
        front_chart=front_chart(result.findings, result.front, result.winner, max_bytes=max_bytes),
        specs={f.number: json.dumps(f.spec.to_dict(), indent=1) for f in result.findings},
    )  # fmt: skip
    for name, text in (("study.json", json.dumps(facts, indent=1)), ("report.html", page)):
        with atomic_write(result.folder / name) as stream:
            stream.write(text.encode())


def _outcome(result: StudyResult, study: optuna.Study) -> dict[str, Any]:
    failed = [
        {"number": trial.number, "reason": reason}
        for trial in study.get_trials(deepcopy=False)
        if (reason := trial.user_attrs.get("error") or trial.user_attrs.get("refused"))
    ]
    return {
        "is_finished": result.is_finished,
        "trials": [
            {"number": f.number, "folder": f"trials/{f.folder}", "point": dict(f.point), "spec": f.spec.to_dict(),
             **f.measured.to_dict()}
            for f in result.findings
        ],
        "not_trained": failed,
        "front": [finding.number for finding in result.front],
        "winner": result.winner.number if result.winner else None,
        "retrained": result.retrained.to_dict() if result.retrained else None,
    }  # fmt: skip


def _curves(findings: Sequence[Finding], space: Space) -> dict[str, dict[Value, list[Finding]]]:
    """Findings of a grid along each metaparameter that alone varies, by its value in the order of the space."""
    if space.sampler != "grid" or len(space.dimensions) != 1:
        return {}
    (name,) = space.dimensions
    groups: dict[Value, list[Finding]] = {point[name]: [] for point in space.grid()}
    for finding in findings:
        groups[finding.point[name]].append(finding)
    found = {value: group for value, group in groups.items() if group}
    return {name: found} if len(found) > 1 else {}


def _importance(study: optuna.Study, space: Space) -> dict[str, float]:
    """Shares of top-1's variance, by fANOVA; nothing where only one metaparameter or no accuracy varies."""
    import optuna

    completed = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(space.dimensions) < 2 or len({trial.values[0] for trial in completed}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, target=lambda trial: trial.values[0], evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}
