"""The blocks of README.md are typed as they stand, and print what they show."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    block.replace("\n    ", "\n")[4:]
    for block in re.findall(r"(?:^    \S.*\n(?:^(?:    .*)?\n)*)+", README, re.MULTILINE)
]


def sessions(block):
    """Each command of a block with the output that is shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield re.split(r"\s+#", command)[0], output.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like a checkout, and takes what the commands write."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


def test_commands_print_what_is_shown(checkout):
    shown = 0
    for command, output in (session for block in BLOCKS for session in sessions(block)):
        program, *arguments = shlex.split(command)
        if program != "squeezenet" or not output:
            continue
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert result.output.strip() == output
        shown += 1
    assert shown == 2


def test_python_block_runs(checkout):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "examples/photo.jpg golf_ball\n", done.stderr
