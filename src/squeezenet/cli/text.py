"""How the verbs show numbers, tables and foreign text on a terminal.

Use this when you print something that came out of a file, or a table.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_bytes", "format_count", "printable", "table"]


def printable(text: str) -> str:
    """Make text from a file safe to print: control characters, which could drive a terminal, show as escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def format_bytes(count: int) -> str:
    """Bytes as people read them: 999 B, 12.3 kB, 4.99 MB (powers of ten)."""
    if count < 1000:
        return f"{count} B"
    value, unit = (count / 1e6, "MB") if count >= 1e6 else (count / 1e3, "kB")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def format_count(count: int) -> str:
    """A count with thousands separators; nothing for zero, as the paper's tables have it."""
    return f"{count:,}" if count else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out rows in columns; the first `left` columns are left-aligned, the others right-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
