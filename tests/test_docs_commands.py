"""What pages tell people to type exists: verbs, their options, names of the package."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

import squeezenet
from squeezenet.cli import cli

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("README*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.*")),
]
TEXTS = {str(page.relative_to(ROOT)): page for page in PAGES if page.suffix in (".md", ".py", ".html", ".mjs")}


def commands_of(text):
    """Each `squeezenet VERB ...` of a page, in code blocks, after a prompt, or between backticks."""
    text = text.replace("\\\n", " ")
    for match in re.finditer(r"(?:^ *(?:\$ )?|`)squeezenet ([a-z][a-z-]*\b[^`\n]*)", text, re.MULTILINE):
        yield re.split(r"\s#|\s+\||;|&&|<-", match[1])[0].strip()


@pytest.mark.parametrize("name", TEXTS)
def test_commands_of_a_page_can_be_typed(name):
    for command in commands_of(TEXTS[name].read_text(encoding="utf-8")):
        verb, *words = shlex.split(command.replace("'", "").replace("[", " ").replace("]", " "))
        known = cli.get_command(None, verb)
        assert known is not None, f"{name}: squeezenet {command}: there is no such verb"
        options = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            option = word.split("=")[0].rstrip(",.:)")
            if re.match(r"--?[a-z]", option):
                assert option in options | {"-h", "--help"}, f"{name}: squeezenet {command}: {option} does not exist"


@pytest.mark.parametrize("name", TEXTS)
def test_names_of_the_package_on_a_page_exist(name):
    text = TEXTS[name].read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL)) if name.endswith(".md") else text
    code += "\n".join(re.findall(r"`(squeezenet\.[^`]*)`", text))
    for attribute in set(re.findall(r"\bsqueezenet\.([A-Za-z_]\w*)", code)):
        exists = hasattr(squeezenet, attribute) or importlib.util.find_spec(f"squeezenet.{attribute}")
        assert exists, f"{name}: squeezenet.{attribute} does not exist"


def test_commands_are_found_and_wrong_ones_are_seen():
    page = "    $ squeezenet predict a.jpg --top 3  # five\n`squeezenet train x/ -o run/`\n"
    assert list(commands_of(page)) == ["predict a.jpg --top 3", "train x/ -o run/"]
