"""What a MODEL argument can be besides a file: a network of this package, `imagenet`, or nothing at all.

Use this when a verb runs a MODEL that exists.
"""

from __future__ import annotations

import glob
import importlib.util
from pathlib import Path

import click

__all__ = ["resolve_model", "split_model"]

_IMAGENET = "imagenet"
_MODEL_SUFFIXES = (".sqz", ".safetensors", ".net", ".pth", ".pt")


def resolve_model(model: str) -> str:
    """Turn the name of a network of this package, or `imagenet`, into its file; leave all else as it is.

    Raises:
        DownloadError: If ImageNet's weights are not in the cache and cannot be fetched.
        MissingDependencyError: If they have to be compressed and torch is not installed.
    """
    from ..zoo import bundled_models

    if Path(model).exists():
        return model
    if model == _IMAGENET:
        from ..errors import MissingDependencyError
        from ..files import cache_folder
        from ..zoo import IMAGENET_FILE

        cached = cache_folder() / IMAGENET_FILE
        if cached.is_file():
            return str(cached)
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError("torch", "train")
        from ..progress import reporter_for
        from ..quantization.published import imagenet_file

        return str(imagenet_file(reporter_for()))
    found = bundled_models()
    return str(found[model]) if model in found else model


def split_model(model: str | None, arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Tell MODEL and IMAGEs apart: the first argument is a MODEL unless it is the only one or named like an image.

    Args:
        model: What `--model` says.
        arguments: All others.

    Returns:
        The MODEL, which may be this package's own, and the images.

    Raises:
        UsageError: If there is no image, or no MODEL either.
    """
    if model is not None:
        if not arguments:
            raise click.UsageError("Missing argument 'IMAGE...'.")
        return model, arguments
    first = arguments[0] if arguments else ""
    if arguments and not _is_image(first) and (len(arguments) > 1 or _is_model(first)):
        if len(arguments) == 1:
            raise click.UsageError("Missing argument 'IMAGE...'.")
        return first, arguments[1:]
    if not arguments:
        raise click.UsageError("Missing argument 'IMAGE...'.")
    from ..zoo import default_model

    name = default_model()
    if name is None:
        raise click.UsageError(
            "Missing argument 'MODEL': this package came without a network of its own; name a file, or --model imagenet"
        )
    click.echo(f"model: {name}, from this package; name another with --model", err=True)
    return name, arguments


def _is_image(argument: str) -> bool:
    from ..files import IMAGE_EXTENSIONS

    suffix = Path(argument).suffix
    is_pattern = glob.has_magic(argument) and suffix not in _MODEL_SUFFIXES
    return argument == "-" or suffix.lower() in IMAGE_EXTENSIONS or is_pattern


def _is_model(argument: str) -> bool:
    from ..spec import SPEC_NAMES
    from ..zoo import bundled_models

    path = Path(argument)
    return (
        path.suffix in _MODEL_SUFFIXES
        or argument in (*SPEC_NAMES, *bundled_models(), _IMAGENET)
        or any((path / name).is_file() for name in ("best.safetensors", "last.safetensors"))
    )
