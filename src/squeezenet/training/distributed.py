"""Several processes that train one network together, started by `torchrun`; each works on its share of each batch.

`DistributedDataParallel` is not used: it sorts gradients into other buckets after its first step, so that with more
than two processes a resumed run would add them up in another order than the interrupted run.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined] # public, though not listed

from ..errors import TrainingError

__all__ = ["ALONE", "Workers", "join_workers"]

_MEETING_S = 300.0  # processes of one start differ by how long they take to load torch


@dataclass(frozen=True)
class Workers:
    """This process among those that train together."""

    rank: int = 0
    """0 to size - 1; process 0 writes the files and reports."""
    size: int = 1
    per_machine: int = 1
    """Processes on this machine, which share its memory."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and reports."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Index of this process's part of every batch, and the number of parts."""
        return self.rank, self.size

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Add up numbers over all processes, in float64."""
        if self.size == 1:
            return list(numbers)
        on_gpu = dist.get_backend() == "nccl"
        total = torch.tensor(numbers, dtype=torch.float64, device="cuda" if on_gpu else "cpu")
        dist.all_reduce(total)
        return [float(number) for number in total.tolist()]

    def sum_tensors(self, tensors: Sequence[Tensor], *, divide_by: int = 1) -> None:
        """Add up tensors over all processes, in place; all processes get the same bits."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= divide_by
        offset = 0
        for tensor in tensors:
            tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
            offset += tensor.numel()

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            dist.barrier()


ALONE = Workers()
"""A process that trains by itself."""


@contextlib.contextmanager
def join_workers() -> Iterator[Workers]:
    """Join the other processes if `torchrun` started this one; otherwise return `ALONE`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield ALONE
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    store, rank, size = _meet()
    dist.init_process_group("nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()


def _meet() -> tuple[Store, int, int]:
    """Find the processes of this start; returns a store that only they use, the rank and their number.

    `torchrun` keeps one store over all restarts, and torch gives every start the same keys in it: a process that comes
    first would read addresses that killed ones left there, and wait for the dead. The count of restarts does not tell
    starts apart, since machines count their own. So each process calls with a name never used before, and goes on when
    process 0, which may answer dead callers as well, has answered that name.

    Raises:
        TrainingError: If the others do not come in time; `torchrun` then starts all again.
    """
    shared, rank, size = next(rendezvous("env://"))
    calls = PrefixStore("squeezenet", shared)
    name = uuid.uuid4().hex
    if rank:
        calls.set(f"caller/{rank}", name)
        try:
            calls.wait([f"answer/{name}"], timedelta(seconds=_MEETING_S))
        except dist.DistError:
            raise _nobody_came(rank, size) from None
        name = calls.get(f"answer/{name}").decode()
        calls.add(f"joined/{name}", 1)
        return PrefixStore(name, shared), rank, size
    deadline = time.monotonic() + _MEETING_S
    while calls.add(f"joined/{name}", 0) < size - 1:
        for other in range(1, size):
            if calls.check([f"caller/{other}"]):
                calls.set(f"answer/{calls.get(f'caller/{other}').decode()}", name)
        if time.monotonic() > deadline:
            raise _nobody_came(rank, size)
        time.sleep(0.02)
    return PrefixStore(name, shared), rank, size


def _nobody_came(rank: int, size: int) -> TrainingError:
    return TrainingError(
        f"process {rank}: expected {size} processes to meet, and not all came in {_MEETING_S:.0f} s:"
        " look for the message of one that failed, then continue with --resume"
    )
