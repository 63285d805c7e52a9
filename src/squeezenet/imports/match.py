"""Recognition of a SqueezeNet in a graph: its architecture and its weights.

`match` walks a graph from its input and recognises a SqueezeNet: a stem, Fire modules with or without bypass, pools, a
head and its average. Widths, pools and bypasses come from the graph, so that variants import as well. The first thing
that does not fit is an error that names it. Each node is visited at most once, so that a graph with a circle ends too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ..architectures import DEFAULT_INPUT_SIZE, SPEC_NAMES, named_spec
from ..errors import SpecError, WeightsError
from ..network import FloatConv
from ..spec import POOL_KERNEL, POOL_STRIDE, ArchSpec, FireSpec, StemSpec
from ..text import printable
from .graph import MAX_NODES, SAME, Floats, Graph, Node, computing_nodes, same_pads

__all__ = ["check_convs", "match", "renamed"]


def match(graph: Graph) -> tuple[ArchSpec, dict[str, FloatConv[Floats]]]:
    """Recognise the SqueezeNet in a graph.

    Raises:
        WeightsError: If it is another network; the message states where it differs.
    """
    return _Matcher(graph).network()


@dataclass
class _Step:
    """A convolution with what follows it directly."""

    node: Node
    weight: Floats
    bias: Floats
    kernel: int
    stride: int
    padding: int
    relu: bool
    output: str
    out_size: int


class _Matcher:
    """One walk through a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        if len(graph.nodes) > MAX_NODES:
            self._fail(f"expected at most {MAX_NODES} operations, got {len(graph.nodes)}")
        self._nodes = computing_nodes(graph)
        self._readers: dict[str, list[Node]] = {}
        for node in self._nodes:
            for name in dict.fromkeys(node.inputs):
                self._readers.setdefault(name, []).append(node)
        self._used: set[int] = set()
        self._convs: dict[str, FloatConv[Floats]] = {}
        self._size = graph.input_size or DEFAULT_INPUT_SIZE
        self._layer, self._pools, self._rounding = 1, list[int](), set[bool]()
        self._relus: set[bool] = set()
        self._gain = 1.0
        """Factor for the tensor that is read next: quantised graphs scale the terms of sums."""

    def network(self) -> tuple[ArchSpec, dict[str, FloatConv[Floats]]]:
        input_size = self._size
        stem_input = self._pixels()
        stem = self._conv(self._only(stem_input, ("conv",), "the first convolution"), self._size)
        self._store("conv1", stem)
        if not stem.relu:
            self._fail(f"expected a ReLU after the first convolution {_shown(stem.node)}, got none")
        fires, bypasses = list[FireSpec](), list[str]()
        x, self._size = self._pooled(stem.output, stem.out_size)
        while (squeeze := self._squeeze(x)) is not None:
            self._layer += 1
            fire, bypass, x = self._fire(x, squeeze)
            fires.append(fire)
            bypasses.append(bypass)
            x, self._size = self._pooled(x, self._size)
        self._layer += 1
        if not fires:
            self._expected_a_fire(x, "the first convolution")
        head_relu, head_padding, classes = self._head(x, len(fires))
        spec = self._spec(
            stem=StemSpec(channels=len(stem.bias), kernel=stem.kernel, stride=stem.stride, padding=stem.padding),
            fires=tuple(fires), pools=tuple(self._pools), input_size=input_size, num_classes=classes,
            pool_ceil_mode=self._rounding != {False}, squeeze_relu=self._relus != {False}, head_relu=head_relu,
            head_padding=head_padding, bypass=_bypass(bypasses),
        )  # fmt: skip
        check_convs(spec, self._convs, self._graph.source)
        return spec, {op.name: self._convs[op.name] for op in spec.convs}

    def _spec(self, **fields: object) -> ArchSpec:
        try:
            return renamed(ArchSpec(**fields))  # type: ignore[arg-type]
        except SpecError as error:
            self._fail(error.reason)

    def _pixels(self) -> str:
        """The tensor that the first convolution reads; notes what happens to pixels before."""
        x = self._graph.input
        factor, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
        while len(found := self._readers.get(x, [])) == 1 and found[0].kind == "affine":
            node = self._use(found[0])
            assert node.weight is not None
            assert node.bias is not None
            if node.weight.size not in (1, 3) or node.bias.size not in (1, 3):
                self._fail(f"expected one or three factors for the pixels, got {node.weight.size}")
            factor, offset = factor * node.weight, offset * node.weight + node.bias
            self._graph.affine = (factor, offset)
            x = node.output
        return x

    def _pooled(self, x: str, size: int) -> tuple[str, int]:
        """Follow the max pool after a layer, if there is one."""
        readers = self._readers.get(x, [])
        if len(readers) != 1 or readers[0].kind != "max_pool":
            return x, size
        node = self._use(readers[0])
        if node.kernel != (POOL_KERNEL,) * 2 or node.stride != (POOL_STRIDE,) * 2 or not node.is_plain:
            self._fail(f"expected a 3x3 max pool with stride 2, got {_shown(node)} of {node.kernel}, {node.stride}")
        pads = same_pads(size, POOL_KERNEL, POOL_STRIDE) if node.pads == SAME else node.pads
        floor_size, ceil_size = (size - POOL_KERNEL) // POOL_STRIDE + 1, -(-(size - POOL_KERNEL) // POOL_STRIDE) + 1
        if pads in ((0, 0, 0, 0), (0, 0, 1, 1)):
            rounds_up = node.ceil_mode or pads != (0, 0, 0, 0)
            # A pixel of padding at the far end of an odd size changes nothing else either.
            if pads != (0, 0, 0, 0) and floor_size == ceil_size and node.ceil_mode:
                self._fail(f"expected a max pool without padding, got {_shown(node)} with {pads}")
        else:
            self._fail(f"expected a max pool without padding, got {_shown(node)} with {pads}")
        if floor_size != ceil_size:
            self._rounding.add(rounds_up)
        if len(self._rounding) > 1:
            self._fail(f"expected max pools that all round their size up or all down, but {_shown(node)} is different")
        self._pools.append(self._layer)
        return node.output, ceil_size if rounds_up else floor_size

    def _squeeze(self, x: str) -> Node | None:
        """The 1x1 convolution that begins a Fire module: two convolutions read it."""
        for node in self._readers.get(x, []):
            if node.kind == "conv":
                after = self._readers.get(self._after_relu(node), [])
                if len(after) == 2 and all(other.kind == "conv" for other in after):
                    return node
        return None

    def _after_relu(self, node: Node) -> str:
        x = node.output
        for kind in ("affine", "relu"):
            readers = self._readers.get(x, [])
            if len(readers) == 1 and readers[0].kind == kind:
                x = readers[0].output
        return x

    def _fire(self, x: str, squeeze_node: Node) -> tuple[FireSpec, str, str]:
        name = f"fire{self._layer}"
        others = [node for node in self._readers[x] if node is not squeeze_node]
        squeeze = self._conv(squeeze_node, self._size)
        self._relus.add(squeeze.relu)
        if len(self._relus) > 1:
            self._fail(
                f"expected a ReLU after all squeeze convolutions or after none, but {_shown(squeeze.node)} differs"
            )
        branches = [self._conv(node, self._size) for node in self._readers[squeeze.output]]
        branches.sort(key=lambda step: step.kernel)
        if [step.kernel for step in branches] != [1, 3]:
            self._fail(
                f"expected a 1x1 and a 3x3 convolution after {_shown(squeeze_node)},"
                f" got {branches[0].kernel}x{branches[0].kernel} and {branches[1].kernel}x{branches[1].kernel}"
            )
        for step, padding in ((squeeze, 0), (branches[0], 0), (branches[1], 1)):
            if step.stride != 1 or step.padding != padding or (step is squeeze and step.kernel != 1):
                self._fail(
                    "expected a Fire module of stride 1 with 1x1, 1x1 and padded 3x3 convolutions, got"
                    f" {_shown(step.node)} of {step.kernel}x{step.kernel}, stride {step.stride}, padding {step.padding}"
                )
        joined = self._only(branches[0].output, ("concat",), f"the end of {name}")
        if joined.inputs != [step.output for step in branches] or not joined.is_plain:
            self._fail(f"expected {_shown(joined)} to join the channels of the 1x1 and then the 3x3 convolution only")
        out, is_rectified = self._relu(joined.output)
        if not is_rectified and not all(step.relu for step in branches):
            self._fail(f"expected a ReLU after the expand convolutions of {name}, got none")
        self._store(f"{name}.squeeze", squeeze)
        bypass, out, gain = self._add(name, x, out, others)
        for part, step in zip(("expand1x1", "expand3x3"), branches, strict=True):
            self._store(f"{name}.{part}", step, gain_in=1.0, gain_out=gain)
        widths = [len(step.bias) for step in (squeeze, *branches)]
        fire = FireSpec(squeeze_channels=widths[0], expand1x1_channels=widths[1], expand3x3_channels=widths[2])
        return fire, bypass, out

    def _add(self, name: str, x: str, out: str, others: Sequence[Node]) -> tuple[str, str, float]:
        """Follow the bypass around a Fire module, if there is one; also returns the gain of the expand convolutions.

        A graph may compute a * out + b * x. With x times its gain g meant, that is (out * g * a / b + x * g) * b / g.
        """
        if not others:
            self._gain = 1.0
            return "none", out, 1.0
        bypass, term, step = "identity", x, None
        if len(others) == 1 and others[0].kind == "conv":
            step = self._conv(others[0], self._size)
            if (step.kernel, step.stride, step.padding, step.relu) != (1, 1, 0, False):
                self._fail(f"expected a 1x1 convolution without ReLU around {name}, got {_shown(step.node)}")
            bypass, term = "conv", step.output
            others = self._readers.get(term, [])
        term, b = self._scaled(others, term)
        out, a = self._scaled(self._readers.get(out, []), out)
        if step is None:
            gain = self._gain * a / b
            self._gain /= b
        else:
            gain = 1.0
            self._store(f"{name}.bypass", step, gain_out=b / a)
            self._gain = 1 / a
        added = self._only(out, ("add",), f"the end of {name}")
        if sorted(added.inputs) != sorted([out, term]) or not added.is_plain:
            self._fail(f"expected {_shown(added)} to add the input of {name} to its output")
        out, is_rectified = self._relu(added.output)
        if (is_rectified or added.relu) and bypass == "conv":  # of an identity neither term is negative
            self._fail(f"expected no ReLU after the bypass of {name}, got one")
        return bypass, out, gain

    def _scaled(self, readers: Sequence[Node], x: str) -> tuple[str, float]:
        """Follow a multiplication by one positive number."""
        if len(readers) == 1 and readers[0].kind == "affine":
            node = self._use(readers[0])
            if (
                node.weight is not None
                and node.weight.size == 1
                and float(node.weight[0]) > 0
                and not np.any(node.bias)
            ):
                return node.output, float(node.weight[0])
            self._fail(f"expected an addition of tensors as they are, got {_shown(node)} before it")
        return x, 1.0

    def _head(self, x: str, n_fires: int) -> tuple[bool, int, int]:
        """Follow the last convolution and the average, in either order."""
        readers = self._readers.get(x, [])
        if len(readers) == 1 and readers[0].kind in ("mean", "average_pool"):
            mean = self._mean(x)
            step = self._conv(self._only(mean, ("conv",), "the last convolution"), 1)
            if (step.kernel, step.padding, step.relu) != (1, 0, False):
                self._fail(f"expected a 1x1 convolution without ReLU after the average, got {_shown(step.node)}")
        else:
            if len(readers) != 1 or readers[0].kind != "conv":
                self._expected_a_fire(x, f"fire{n_fires + 1}")
            step = self._conv(readers[0], self._size)
            if step.kernel != 1 or step.stride != 1:
                self._expected_a_fire(x, f"fire{n_fires + 1}")
            self._size = step.out_size
            self._mean(step.output)
        self._store(f"conv{n_fires + 2}", step)
        return step.relu, step.padding, len(step.bias)

    def _mean(self, x: str) -> str:
        node = self._only(x, ("mean", "average_pool"), "the last convolution")
        if node.kind == "average_pool" and (node.kernel != (self._size,) * 2 or node.pads not in ((0,) * 4, SAME)):
            self._fail(f"expected an average over all {self._size}x{self._size} positions, got one over {node.kernel}")
        return node.output

    def _conv(self, node: Node, size: int) -> _Step:
        self._use(node)
        weight = node.weight
        if weight is None or weight.ndim != 4 or not node.is_plain:
            self._fail(f"expected a plain convolution with constant weights, got {_shown(node)}")
        bias = np.zeros(len(weight), np.float32) if node.bias is None else node.bias
        kernel = weight.shape[2]
        if weight.shape[3] != kernel or node.stride[0] != node.stride[1] or bias.shape != (len(weight),):
            self._fail(f"expected a square convolution, got {_shown(node)} with weights of {weight.shape}")
        pads = same_pads(size, kernel, node.stride[0]) if node.pads == SAME else node.pads
        if len(set(pads)) > 1:
            self._fail(
                f"expected the same padding on all sides, got {pads} for {_shown(node)} at {size}x{size} pixels:"
                " export it for an odd input size, or with explicit padding"
            )
        x, relu = node.output, node.relu
        readers = self._readers.get(x, [])
        if not relu and len(readers) == 1 and readers[0].kind == "affine":
            norm = self._use(readers[0])
            assert norm.weight is not None
            assert norm.bias is not None
            factor = norm.weight.astype(np.float64)
            weight = (weight * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
            bias, x = (bias * factor + norm.bias).astype(np.float32), norm.output
        x, is_rectified = self._relu(x)
        relu |= is_rectified
        out_size = (size + 2 * pads[0] - kernel) // node.stride[0] + 1
        return _Step(node, weight, bias, kernel, node.stride[0], pads[0], relu, x, out_size)

    def _relu(self, x: str) -> tuple[str, bool]:
        readers = self._readers.get(x, [])
        if len(readers) == 1 and readers[0].kind == "relu":
            return self._use(readers[0]).output, True
        return x, False

    def _only(self, x: str, kinds: tuple[str, ...], place: str) -> Node:
        readers = self._readers.get(x, [])
        if len(readers) != 1 or readers[0].kind not in kinds:
            self._fail(f"expected {' or '.join(kinds)} at {place}, got {_list(readers)}")
        return readers[0] if readers[0].kind == "conv" else self._use(readers[0])

    def _use(self, node: Node) -> Node:
        if id(node) in self._used:
            self._fail(f"expected a graph without circles, got one through {_shown(node)}")
        self._used.add(id(node))
        return node

    def _store(self, name: str, step: _Step, *, gain_in: float | None = None, gain_out: float = 1.0) -> None:
        weight, bias, gain_in = step.weight, step.bias, self._gain if gain_in is None else gain_in
        if (gain_in, gain_out) != (1.0, 1.0):
            weight, bias = (weight * (gain_out / gain_in)).astype(np.float32), (bias * gain_out).astype(np.float32)
        self._convs[name] = FloatConv(weight, bias)

    def _expected_a_fire(self, x: str, place: str) -> NoReturn:
        self._fail(
            f"after {place} expected a Fire module (a 1x1 convolution that a 1x1 and a 3x3 convolution read), a 3x3 max"
            f" pool or the last 1x1 convolution, got {_list(self._readers.get(x, []))}"
        )

    def _fail(self, reason: str) -> NoReturn:
        raise WeightsError(f"this is not a SqueezeNet: {reason}", source=self._graph.source)


def check_convs(spec: ArchSpec, convs: dict[str, FloatConv[Floats]], source: str) -> None:
    """Compare the weights with the architecture's shapes, and refuse infinity and NaN.

    Raises:
        WeightsError: If they differ; `source` is the file.
    """
    for op in spec.convs:
        if op.name not in convs:
            raise WeightsError(f"this is not a SqueezeNet: expected the bypass {op.name}, got none", source=source)
        expected = (op.out_channels, op.in_channels, op.kernel, op.kernel)
        if (found := convs[op.name].weight.shape) != expected:
            raise WeightsError(f"{op.name}: expected weights of {expected}, got {found}", source=source)
        if not (np.isfinite(convs[op.name].weight).all() and np.isfinite(convs[op.name].bias).all()):
            raise WeightsError(f"{op.name}: expected finite numbers, got infinity or NaN", source=source)
    if unknown := sorted(set(convs) - {op.name for op in spec.convs}):
        raise WeightsError(f"this is not a SqueezeNet: expected no bypass like {unknown[0]}", source=source)


def renamed(spec: ArchSpec) -> ArchSpec:
    """Give a spec the name that its architecture has, if it has one."""
    options = {
        name: getattr(spec, name)
        for name in ("num_classes", "pool_ceil_mode", "squeeze_relu", "head_relu", "head_padding")
    }
    for name in SPEC_NAMES:
        published = named_spec(name, input_size=spec.input_size, **options)
        if published == spec.replace(name=name):
            return published
    return spec


def _bypass(found: Sequence[str]) -> str:
    if "conv" in found:
        return "complex"
    return "simple" if "identity" in found else "none"


def _shown(node: Node) -> str:
    return f"{printable(node.kind[:60])} {printable(node.name[:80])!r}" if node.name else printable(node.kind[:60])


def _list(nodes: Sequence[Node]) -> str:
    return ", ".join(_shown(node) for node in nodes[:3]) + (", ..." if len(nodes) > 3 else "") or "nothing"
