"""The `squeezenet` command: one module per verb.

A verb's module is imported only when it runs, and imports what is heavy inside its function, so that help and light
verbs start at once. Errors that this package raises on purpose end as one line and exit code 1.
"""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..errors import MissingDependencyError, SqueezeNetError
from ..text import printable

__all__ = ["cli", "main"]

# Verb -> (module, the line that `squeezenet --help` shows), in the order of use.
_VERBS = {
    "demo": ("demo", "Train, compress and predict on handwritten digits, start to end."),
    "train": ("train", "Train a network on class folders."),
    "teach": ("teach", "Teach a network new classes from a few photos, in seconds."),
    "lr-find": ("lr_find", "Find a learning rate."),
    "check": ("check", "Find duplicates, wrong labels and useless photos."),
    "compress": ("compress", "Compress a trained network to a .sqz file."),
    "explore": ("explore", "Find the best architecture within limits on size and speed."),
    "predict": ("predict", "Classify images."),
    "similar": ("similar", "Find the photos most similar to one photo."),
    "evaluate": ("evaluate", "Measure accuracy on labelled images."),
    "features": ("features", "Write the feature vectors of images."),
    "bench": ("bench", "Time a compressed network on this machine."),
    "export": ("export", "Convert a network to a web page, C, ONNX, TFLite and more."),
    "verify": ("verify", "Check that all engines compute the same logits."),
    "shards": ("shards", "Pack a large data set into tar shards."),
    "info": ("info", "Show the layers and sizes of a network or a file."),
    "import": ("import_", "Convert a network of torch, ONNX, Keras, Caffe, ... to safetensors."),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: click.Command = import_module(f".{_VERBS[cmd_name][0]}", __name__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in _VERBS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_empty = any(not word.strip() or re.fullmatch(r"--[\w-]+=\s*", word) for word in args[1:])
        if is_empty and args[0] != "predict":  # `predict` writes a record for each argument
            # An unset variable of the shell; as a path, it would mean the working folder.
            raise click.UsageError("expected no empty argument: a variable of the shell may be unset", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SqueezeNetError as error:
            raise click.ClickException(printable(str(error))) from None
        except ModuleNotFoundError as error:
            if not isinstance(found := MissingDependencyError.of(error), SqueezeNetError):
                raise
            raise click.ClickException(str(found)) from None
        except BrokenPipeError:
            # The reader of our output has ended, as in `... | head`; the interpreter must not report an error when it
            # flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(printable(f"{where}{error.strerror or error}")) from None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="squeezenet")
def cli() -> None:
    """Train an image classifier, squeeze it below half a megabyte, run the same integers everywhere.

    \b
    A MODEL is a .sqz or .safetensors file, the authors' .net file, a folder that `train` wrote,
    or a name: imagenette, cifar10 (in this package), imagenet, squeezenet1_1 (downloaded once).
    DATA is a folder of class folders, a zip of one, a .csv of files and labels, or `digits`.
    """


def main() -> None:
    """Run the command line."""
    # Torch's waiting threads spin, which makes training ten times slower if anything else is running (dev/LOG.md).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # If the terminal's encoding lacks a character, print its escape instead of a traceback.
            stream.reconfigure(errors="backslashreplace")
    # One line, without the line of source that warns.
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd EXIF blocks; what matters becomes an error
    warnings.formatwarning = lambda message, *_args, **_options: f"warning: {message}\n"
    cli(prog_name="squeezenet")
