"""Pages and model cards from templates, each page one file that loads nothing."""

from __future__ import annotations

import re

from ..errors import MissingDependencyError
from ..text import printable

__all__ = ["render"]


def render(name: str, **values: object) -> str:
    """Fill the file `name` of `templates/` with all values that it names; in HTML, text is escaped.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
    """
    with MissingDependencyError.named():
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("squeezenet.reports", "templates"), autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["plain"] = _plain
    return environment.get_template(name).render(values)


def _plain(text: object) -> str:
    """Text from outside in Markdown: no markup, no line ends, nothing that a terminal would obey."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~])", r"\\\1", printable(re.sub(r"[\r\n]", " ", str(text))))
