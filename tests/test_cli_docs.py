"""Pages hold what their sources say; adding a verb or an option is a decision that a test makes visible."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from squeezenet import Recipe
from squeezenet.cli import cli

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
VERBS = [
    "demo", "train", "teach", "lr-find", "check", "compress", "explore", "predict", "similar", "evaluate", "features",
    "bench", "export",
    "verify", "shards", "info", "import",
]  # fmt: skip


@pytest.mark.parametrize("columns", ["40", "200"])
def test_pages_are_up_to_date_whatever_the_terminal(columns):
    environment = {**os.environ, "COLUMNS": columns, "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "tools/make_docs.py", "--check"]
    result = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, text=True)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def fill(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("make_docs").fill


def test_marked_places_are_filled_and_named(fill):
    page = "a\n<!-- x:begin -->\nold\n\nmore\n<!-- x:end -->\nb\n<!-- y:begin -->\n<!-- y:end -->\n"
    filled, places = fill(page, {"x": "new", "y": r"\1", "z": "elsewhere"})
    assert filled == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n<!-- y:begin -->\n\\1\n<!-- y:end -->\n"
    assert places == {"x", "y"}


def test_place_that_nothing_fills_is_an_error(fill):
    with pytest.raises(KeyError, match="typo"):
        fill("<!-- typo:begin -->\n<!-- typo:end -->", {"x": "new"})


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


def test_every_setting_of_a_recipe_is_explained():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.*) \| (.*) \|$", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == [field.name for field in dataclasses.fields(Recipe)]
    assert [name for name, _, _, meaning in rows if not meaning.endswith(".")] == []
    assert ("lr", "a number, 0 to 100", "**required**") in [row[:3] for row in rows]
    assert ("bypass", 'one of "none", "simple", "complex"', "") in [row[:3] for row in rows]
