"""The two operations of a graph that have no weights, for `ArchSpec.walk` on torch tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..spec import Op

__all__ = ["join", "max_pool"]


def max_pool(op: Op, x: Tensor) -> Tensor:
    """Pool floats (N, C, H, W) as a `max_pool` operation describes."""
    return F.max_pool2d(x, op.kernel, op.stride, ceil_mode=op.ceil_mode)


def join(op: Op, a: Tensor, b: Tensor) -> Tensor:
    """Concatenate the branches of a Fire module along their channels."""
    return torch.cat([a, b], dim=1)
