import inspect
import io
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from squeezenet.cli import cli
from squeezenet.cli.train import command
from squeezenet.data import open_data
from squeezenet.errors import DataError
from squeezenet.models import SqueezeNet
from squeezenet.process import StopSignals, ending_at_ctrl_c
from squeezenet.progress import PlainReporter, RichReporter, SilentReporter, reporter_for
from squeezenet.training import train_model
from squeezenet.training.alarms import dead_network_alarm
from training_runs import TINY, train, write_images

ARGV = ["squeezenet", "train", "digits", "-o", "run", "--epochs", "10000"]


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
        (["digits", "--recipe", "nonsense"], "expected one of cifar10, cifar10-large, cifar10-tiny, digits"),
        (["digits", "--init", "nonsense"], "there is no MODEL 'nonsense'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_files(tmp_path, run_cli, arguments, message):
    result = run_cli(*arguments, "-o", tmp_path / "run")
    assert result.exit_code == 1
    error = result.output.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


def test_function_leaves_no_empty_folder_either(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        train_model(tmp_path / "missing", run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_was_there_stays(tmp_path, run_cli):
    (tmp_path / "run").mkdir()
    assert run_cli("missing", "-o", tmp_path / "run").exit_code == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


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


HOSTILE = "\x1b]0;a title by a file name\x07\x1b[31mred"


def test_names_that_a_terminal_would_obey_are_shown_as_escapes(tmp_path, run_cli):
    data = write_images(tmp_path / "data", classes=("dark", "light", f"ra\x1b[2Jmp{chr(0x202E)}"))
    for number in range(2):
        (data / "dark" / f"{HOSTILE}{number}.png").write_bytes(b"no picture")
    (tmp_path / "tiny.toml").write_text(TINY.replace(name=HOSTILE).to_toml())
    done = run_cli(data, "--recipe", tmp_path / "tiny.toml", "--epochs", 1, "-o", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert r"\x1b]0;a title by a file name\x07" in done.output
    card = (tmp_path / "run/README.md").read_text()
    for text in (done.output, card):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("kind", [PlainReporter, RichReporter])
def test_reporters_show_no_controls(kind):
    stream = io.StringIO()
    reporter = kind()
    if kind is PlainReporter:
        reporter = kind(stream, every_s=0)
    else:
        reporter.console.file = stream
    reporter.say(f"skipped {HOSTILE}")
    with reporter.task(HOSTILE, 10) as task:
        task.update(5, HOSTILE)
    shown = stream.getvalue()
    assert r"skipped \x1b]0;a title" in shown
    assert "\x07" not in shown
    assert "\x1b]0" not in shown


def test_recipe_with_a_byte_order_mark_is_read(tmp_path, run_cli):
    data = write_images(tmp_path / "data")
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + TINY.to_toml().encode())
    assert run_cli(data, "--recipe", tmp_path / "bom.toml", "--epochs", 1, "-o", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("epoch = 3", "expected only the settings"),
        ("epochs = 3\nlr = 1000", "expected `lr` from 0 to 100"),
        ("epochs = ", "expected TOML"),
        ('epochs = 3\nlr = 0.1\nteacher = "nothing"', "there is no MODEL 'nothing'"),
    ],
)
def test_recipe_is_looked_at_before_the_photos(tmp_path, run_cli, monkeypatch, recipe, message):
    monkeypatch.setattr("squeezenet.training.train.prepare_data", None)
    (tmp_path / "r.toml").write_text(recipe)
    result = run_cli(write_images(tmp_path / "data"), "--recipe", tmp_path / "r.toml", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert message in result.output.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_alarm_gives_no_advice_that_is_followed_already(tmp_path):
    images = open_data(write_images(tmp_path / "data"))
    recipe = TINY.replace(epochs=100, warmup_epochs=0.0, label_smoothing=0.0)
    where = {"epoch": 60, "steps_per_epoch": 4, "train_loss": math.log(3)}
    assert dead_network_alarm(images, recipe, **where).endswith("(=0) or `batch_norm = true`")
    text = dead_network_alarm(images, recipe, **where, may_norm=False)
    assert "batch_norm" not in text
    assert text.endswith("use a smaller `lr` (=0.05) or a longer `warmup_epochs` (=0)")


@pytest.mark.parametrize(("normed", "has_init"), [(True, False), (False, True), (False, False)])
def test_alarm_of_a_run_fits_its_network(tmp_path, monkeypatch, normed, has_init):
    seen = []
    monkeypatch.setattr("squeezenet.training.run.dead_network_alarm", lambda *_, may_norm, **__: seen.append(may_norm))
    recipe = TINY.replace(epochs=1, warmup_epochs=0.0, batch_norm=normed, lr=0.001)
    init = SqueezeNet(recipe.spec(3)) if has_init else None
    train(write_images(tmp_path / "data"), tmp_path / "run", recipe, init=init)
    assert seen == [not normed and not has_init]


@pytest.mark.parametrize("delay_s", [0.0, 0.3, 0.8, 1.5])
def test_ctrl_c_is_never_swallowed(tmp_path, delay_s):
    """Whatever is being imported when it comes, the process ends; here it waits for `click` to be there first."""
    # Tests that run in the background of a shell have SIGINT ignored, and children inherit that.
    script = (
        "import click, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); print('up', flush=True);"
        f" from squeezenet.cli import main; sys.argv = {ARGV!r}; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout.readline() == b"up\n"
            time.sleep(delay_s)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) in (-signal.SIGINT, 1, 130)
        finally:
            process.kill()


def test_ctrl_c_acts_at_once_while_modules_load():
    before = signal.getsignal(signal.SIGINT)
    with ending_at_ctrl_c():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before
    with StopSignals(), ending_at_ctrl_c():  # somebody else's handler stays
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


@pytest.mark.parametrize("delay_s", [0.05, 0.5, 1.0, 2.0])
def test_command_killed_while_torch_loads_continues_as_itself(tmp_path, run_cli, delay_s):
    data = write_images(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(TINY.to_toml())
    options = ["--recipe", str(tmp_path / "tiny.toml"), "--epochs", "1"]
    assert run_cli(data, "-o", tmp_path / "whole", *options).exit_code == 0
    arguments = ["squeezenet", "train", str(data), "-o", str(tmp_path / "run"), *options]
    script = f"import sys; sys.argv = {arguments!r}; from squeezenet.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "run/request.json").exists():
            time.sleep(0.01)
        time.sleep(delay_s)
        process.kill()
    done = run_cli(data, "-o", tmp_path / "run", "--resume")
    assert done.exit_code == 0, done.output
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
