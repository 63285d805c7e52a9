import inspect
import io

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from squeezenet.cli import cli
from squeezenet.cli.train import command
from squeezenet.progress import PlainReporter, RichReporter, SilentReporter, reporter_for
from squeezenet.training import train_model
from training_runs import TINY, write_images


@pytest.fixture
def run_cli(monkeypatch):
    torch.set_num_threads(1)
    return lambda *args: CliRunner().invoke(cli, ["train", *map(str, args)])


def test_options_are_few_and_chosen():
    assert [parameter.name for parameter in command.params] == [
        "data", "val", "init", "recipe", "teacher", "epochs", "resume", "checkpoint_every", "tensorboard", "compiled",
        "output",
    ]  # fmt: skip


def test_defaults_are_those_of_the_function():
    (every,) = (parameter for parameter in command.params if parameter.name == "checkpoint_every")
    assert every.default == inspect.signature(train_model).parameters["checkpoint_every_s"].default


def test_train_writes_a_run_folder_and_can_be_resumed(tmp_path, run_cli):
    data = write_images(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(TINY.to_toml())
    arguments = (data, "--recipe", tmp_path / "tiny.toml", "--epochs", 1, "-o", tmp_path / "run")
    first = run_cli(*arguments)
    assert first.exit_code == 0, first.output
    assert "epoch 1/1: train loss" in first.output
    assert f"of 3 images: {tmp_path}/run/best.safetensors" in first.output
    again = run_cli(*arguments)
    assert again.exit_code == 1
    assert "Error: " in again.output
    assert "continue it with --resume" in again.output
    assert run_cli(*arguments, "--resume").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file or folder"),
        (["digits", "--recipe", "nonsense"], "expected one of cifar10, cifar10-large, digits"),
        (["digits", "--init", "nonsense"], "there is no MODEL 'nonsense'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_files(tmp_path, run_cli, arguments, message):
    result = run_cli(*arguments, "-o", tmp_path / "run")
    assert result.exit_code == 1
    error = result.output.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert list(tmp_path.glob("run/*")) == []


def test_plain_progress_is_a_line_now_and_then():
    stream = io.StringIO()
    with PlainReporter(stream, every_s=0).task("epoch 1/2", 100, done=20) as task:
        task.update(60, "loss 1.500")
    assert stream.getvalue().startswith("epoch 1/2: 60/100, ")
    assert stream.getvalue().endswith(" left, loss 1.500\n")
    assert "img/s, " in stream.getvalue()
    with PlainReporter(stream, every_s=60).task("quick", 10) as task:
        task.update(10)
    assert "quick" not in stream.getvalue()


def test_bars_only_on_a_terminal(monkeypatch):
    assert isinstance(reporter_for(io.StringIO()), PlainReporter)
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert isinstance(reporter_for(stream), RichReporter)


def test_bar_shows_speed_and_messages():
    reporter = RichReporter()
    reporter.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with reporter.task("epoch 1/2", 100) as task:
        task.update(50, "loss 1.500")
        reporter.say("file [red]1[/red].png skipped")
    text = reporter.console.file.getvalue()
    assert "50/100" in text
    assert "loss 1.500" in text
    assert "file [red]1[/red].png skipped" in text


def test_silence_is_silent(capsys):
    with SilentReporter().task("job", 3) as task:
        task.update(1)
        SilentReporter().say("hello")
    assert capsys.readouterr() == ("", "")
