"""Several processes that train one network together, started by `torchrun`.

Every process works on its share of each batch; gradients are summed in one all-reduce of one flat buffer, so that all
take the same step. `DistributedDataParallel` is not used: it sorts gradients into other buckets after its first step,
so that with more than two processes a resumed run would add them up in another order than the run that was cut off.
Its gain, sending while the backward pass still works, is nothing for 5 MB of gradients.

Use this when a training step must know about the other processes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ALONE", "Workers", "join_workers"]


@dataclass(frozen=True)
class Workers:
    """This process among those that train together."""

    rank: int = 0
    """0 to size - 1; process 0 writes the files and speaks."""
    size: int = 1
    per_machine: int = 1
    """Processes on this machine, which share its memory."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which of how many parts of every batch is this process's."""
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
        """Go on only when all processes have come here."""
        if self.size > 1:
            dist.barrier()


ALONE = Workers()
"""A process that trains by itself."""


@contextlib.contextmanager
def join_workers() -> Iterator[Workers]:
    """Meet the other processes if `torchrun` started this one; else be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield ALONE
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Workers(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    finally:
        dist.destroy_process_group()
