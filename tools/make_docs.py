"""Fill the marked places of README.md and docs/: tables from results/*.json, the commands' help, the layout, figures.

    python tools/make_docs.py [--check]

A marked place lies between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, on any page. With `--check` nothing is
written, and a page that is not up to date is an error.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

import click
from concept_tables import concept_tables
from sessions import refresh
from tables import ROOT, tables

_WITH_SESSIONS = {"README.md", "README.ko.md", "tutorial.md"}
WIDTH = 96  # columns of the commands' help, whatever the terminal has
_DESCRIBED = {
    "csrc": "the C engine: parser, decoder, kernels",
    "benchmarks": "scripts that measure; they write `results/`",
    "docs": "normative format and coding, command reference",
    "fuzz": "fuzzing harnesses",
    "tests": "tests; those that need `../shared` are skipped without it",
    "tools": "generators of documents and fixtures",
    "dev/LOG.md": "every experiment with its numbers, failures too",
}


def fill(page: str, parts: Mapping[str, str]) -> tuple[str, set[str]]:
    """Put each part into its place; the page and the names of its places.

    Raises:
        KeyError: If the page has a place for which there is no part.
    """
    found = set()

    def put(match: re.Match[str]) -> str:
        found.add(match[2])
        return f"{match[1]}{parts[match[2]]}\n{match[3]}"

    filled = re.sub(r"(<!-- (\S+):begin -->\n).*?(<!-- \2:end -->)", put, page, flags=re.DOTALL)
    return filled, found


def command_help() -> str:
    """The help of `squeezenet` and of each of its verbs."""
    from squeezenet.cli import cli

    text, context = _help_text(cli, "squeezenet")
    sections = [f"## `squeezenet`\n\n```\n{text}\n```"]
    for verb in cli.list_commands(context):
        command = cli.get_command(context, verb)
        assert command is not None
        text, _ = _help_text(command, verb, context)
        sections.append(f"## `squeezenet {verb}`\n\n```\n{text}\n```")
    return "\n\n".join(sections)


def _help_text(command: click.Command, name: str, parent: click.Context | None = None) -> tuple[str, click.Context]:
    settings = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    return command.get_help(context).rstrip(), context


def layout() -> str:
    """The package's folders and the repository's, each with what it holds."""
    lines = ["```", "src/squeezenet/"]
    for path in sorted((ROOT / "src/squeezenet").glob("*/__init__.py")):
        lines.append(f"  {path.parent.name + '/':<18} {_first_line(path)}")
    lines += [f"{name:<20} {what}" for name, what in _DESCRIBED.items() if (ROOT / name).exists()]
    return "\n".join([*lines, "```"])


def modules() -> str:
    """Every module of the package with the first line of its docstring, folder by folder."""
    package = ROOT / "src/squeezenet"
    lines = []
    for folder in (package, *sorted(path.parent for path in package.glob("**/__init__.py") if path.parent != package)):
        name = str(folder.relative_to(package.parent))
        lines += [
            f"### `{name}`",
            "",
            _first_line(folder / "__init__.py"),
            "",
            "| module | what it holds |",
            "|---|---|",
        ]
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("__"):
                lines.append(f"| `{path.relative_to(package)}` | {_first_line(path).replace('|', chr(92) + '|')} |")
        lines = [*(lines[:-3] if lines[-1] == "|---|---|" else lines), ""]
    return "\n".join(lines).rstrip()


def recipe_fields() -> str:
    """The settings of a recipe: name, type, default and range, meaning."""
    from squeezenet.training import recipe

    kinds = get_type_hints(recipe.Recipe)
    meanings = _field_docs(Path(recipe.__file__), "Recipe")
    rows = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(recipe.Recipe):
        value = recipe.describe_type(kinds[field.name]).replace("'", '"')
        if field.name in recipe.RANGES:
            lowest, highest = recipe.RANGES[field.name]
            value += f", {lowest:,} to {'2^63 - 1' if highest == 2**63 - 1 else f'{highest:,.15g}'}"
        default = "**required**" if field.default is dataclasses.MISSING else _toml(field.default)
        rows.append(f"| `{field.name}` | {value} | {default} | {meanings[field.name]} |")
    return "\n".join(rows)


def recipe_files() -> str:
    """The recipes that ship with the package, as they are."""
    folder = ROOT / "src/squeezenet/training/recipes"
    files = [(path.stem, path.read_text(encoding="utf-8").rstrip()) for path in sorted(folder.glob("*.toml"))]
    return "\n\n".join(f"### `{name}`\n\n```toml\n{text}\n```" for name, text in files)


def _toml(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(f'{number:.4g}' for number in value)}]`"
    return f"`{json.dumps(value)}`"


def _field_docs(path: Path, name: str) -> dict[str, str]:
    """The text below each field of a class, in one line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    docs = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            docs[node.target.id] = " ".join(text.value.split()) if isinstance(text, ast.Constant) else ""
    return docs


def error_tree() -> str:
    """Every error with the builtin that also catches it and its docstring, subclasses below their base."""
    from squeezenet import errors

    lines = ["| error | also a | raised for |", "|---|---|---|"]

    def add(kind: type[Exception], depth: int) -> None:
        also = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins" and base is not Exception]
        text = " ".join((kind.__doc__ or "").split())
        lines.append(f"| {'&emsp;' * depth}`{kind.__name__}` | {', '.join(f'`{name}`' for name in also)} | {text} |")
        for below in sorted(kind.__subclasses__(), key=lambda error: error.__name__):
            add(below, depth + 1)

    add(errors.SqueezeNetError, 0)
    return "\n".join(lines)


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is not up to date; write nothing")
    arguments = parser.parse_args()
    parts = {
        **tables(), **concept_tables(), "cli": command_help(), "layout": layout(), "modules": modules(),
        "errors": error_tree(), "recipe": recipe_fields(), "recipes": recipe_files(),
    }  # fmt: skip
    stale, placed = [], set()
    for path in (*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        page = path.read_text(encoding="utf-8")
        filled, found = fill(page, parts)
        if path.name in _WITH_SESSIONS:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "examples").symlink_to(ROOT / "examples")
                filled = refresh(filled, Path(folder))
        placed |= found
        if filled != page:
            stale.append(str(path.relative_to(ROOT)))
            if not arguments.check:
                path.write_text(filled, encoding="utf-8")
    if placed != set(parts):
        sys.exit(f"no page has a place for {', '.join(sorted(set(parts) - placed))}")
    if arguments.check:
        sys.exit(f"not up to date: {', '.join(stale)}; run `make docs`" if stale else 0)
    from figures import draw_figures  # here, since matplotlib takes longer than everything else together

    draw_figures(ROOT / "docs/images")
    print(f"written: {', '.join(stale) or 'nothing new'}")


if __name__ == "__main__":
    main()
