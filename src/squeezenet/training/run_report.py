"""The report and the model card of a run, and reading a run's log and facts back."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..classifier import Predictor
from ..data import ImageSet
from ..evaluation.predictor import Scores
from ..files import atomic_write
from ..reports.network_page import build_report, render_card, render_html
from .recipe import Recipe
from .run_folder import LOG_COLUMNS, RunFolder
from .setup import TrainingData

__all__ = ["run_facts", "run_history", "shown_facts", "write_run_report"]

_MAX_FILE_BYTES = 1 << 24


def run_history(run_dir: Path) -> list[dict[str, float]]:
    """Read the log of a run; empty if it is missing or unreadable."""
    try:
        rows = list(csv.DictReader(_text(run_dir / "log.csv").splitlines()))
        return [{name: float(row[name]) for name in LOG_COLUMNS} for row in rows]
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return []


def run_facts(run_dir: Path) -> dict[str, Any]:
    """Read the facts of a run; empty if they are missing or unreadable."""
    try:
        facts = json.loads(_text(run_dir / "run.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError("expected a file, got a folder or a device")
    with path.open(encoding="utf-8") as stream:
        return stream.read(_MAX_FILE_BYTES)


def _seconds(value: object) -> str | None:
    return f"{value:.0f} s" if isinstance(value, (int, float)) else None


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value  # as JSON returns it


def shown_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Choose the facts of a run that a report shows, in words."""
    recipe, data, hardware, versions = (
        part if isinstance(part := facts.get(key), dict) else {} for key in ("recipe", "data", "hardware", "versions")
    )
    usual = {field.name: _plain(field.default) for field in dataclasses.fields(Recipe)}
    changed = {key: value for key, value in recipe.items() if key not in ("name", "description")}
    shown = {
        "recipe": recipe.get("name"),
        "settings": ", ".join(f"{key} {value}" for key, value in changed.items() if value != usual.get(key)),
        "training images": data.get("n_train"),
        "epochs": facts.get("epochs_done"),
        "best epoch": facts.get("best_epoch"),
        "time in training steps": _seconds(facts.get("training_seconds", 0)),
        "total time": _seconds(facts.get("seconds", 0)),
        "steps undone": facts.get("skipped_steps"),
        "precision": facts.get("precision"),
        "machine": f"{hardware.get('machine')}, {facts.get('device')}, {facts.get('processes', 1)} processes of"
        f" {hardware.get('threads')} threads",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "command": facts.get("command"),
    }
    return [(name, str(value)) for name, value in shown.items() if value not in (None, "", [], {})]


def write_run_report(
    folder: RunFolder,
    prepared: TrainingData,
    alarms: Sequence[str],
    predictor: Predictor,
    val: ImageSet,
    scores: Scores,
) -> list[Path]:  # fmt: skip
    """Write `report.html` and `README.md` of a finished run.

    Args:
        folder: The run.
        prepared: The images, numbered as the network's classes.
        alarms: Warnings of the run.
        predictor: Its best network.
        val: Images that the network was measured on.
        scores: Its answers to them.

    Returns:
        The files written.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
        OSError: If they cannot be written.
    """
    report = build_report(
        predictor, val, scores, is_fitted=True, title=folder.path.resolve().name,
        subtitle=f"{predictor.spec.name}, {len(val.classes)} classes", history=run_history(folder.path),
        warnings=[*alarms, *prepared.check.summary()[1:]], train_counts=prepared.train.class_counts(),
        facts=shown_facts(run_facts(folder.path)),
    )  # fmt: skip
    files = {folder.path / "report.html": render_html(report), folder.path / "README.md": render_card(report)}
    for path, text in files.items():
        with atomic_write(path) as stream:
            stream.write(text.encode("utf-8", "backslashreplace"))
    return list(files)
