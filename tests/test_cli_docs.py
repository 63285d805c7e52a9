"""docs/cli.md is what the commands say; adding a verb or an option is a decision that this test makes visible."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from squeezenet.cli import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
VERBS = [
    "demo", "train", "lr-find", "compress", "explore", "predict", "evaluate", "bench", "export", "verify", "shards",
    "info", "import",
]  # fmt: skip


@pytest.mark.parametrize("columns", ["40", "200"])
def test_page_is_up_to_date_whatever_the_terminal(columns):
    code = "import sys; sys.path.insert(0, 'tools'); import make_cli_docs; sys.stdout.write(make_cli_docs.page())"
    environment = {**os.environ, "COLUMNS": columns, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT, env=environment, text=True
    )
    assert result.stdout == PAGE, "run `python tools/make_cli_docs.py`"


def test_every_verb_is_on_the_page():
    assert re.findall(r"^## `squeezenet ([\w-]+)`$", PAGE, re.MULTILINE) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_short_help_flag_works(verb):
    result = CliRunner().invoke(cli, [verb, "-h"], prog_name="squeezenet")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: squeezenet {verb} ")


def test_top_help_lists_the_verbs_in_the_order_of_use():
    result = CliRunner().invoke(cli, ["--help"], prog_name="squeezenet")
    commands = result.stdout.split("Commands:")[1]
    assert re.findall(r"^  ([\w-]+)  ", commands, re.MULTILINE) == VERBS


def test_no_verb_shows_the_help_and_fails():
    result = CliRunner().invoke(cli, [], prog_name="squeezenet")
    assert result.exit_code == 2
    assert "Usage: squeezenet [OPTIONS] COMMAND" in result.output
