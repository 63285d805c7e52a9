"""Studies on a handful of tiny images: finished, refused, cut off and continued."""

import contextlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from squeezenet.cli import cli
from squeezenet.data import open_data
from squeezenet.errors import StudyError
from squeezenet.exploration import Finding, Space, explore
from squeezenet.exploration import study as study_module
from squeezenet.exploration.measure import Measured, TooFarBehind, measure_spec, spec_cost
from squeezenet.exploration.trials import Job, TrialsHere
from squeezenet.progress import PlainReporter, SilentReporter
from squeezenet.training import EpochRow
from squeezenet.training.setup import prepare_data
from training_runs import TINY, write_images

ROOT = Path(__file__).parents[1]
SMALL = {"base_e": 8, "incr_e": 0, "n_fires": 2, "stem_channels": 8}
GRID = Space.from_dict({"sampler": "grid", "fixed": SMALL, "space": {"squeeze_ratio": [0.125, 0.25, 0.5]}})
SEARCH = {"squeeze_ratio": [0.125, 0.25, 0.5], "pct_3x3": [0.25, 0.5], "base_e": {"low": 8, "high": 16, "step": 4}}
RECIPE = TINY.replace(epochs=1, warmup_epochs=0, pools=(1,))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def run(images, folder, space=GRID, **options):
    return explore(str(images), study_dir=folder, space=space, **{"recipe": RECIPE, "progress": False, **options})


