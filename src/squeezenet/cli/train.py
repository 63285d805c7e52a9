"""`squeezenet train`: from class folders to a run folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import SqueezeNetError, TrainingError
from ..files import atomic_write, lock_folder
from ..process import EXIT_INTERRUPTED
from ..zoo import find_model


@click.command()
@click.argument("data", nargs=-1, required=True)
@click.option("--val", multiple=True, metavar="DATA", help="Images to validate on.  [default: val of DATA, or a tenth]")
@click.option("--init", metavar="MODEL", help="Weights to start from.  [default: none]")
@click.option("--recipe", metavar="NAME|FILE.toml", help="How to train.  [default: to suit the data]")
@click.option("--teacher", metavar="MODEL", help="Learn from this network's predictions too.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs; replaces the recipe's.")
@click.option("--resume", is_flag=True, help="Continue the run in RUN/; start one if there is none.")
@click.option("--checkpoint-every", metavar="SECONDS", type=click.FloatRange(min=0), default=60.0, show_default=True,
              help="Longest time between checkpoints.")  # fmt: skip
@click.option("--tensorboard", is_flag=True, help="Write the log for TensorBoard as well.")
@click.option("--compile", "compiled", is_flag=True,
              help="Compile the network with torch.compile; useful for long GPU runs.")  # fmt: skip
@click.option("-o", "--output", metavar="RUN/", required=True, help="Folder to write; created if missing.")
@click.pass_context
def command(
    ctx: click.Context, /, data: tuple[str, ...], val: tuple[str, ...], output: str, checkpoint_every: float,
    compiled: bool, **options: Any,
) -> None:  # fmt: skip
    """Train a network on DATA: a folder of class folders, a zip of one, or `digits`. Several DATA are joined.

    Writes best.safetensors and last.safetensors (MODELs for the other commands), log.csv, recipe.toml, run.json and
    checkpoint.pt to the folder RUN/. To continue an interrupted run, add --resume to the same command.

    Several processes can train one network together: `torchrun --nproc-per-node 2 -m squeezenet train ...`.
    """
    from ..process import ending_at_ctrl_c, keep_freed_memory

    with _noted(Path(output), **options):
        with ending_at_ctrl_c():
            from ..training import train_model

        keep_freed_memory()
        result = train_model(
            list(data), list(val) or None, run_dir=output, checkpoint_every_s=checkpoint_every, compile=compiled,
            **options,
        )  # fmt: skip
    if not result.is_finished:
        ctx.exit(EXIT_INTERRUPTED)


@contextlib.contextmanager
def _noted(folder: Path, *, resume: bool, **options: Any) -> Iterator[None]:
    """Note how to train before the seconds that torch takes to load: a run killed then is continued as itself."""
    note, is_new = folder / "request.json", not folder.exists()
    known = ("checkpoint.pt", "checkpoint.previous.pt", *(("request.json", "recipe.toml") if resume else ()))
    if "RANK" in os.environ or any((folder / name).exists() for name in known):  # torchrun's processes do it later
        yield
        return
    request = {name: options[name] for name in ("recipe", "init", "teacher", "epochs")}
    for model in filter(None, (request["init"], request["teacher"])):
        find_model(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock_folder(folder, TrainingError), atomic_write(note) as stream:
            stream.write(json.dumps(request).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be made a run folder ({error.strerror})") from None
    try:
        yield
    except (SqueezeNetError, ImportError):  # ImportError: an extra that is missing
        with contextlib.suppress(TrainingError), lock_folder(folder, TrainingError):  # not another process's note
            if not (folder / "checkpoint.pt").exists():
                note.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()
        raise
