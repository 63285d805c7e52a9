"""Pages and model cards from templates, each page one file that loads nothing."""

from __future__ import annotations

from ..errors import MissingDependencyError

__all__ = ["render"]


def render(name: str, **values: object) -> str:
    """Fill one of the package's templates; in HTML, text is escaped.

    Args:
        name: File in `templates/`.
        values: What the template names; a missing one is an error.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingDependencyError("jinja2", "report") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("squeezenet.reports", "templates"),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = _plain
    return environment.get_template(name).render(values)


def _plain(text: object) -> str:
    """Text from outside in Markdown: no markup, no line ends."""
    return "".join(
        f"\\{char}" if char in "\\`*_{}[]<>()#+!|~" else " " if char in "\r\n" else char for char in str(text)
    )
