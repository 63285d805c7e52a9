"""Filling the marked places of a page: what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["fill", "markdown_table"]


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Put each part into its place; a part without a place on this page is left out."""
    for name, content in parts.items():
        pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
        page = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", page)
    return page


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows, of which the first is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
