"""The blocks of README and tutorial are typed as they stand, and print what they show."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md", "docs/tutorial.md")}


@pytest.fixture
def sessions(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("sessions")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout, and takes what the commands write."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_of(sessions, page):
    blocks = sessions.find(page)
    return [command for block in blocks for command, _, _ in sessions.parse(block)]


@pytest.mark.parametrize(("name", "count"), [("README.md", 4), ("README.ko.md", 4), ("docs/tutorial.md", 11)])
def test_commands_print_what_is_shown(sessions, checkout, name, count):
    page = PAGES[name]
    assert sessions.without_times(sessions.refresh(page, checkout)) == sessions.without_times(page)
    typed = [command for command in commands_of(sessions, page) if not command.startswith("pip ")]
    assert len([line for line in typed if "flowers.sqz" not in line and " train " not in line]) == count


def test_a_wrong_output_is_seen(sessions, checkout):
    page = PAGES["README.md"]
    wrong = re.sub(r"[0-9.]+ %  golf_ball", "12.3 %  golf_ball", page)
    assert wrong != page
    assert sessions.refresh(wrong, checkout) != wrong


def test_training_block_runs(sessions, checkout):
    """On the digits, from scratch and for one epoch; the search for a size takes a minute, see test_cli_compress.py."""
    block = next(part for part in PAGES["README.md"].split("\n\n") if "squeezenet train" in part)
    seen = []
    for command, _, _ in sessions.parse(block + "\n"):
        file = "imagenette" if " export " in command else "run/"
        typed = command.replace("photos/", "digits").replace("more/", "examples/").replace("flowers.sqz", file)
        program, *arguments = shlex.split(typed)
        if program != "squeezenet" or arguments[0] == "compress":
            continue
        if arguments[0] == "train":
            del arguments[arguments.index("--init") : arguments.index("--init") + 2]
            arguments += ["--epochs", "1"]
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        seen.append(arguments[0])
    assert seen == ["train", "evaluate", "predict", "export"]


def test_python_block_runs(checkout):
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["README.md"], re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "examples/photo.jpg golf_ball\n", done.stderr
