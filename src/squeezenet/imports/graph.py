"""A graph of the few kinds of operations that a SqueezeNet consists of, independent of the file format."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

__all__ = ["MAX_NODES", "SAME", "Floats", "Graph", "Node", "Pads", "computing_nodes", "same_pads"]

MAX_NODES = 20_000
SAME = (-1, -1, -1, -1)
"""Padding of TensorFlow's `SAME`, which depends on the size."""

Floats = NDArray[np.float32]
Pads = tuple[int, int, int, int]


@dataclass
class Node:
    """One operation."""

    kind: str
    """`conv`, `pad` (with zeros), `relu`, `max_pool`, `average_pool`, `mean` (over all positions), `concat`, `add`,
    `affine` (a factor and an offset for each channel), `identity`; anything else is the operation's name in its
    format."""
    inputs: list[str]
    """Tensors that it reads, without weights."""
    output: str
    name: str = ""
    weight: Floats | None = None
    """Weights of a convolution, (O, I, k, k), or factors of an `affine`, (C,) or (1,)."""
    bias: Floats | None = None
    """Biases of a convolution, (O,), or offsets of an `affine`."""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    """Top, left, bottom, right; or `SAME`."""
    ceil_mode: bool = False
    is_plain: bool = True
    """Whether it has only features that occur in a SqueezeNet: no groups, no dilation, no other axis."""
    relu: bool = False
    """Whether a ReLU is part of the operation."""


@dataclass
class Graph:
    """Operations from images to class scores."""

    nodes: list[Node]
    input: str
    source: str
    """The file, for messages."""
    input_size: int | None = None
    """Height and width of the input; None if the file does not state it."""
    affine: tuple[Floats, Floats] | None = field(default=None, init=False)
    """Scaling of pixels before the first convolution, found by `match`."""


def computing_nodes(graph: Graph) -> list[Node]:
    """List the nodes that compute something; inputs that pass through identities and paddings are resolved.

    Raises:
        WeightsError: If the graph has a cycle.
    """
    passed = {node.output: node.inputs[0] for node in graph.nodes if node.kind == "identity" and node.inputs}
    origins = dict[str, str]()
    for name in passed:
        chain = list[str]()
        while name in passed and name not in origins:
            if len(chain) > len(passed):
                raise WeightsError("this is not a SqueezeNet: expected no circles, got one", source=graph.source)
            chain.append(name)
            name = passed[name]
        origins |= dict.fromkeys(chain, origins.get(name, name))
    kept = [node for node in graph.nodes if node.kind != "identity"]
    for node in kept:
        node.inputs = [origins.get(name, name) for name in node.inputs]
    paddings = {node.output: node for node in kept if node.kind == "pad"}
    for node in kept:
        if node.kind == "conv" and node.pads == (0, 0, 0, 0) and node.inputs[0] in paddings:
            padding = paddings[node.inputs[0]]
            node.pads, node.inputs = padding.pads, padding.inputs[:1]
    return [node for node in kept if node.kind != "pad"]


def same_pads(size: int, kernel: int, stride: int) -> Pads:
    """Compute the padding of TensorFlow's `SAME`.

    Example:
        >>> same_pads(224, 3, 2)
        (0, 0, 1, 1)
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)
