"""A file and a function that a reader can hold in the head: fail where one is longer than that.

python tools/check_sizes.py
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE_LINES = 500
FUNCTION_LINES = 60


def too_long(path: Path) -> Iterator[str]:
    """Name what in a file is longer than allowed."""
    text = path.read_text(encoding="utf-8")
    name, lines = path.relative_to(ROOT), text.count("\n")
    if lines > FILE_LINES:
        yield f"{name}: {lines} lines (at most {FILE_LINES})"
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{name}:{node.lineno} {node.name}: {length} lines (at most {FUNCTION_LINES})"


def main() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "src").rglob("*.js"), *(ROOT / "csrc").glob("*.[ch]")]
    found = [line for path in sorted(sources) for line in too_long(path)]
    sys.exit("\n".join(found) if found else 0)


if __name__ == "__main__":
    main()
