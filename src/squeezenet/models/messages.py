"""Other people's words in our error messages: names in files, answers of servers.

Use this when a message quotes what a file or a server says.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: object, *, max_chars: int = 300) -> str:
    r"""Make text that cannot break a line, steer a terminal or fill it.

    Example:
        >>> printable("no\x1b[2J\n")
        'no [2J'
    """
    return "".join(char if char.isprintable() else " " for char in str(text)[:max_chars]).strip()
