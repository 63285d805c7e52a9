"""Commands shown on pages with their output: run again, so that a page shows what the commands print now.

A session is an indented block with lines that begin with `$ `. Blocks that show no output are left alone, and so are
programs that are not listed in `_RUN`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r"^    \$ .*\n(?:(?:    .*)?\n)*?(?=^(?!    |\n)|\Z)", re.MULTILINE)
_RUN = {"squeezenet", "python", "mkdir", "cp"}


def refresh(page: str, folder: Path) -> str:
    """The page with the output that its commands print, run one after the other in `folder`."""
    return _BLOCK.sub(lambda match: _refresh_block(match[0], folder), page)


def find(page: str) -> list[str]:
    """The blocks of a page that have commands."""
    return _BLOCK.findall(page)


def without_times(text: str) -> str:
    """Text in which durations, which differ from run to run, are all alike."""
    return re.sub(r"\b[0-9.]+ s\b", "# s", text)


def parse(block: str) -> list[tuple[str, str, str]]:
    """Each command of a block, its comment, and the output shown below it."""
    lines = re.sub(r"^    ", "", block, flags=re.MULTILINE).rstrip()
    found = []
    for part in re.split(r"^\$ ", lines, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        command, comment = re.fullmatch(r"(.*?)(\s+# .*)?", line).groups()  # type: ignore[union-attr]
        found.append((command, comment or "", output.strip("\n")))
    return found


def _refresh_block(block: str, folder: Path) -> str:
    sessions = parse(block)
    if not any(output for _, _, output in sessions):
        return block
    text = []
    for command, comment, shown in sessions:
        output = run(command, folder) if shlex.split(command)[0] in _RUN else shown
        if without_times(output) == without_times(shown):
            output = shown
        text.append(f"$ {command}{comment}\n{output}".rstrip("\n"))
    gaps = ["\n\n" if output else "\n" for _, _, output in sessions]
    whole = "".join(part + gap for part, gap in zip(text, gaps, strict=True)).rstrip("\n")
    indented = "\n".join(f"    {line}".rstrip() for line in whole.splitlines())
    return indented + block[len(block.rstrip("\n")) :]


def run(command: str, folder: Path) -> str:
    """What a command prints, standard error included; it must succeed."""
    program, *arguments = shlex.split(command)
    if program == "squeezenet":
        from click.testing import CliRunner

        from squeezenet.cli import cli

        with contextlib.chdir(folder):
            result = CliRunner().invoke(cli, arguments, prog_name="squeezenet", catch_exceptions=False)
        code, output = result.exit_code, result.output
    else:
        program = sys.executable if program == "python" else program
        done = subprocess.run([program, *arguments], cwd=folder, stdout=-1, stderr=subprocess.STDOUT, text=True)
        code, output = done.returncode, done.stdout
    if code:
        raise RuntimeError(f"{command}: exit code {code}: {output}")
    return output.strip("\n")