@pytest.fixture(scope="module")
def study(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return run(images, folder), folder


def test_grid_is_trained_in_order(study):
    result, _ = study
    assert [finding.point for finding in result.findings] == [{"squeeze_ratio": ratio} for ratio in (0.125, 0.25, 0.5)]
    assert [finding.spec.fires[0].squeeze_channels for finding in result.findings] == [1, 2, 4]


def test_figures_are_those_of_the_file(study):
    result, folder = study
    written = {path.stat().st_size for path in folder.glob("trials/*/net.sqz")}
    assert {finding.measured.file_bytes for finding in result.findings} == written


def test_winner_is_trained_again_into_a_run_folder(study):
    result, folder = study
    assert result.retrained is not None
    run_dir = folder / f"winner-{result.winner.number}" / "run"
    assert {path.name for path in run_dir.iterdir()} >= {"best.safetensors", "run.json", "recipe.toml", "log.csv"}


def test_report_is_one_page_with_every_trial(study):
    _, folder = study
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 2
    assert page.count("<summary>trial") == 3
    assert not any(word in page for word in ("<script", "<link", "url(http", 'src="'))
    assert [row["point"]["squeeze_ratio"] for row in json.loads((folder / "study.json").read_text())["trials"]] == [
        0.125, 0.25, 0.5,
    ]  # fmt: skip


def test_finished_study_trains_nothing_again(study, images):
    before, folder = study
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/net.sqz")}
    again = run(images, folder)
    assert [finding.measured for finding in again.findings] == [finding.measured for finding in before.findings]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/net.sqz")} == stamps


def test_other_settings_are_refused(study, images):
    with pytest.raises(StudyError, match="expected the study that was begun here, got another epochs"):
        run(images, study[1], epochs=2)


def test_names_in_the_report_are_escaped(images, tmp_path):
    space = Space.from_dict({"sampler": "grid", "name": "<b>", "fixed": SMALL, "space": {"freq": [1]}})
    run(images, tmp_path, space, retrain=False)
    assert "<b>" not in (tmp_path / "report.html").read_text()


def test_search_refuses_by_counts_before_training(images, tmp_path):
    space = Space.from_dict({"fixed": {"n_fires": 2}, "space": SEARCH})
    result = run(images, tmp_path, space, trials=3, max_macs=117_000, max_bytes=100_000, retrain=False)
    facts = json.loads((tmp_path / "study.json").read_text())
    assert all(finding.measured.macs <= 117_000 for finding in result.findings)
    assert len(result.findings) == 3
    assert len(list((tmp_path / "trials").iterdir())) == 3
    assert facts["not_trained"]
    assert all("MACs, more than 117,000" in t["reason"] or "same network" in t["reason"] for t in facts["not_trained"])


def test_memory_of_a_chip_is_a_limit(images, tmp_path):
    space = Space.from_dict(
        {"sampler": "grid", "fixed": {k: v for k, v in SMALL.items() if k != "base_e"}, "space": {"base_e": [8, 64]}}
    )
    result = run(images, tmp_path / "all", space, retrain=False)
    small, large = sorted(finding.measured.ram_bytes for finding in result.findings)
    assert small < large
    limited = run(images, tmp_path / "limited", space, max_ram=large - 1, retrain=False)
    assert [finding.measured.ram_bytes for finding in limited.findings] == [small]
    facts = json.loads((tmp_path / "limited" / "study.json").read_text())
    assert [trial["reason"] for trial in facts["not_trained"]] == [f"{large:,} bytes of RAM, more than {large - 1:,}"]


def test_limits_that_nothing_meets_are_one_error(images, tmp_path):
    with pytest.raises(StudyError, match="no network met the limits in 3 trials"):
        run(images, tmp_path, max_bytes=200)


@pytest.mark.parametrize("sampler", ["grid", "pareto"])
@pytest.mark.parametrize(
    ("option", "unit"), [("max_bytes", "bytes"), ("max_macs", "multiply-accumulates"), ("max_ram", "bytes of RAM")]
)
def test_limits_that_nothing_can_meet_are_refused_before_there_is_a_study(images, tmp_path, sampler, option, unit):
    space = Space.from_dict({"name": "mine", "sampler": sampler, "fixed": {"n_fires": 2}, "space": SEARCH})
    shown = f"network of the space mine meets, got 1 {unit}: the smallest takes [0-9,]+ {unit}"
    with pytest.raises(StudyError, match=shown):
        run(images, tmp_path / "study", space, **{option: 1})
    assert not (tmp_path / "study").exists()


def test_study_in_use_is_refused(images, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(StudyError, match="another process is using this folder"):
            run(images, tmp_path)


def test_storage_that_cannot_be_opened_is_one_line(images, tmp_path):
    with pytest.raises(StudyError, match="cannot be opened as an Optuna storage") as caught:
        run(images, tmp_path, storage="nothing://nowhere")
    assert "\n" not in str(caught.value)


def test_preset_that_does_not_exist_is_one_line(images, tmp_path):
    result = CliRunner().invoke(cli, ["explore", str(images), "--preset", "paper", "-o", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output.startswith("Error: expected one of late-downsampling, paper-bypass, ")


def test_killed_study_continues_without_loss_or_repetition(tmp_path):
    folder = tmp_path / "study"
    recipe = tmp_path / "short.toml"
    recipe.write_text('epochs = 4\nlr = 0.02\ninput_size = 8\npools = [1]\nbatch_size = 16\nprecision = "float32"\n')
    space = tmp_path / "space.toml"
    fixed = "\n".join(f"{key} = {value}" for key, value in SMALL.items())
    space.write_text(f'sampler = "grid"\n[fixed]\n{fixed}\n[space]\nsqueeze_ratio = [0.125, 0.25, 0.5]\n')
    command = [sys.executable, "-m", "squeezenet", "explore", "digits", "--space", str(space), "--recipe", str(recipe),
               "--no-retrain", "-o", str(folder)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(folder.glob("trials/*/run/checkpoint.pt"))) < 1 or not list(folder.glob("trials/*/measured.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # the second trial has finished an epoch
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/measured.json")}
    cut_off = next(folder.glob("trials/*/run/checkpoint.pt")).parent
    first_row = (cut_off / "log.csv").read_text().splitlines()[:2] if (cut_off / "log.csv").exists() else None
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    facts = json.loads((folder / "study.json").read_text())
    assert sorted(row["point"]["squeeze_ratio"] for row in facts["trials"]) == [0.125, 0.25, 0.5]
    assert len(list(folder.glob("trials/*"))) == 3
    if first_row is not None:  # the epochs done before are not done again: their times stand as they were
        assert (cut_off / "log.csv").read_text().splitlines()[:2] == first_row


def watch_beside_a_rival(folder, monkeypatch, extra_macs):
    """What watches a network whose only rival had 40, 60, 70 and 80 % and cost so many MACs more."""
    space = Space.from_dict({"fixed": SMALL, "space": {"squeeze_ratio": [0.125, 0.5]}})
    recipe = RECIPE.replace(epochs=4)
    spec = space.spec({"squeeze_ratio": 0.5}, recipe, 3)
    cost = spec_cost(spec)
    cost["macs"] += extra_macs
    measured = Measured(
        **cost, file_bytes=1, float_top1=80, top1=80, top5=100, top1_interval=(70, 90), n_images=9, seconds=1,
        top1_by_epoch=(40, 60, 70, 80),
    )  # fmt: skip
    rival = Finding(number=0, point={}, spec=spec, measured=measured, folder="a")
    monkeypatch.setattr(study_module, "findings_of", lambda _: [rival])
    explorer = study_module._Explorer(None, folder, space, recipe, None, None, 1, None, None, None, SilentReporter())
    return explorer._watch(spec)


def row(epoch, top1):
    return EpochRow(
        epoch=epoch, train_loss=1.0, val_loss=1.0, top1=top1, top5=100.0, lr=0.1, img_per_s=1.0, seconds=1.0
    )


def test_network_far_behind_a_cheaper_one_is_stopped(tmp_path, monkeypatch):
    watch = watch_beside_a_rival(tmp_path, monkeypatch, extra_macs=0)
    watch(row(1, 1.0))  # too early to tell
    watch(row(2, 50.0))
    watch(row(4, 1.0))  # trained to the end
    with pytest.raises(TooFarBehind, match=r"49.9 % after epoch 2, where a network that costs no more had 60.0 %"):
        watch(row(2, 49.9))


def test_network_behind_a_dearer_one_is_trained_on(tmp_path, monkeypatch):
    watch_beside_a_rival(tmp_path, monkeypatch, extra_macs=1)(row(3, 3.0))


def test_trial_far_behind_ends_after_its_epoch(images, tmp_path):
    seen = []

    def on_epoch(row):
        seen.append(row.epoch)
        if row.epoch == 2:
            raise TooFarBehind("enough")

    data = open_data(images)
    spec = Space.from_dict({"fixed": SMALL, "space": {"squeeze_ratio": [0.5]}}).spec({}, RECIPE, 3)
    with pytest.raises(TooFarBehind, match="enough"):
        measure_spec(spec, RECIPE.replace(epochs=4), data, data, tmp_path / "trial", on_epoch=on_epoch)
    assert seen == [1, 2]
    assert len((tmp_path / "trial/run/log.csv").read_text().splitlines()) == 3


def test_alarm_of_a_trial_is_shown_with_its_title(images, tmp_path):
    stream = io.StringIO()
    trials = TrialsHere(prepare_data(images, None, SilentReporter()), PlainReporter(stream))
    spec = Space.from_dict({"fixed": SMALL, "space": {"squeeze_ratio": [0.5]}}).spec({}, RECIPE, 3)
    # A learning rate of zero: the loss stays that of guessing.
    recipe = RECIPE.replace(epochs=60, lr=0.0, batch_size=16, warmup_epochs=0.0, early_stop_epochs=58)
    trials.submit(7, Job(title="trial 7", spec=spec, recipe=recipe, folder=tmp_path / "trial"))
    number, outcome = trials.next_outcome()
    assert (number, len(outcome.top1_by_epoch)) == (7, 59)
    assert outcome.alarms
    assert [line for line in stream.getvalue().splitlines() if line] == [f"trial 7: {text}" for text in outcome.alarms]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trial_user_attributes SET value_json = '{}' WHERE key = 'spec'",
        "UPDATE trial_user_attributes SET value_json = '[1' WHERE key = 'measured'",
        """UPDATE trial_user_attributes SET value_json = '{"params": 1}' WHERE key = 'measured'""",
        "UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'measured'",
        "DELETE FROM trial_user_attributes WHERE key = 'measured'",
        "UPDATE study_user_attributes SET value_json = '[]'",
        "UPDATE trial_params SET distribution_json = 'x'",
    ],
)
def test_damaged_study_is_one_line(images, study, tmp_path, change):
    copy = shutil.copytree(study[1], tmp_path / study[1].name)
    with contextlib.closing(sqlite3.connect(copy / "study.db")) as base, base:
        base.execute(change)
    with pytest.raises(StudyError) as caught:
        run(images, copy)
    assert "\n" not in str(caught.value)
