"""Fill the marked places of README.md and docs/: tables from results/*.json, the commands' help, the layout, figures.

    python tools/make_docs.py [--check]

A marked place lies between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, on any page. With `--check` nothing is
written, and a page that is not up to date is an error.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click
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
    """The package's modules and the repository's folders, each with the first line of its docstring."""
    lines = ["```"]
    package = ROOT / "src/squeezenet"
    lines.append("src/squeezenet/")
    for path in sorted(package.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            lines.append(f"  {path.name + '/':<18} {_first_line(path / '__init__.py')}")
        elif path.suffix == ".py" and not path.name.startswith("__"):
            lines.append(f"  {path.name:<18} {_first_line(path)}")
    lines += [f"{name:<20} {what}" for name, what in _DESCRIBED.items() if (ROOT / name).exists()]
    return "\n".join([*lines, "```"])


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
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a page is not up to date; write nothing")
    arguments = parser.parse_args()
    parts = {**tables(), "cli": command_help(), "layout": layout(), "errors": error_tree()}
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
