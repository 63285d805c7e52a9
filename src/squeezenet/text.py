"""Formatting of numbers, durations, tables and untrusted text for display."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

__all__ = ["file_name", "format_bytes", "format_duration", "html_table", "match_key", "nfc", "printable", "table"]

_MAX_MARKS = 30  # in a row: the bound of Unicode's Stream-Safe Text Format
_HIDDEN_MARKS = "\u0f73\u0f75\u0f81\uff9e\uff9f"  # no marks by their class, but decomposed into some


def printable(text: object) -> str:
    r"""Make text from a file or a server safe to print: control characters become escapes.

    These are controls, overrides of the writing direction, line separators and surrogates. All other characters are
    kept: joiners, narrow spaces and private characters are part of names.

    Example:
        >>> printable("no\x1b[2J\n")
        'no\\x1b[2J\\n'
    """
    return "".join(ascii(char)[1:-1] if _is_obeyed(char) else char for char in str(text))


def _is_obeyed(char: str) -> bool:
    is_override = "\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069"
    return is_override or (not char.isprintable() and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"))


def file_name(name: str) -> str:
    """Turn a file name of the operating system into valid Unicode: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def nfc(text: str) -> str:
    """Normalise text to NFC, the form in which class names are stored; `_stream_safe` keeps the time linear."""
    return text if text.isascii() else unicodedata.normalize("NFC", _stream_safe(text))


def match_key(text: str) -> str:
    """Key that is equal for names that differ only in case, underscores, spaces or Unicode form."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", _stream_safe(text))
    return " ".join(composed.replace("_", " ").casefold().split())


def _stream_safe(text: str) -> str:
    """Break up long runs of combining marks, whose normalisation takes quadratic time."""
    parts, run = [], 0
    for char in text:
        is_mark = unicodedata.combining(char) or char in _HIDDEN_MARKS
        n_marks = len(unicodedata.normalize("NFKD", char)) if is_mark else 0
        if run + n_marks > _MAX_MARKS:
            parts.append("\u034f")  # the joiner that the format puts there
            run = 0
        run = run + n_marks if is_mark else 0
        parts.append(char)
    return "".join(parts)


def format_duration(seconds: float) -> str:
    """Format a duration as in 0:07, 12:30, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def format_bytes(count: int) -> str:
    """Format bytes as in 999 B, 12.3 kB, 4.99 MB (powers of ten)."""
    if count < 1000:
        return f"{count} B"
    value, unit = (count / 1e6, "MB") if count >= 1e6 else (count / 1e3, "kB")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out rows in columns; the first `left` columns are left-aligned, the others right-aligned."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    cells.insert(1, ["-" * width for width in widths])
    formats = "  ".join(f"{{:{'<' if column < left else '>'}{width}}}" for column, width in enumerate(widths))
    return "\n".join(formats.format(*row).rstrip() for row in cells)


def html_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows as an HTML table, for notebooks; every cell is escaped."""
    lines = [
        "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in row) + "</tr>"
        for tag, row in [("th", header), *(("td", row) for row in rows)]
    ]
    return "<table>" + "".join(lines) + "</table>"
