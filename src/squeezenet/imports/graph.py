"""A graph of operations, whatever file it was read from, in the few kinds that a SqueezeNet is made of."""

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
    """Tensors that it reads, weights left out."""
    output: str
    name: str = ""
    weight: Floats | None = None
    """Of a convolution (O, I, k, k); of an `affine` its factors (C,) or (1,)."""
    bias: Floats | None = None
    """(O,); of an `affine` its offsets."""
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    """Top, left, bottom, right; or `SAME`."""
    ceil_mode: bool = False
    is_plain: bool = True
    """No groups, no dilation, no other axis, nothing else that a SqueezeNet lacks."""
    relu: bool = False
    """A ReLU is part of the operation."""


@dataclass
class Graph:
    """Operations from images to class scores."""

    nodes: list[Node]
    input: str
    source: str
    """The file, for messages."""
    input_size: int | None = None
    """None where the file leaves it open."""
    affine: tuple[Floats, Floats] | None = field(default=None, init=False)
    """What the graph does to pixels before the first convolution, found by `match`."""


def computing_nodes(graph: Graph) -> list[Node]:
    """List the nodes that compute something, reading what they read through nodes that pass values on or pad them.

    Raises:
        WeightsError: If values are passed on in a circle.
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
    """Work out the padding of TensorFlow's `SAME`.

    Example:
        >>> same_pads(224, 3, 2)
        (0, 0, 1, 1)
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return (total // 2, total // 2, total - total // 2, total - total // 2)
