"""Memory layout of the form `coded` of exported C, in which weights stay coded while the network runs.

Each stream is decoded once for each image, in the order of the file, and every stage is run in one of two ways. One is
row by row, as where weights are constants: all of its weights are then decoded into RAM before. The other is panel by
panel: sixteen outputs' weights are decoded and multiplied with all positions, and its tensor is kept as a whole. Early
stages have large maps and few weights, late ones small maps and many. Stages that are streamed run row by row at the
same time. For each number of those, every other stage gets the way that takes less memory; the least of all is taken.
"""

from __future__ import annotations

import bisect
import ctypes
import random
from dataclasses import dataclass
from typing import Any

from .native_library import Conv, Model

__all__ = ["DECODER_BYTES", "PANEL_BY_PANEL", "CodedPlan", "lay_out_coded", "layer_bytes"]

PANEL_BY_PANEL = -1
"""Marks a convolution that is decoded panel by panel instead of before a step."""
DECODER_BYTES = 9_728
"""Bytes of the decoder without coefficients, columns and rows: see sqz_coded.c."""
_PREDICTOR_BYTES = 84  # decode_predictor
_ALIGN = 64  # SQZ_ALIGN
_SLACK = 64  # SQZ_SLACK
_HEAD_PIXELS = 28  # SQZ_HEAD_PIXELS
_MOST_STREAMED = 12
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class CodedPlan:
    """The plan that the exporter writes beside the model."""

    steps: tuple[int, ...]
    """For each convolution, the step before which it is decoded, or `PANEL_BY_PANEL`."""
    starts: tuple[int, ...]
    """For each convolution, the address that it is decoded to."""
    decoder_at: int
    panel_at: int
    weight_bytes: int
    """Bytes for the decoder, and for decoded weights at their peak."""
    bytes: int
    """Bytes of all memory."""
    layers: tuple[tuple[str, int], ...]
    """Bytes that are in use at the same time while groups of layers run."""


@dataclass
class _Block:
    """Memory that is in use for some parts of an image: three for each step, as bits of `ticks`."""

    size: int
    ticks: int
    at: int = 0


class _Layout:
    """One way to run a network: some stages streamed, some panel by panel; without `convs`, weights are constants."""

    def __init__(self, model: Model, convs: list[list[int]], streamed: int, by_panel: set[int]) -> None:
        self.model, self.convs, self.streamed, self.by_panel = model, convs, streamed, by_panel
        self.n_steps = model.n_fires - streamed + 2  # with the head
        self.stages = [self._rows(index) for index in range(model.n_fires + 1)]
        self.blocks: dict[tuple[str, int], _Block] = {}
        for index in range(model.n_fires + 1):
            self._add_stage(index)
        self._add_common()

    def _step(self, index: int) -> int:
        return max(0, index - self.streamed)

    def _ticks(self, first: int, last: int) -> int:
        return (1 << last + 1) - (1 << first)

    def all_of(self, index: int) -> int:
        """The ticks of a stage's step."""
        return self._ticks(3 * self._step(index), 3 * self._step(index) + 2)

    def _rows(self, index: int) -> dict[str, int]:
        """The fields of `sqz_stage` that say how many rows exist, as `schedule_rows` of sqz_schedule.c decides."""
        stage, is_last = self.model.stages[index], index == self.model.n_fires
        is_window, whole = index < self.streamed, index in self.by_panel
        kept = 0
        if is_window or (self.streamed and index == self.streamed):
            kept = 2 if stage.has_pool else 0
        if is_window and stage.is_added:
            kept = 2 + stage.has_pool
        if not is_window and ((is_last and self.convs) or stage.is_added or whole):
            kept = stage.out_size
        kept = min(kept, stage.out_size)
        return {
            "step": stage.rows if whole else 1, "kept_rows": kept,
            "map_rows": 0 if is_last else 3 if is_window else stage.out_size + 2,
            "band_rows": min(2, stage.out_size) if stage.has_pool and not kept else 0,
        }  # fmt: skip

    def _add_stage(self, index: int) -> None:
        stage, rows, start = self.model.stages[index], self.stages[index], 3 * self._step(index)
        whole, is_last, now = index in self.by_panel, index == self.model.n_fires, self.all_of(index)
        row, out_row = (_row_bytes(size, stage.channels) for size in (stage.size, stage.out_size))
        until = start + 2  # the next stage is done with what this one leaves
        if index >= self.streamed and not is_last:
            until = start + (3 if index + 1 in self.by_panel else 5)
        made = row * rows["step"] if stage.has_pool or not rows["kept_rows"] else 0
        band_at, spare_at = _up(made), _up(made) + _up(out_row * rows["band_rows"])
        rows["band_at"] = band_at
        spare = stage.window_bytes * (rows["step"] if index else 1)
        if is_last and not self.convs:
            spare = max(spare, self.model.sums_bytes)
        if index <= self.streamed and not (is_last and self.convs):  # each in turn
            rows["spare_at"] = spare_at
            scratch = self.blocks.setdefault(("scratch", 0), _Block(0, now))
            scratch.size = max(scratch.size, spare_at + _up(spare))
        else:
            self.blocks["scratch", index] = _Block(spare_at, self._ticks(start, start + 1) if whole else now)
            used = self._ticks(start, start) if whole else now
            if is_last and self.convs:
                used = (used if spare else 0) | self._ticks(3 * self.n_steps - 3, 3 * self.n_steps - 1)
                spare = max(spare, self._sums_bytes())
            self.blocks["spare", index] = _Block(_up(spare), used)
        kept = out_row * rows["kept_rows"]
        end = 3 * self.n_steps - 1 if is_last else until if stage.is_added else start + 2
        self.blocks["kept", index] = _Block(_up(kept), self._ticks(start + (whole and stage.has_pool), end))
        if not is_last:
            size = _row_bytes(stage.out_size + 2, stage.map_channels) * rows["map_rows"]
            self.blocks["map", index] = _Block(_up(size), self._ticks(start + 2 * whole, until))
        for conv in self.convs[index] if self.convs and not whole else ():
            held = self.model.convs[conv]
            self.blocks["weights", conv] = _Block(_up(held.panel_bytes * held.panels), now)

    def _add_common(self) -> None:
        model, first = self.model, self._ticks(0, 2)
        panels = [index for stage in self.by_panel for index in self.convs[stage]] + [model.n_convs - 1]
        ticks = self._ticks(3 * self.n_steps - 3, 3 * self.n_steps - 1)
        for stage in self.by_panel:
            ticks |= self.all_of(stage)
        if self.convs:
            self.blocks["panel", 0] = _Block(_up(max(model.convs[index].panel_bytes for index in panels)), ticks)
            self.blocks["decoder", 0] = _Block(_up(_decoder_bytes(model)), self._ticks(0, 3 * self.n_steps - 1))
        self.blocks["input", 0] = _Block(_up(model.input_size * model.stem_kernel * 3 + _SLACK), first)
        self.blocks["progress", 0] = _Block(_up(8 * (self.streamed + 1)), first)

    def _sums_bytes(self) -> int:
        return 4 * 16 * self.head_pixels()

    def head_pixels(self) -> int:
        """Positions of the head at a time."""
        return int(min(_HEAD_PIXELS, self.model.stages[self.model.n_fires].out_size ** 2))

    def peak(self, ticks: int) -> int:
        """The most that is in use at any of some ticks."""
        each = (1 << tick for tick in range(3 * self.n_steps) if ticks >> tick & 1)
        return max(sum(block.size for block in self.blocks.values() if block.ticks & tick) for tick in each)

    def layers(self) -> tuple[tuple[str, int], ...]:
        """The most that is in use during each step, which has the name of its layers."""
        names = [f"fire{index + 1}" if index else "conv1" for index in range(self.model.n_fires + 1)]
        first = f"conv1 to {names[self.streamed]}" if self.streamed else "conv1"
        always = _SLACK + _up(self.model.wide_bytes)
        rest = range(self.streamed + 1, self.model.n_fires + 1)
        steps = [(first, self.all_of(0)), *((names[index], self.all_of(index)) for index in rest)]
        if self.convs:
            steps.append((f"conv{self.model.n_fires + 2}", self._ticks(3 * self.n_steps - 3, 3 * self.n_steps - 1)))
        return tuple((name, self.peak(ticks) + always) for name, ticks in steps)

    def place(self) -> int:
        """Give every block a place; returns where the last one ends. Several orders are tried, the largest first and
        others near to that, until there are no gaps.
        """
        shuffle = random.Random(0)
        least = self.peak(self._ticks(0, 3 * self.n_steps - 1))
        best: tuple[int, list[int]] | None = None
        for attempt in range(_ATTEMPTS):
            end = self._place({name: (shuffle.uniform(0.3, 1) if attempt else 1) for name in self.blocks})
            if best is None or end < best[0]:
                best = end, [block.at for block in self.blocks.values()]
            if end == least:
                break
        assert best is not None
        for block, at in zip(self.blocks.values(), best[1], strict=True):
            block.at = at
        return best[0]

    def _place(self, factors: dict[tuple[str, int], float]) -> int:
        """Place blocks one by one as low as they fit, ordered by their size times a factor. Scratch memory is at 0."""
        placed: list[_Block] = []
        order = sorted(self.blocks, key=lambda name: (name[0] != "scratch", -self.blocks[name].size * factors[name]))
        for name in order:
            block = self.blocks[name]
            block.at = 0
            for other in placed if name[0] != "scratch" else ():  # by place
                if not other.ticks & block.ticks or other.at + other.size <= block.at:
                    continue
                if other.at >= block.at + block.size:
                    break
                block.at = other.at + other.size
            bisect.insort(placed, block, key=lambda other: other.at)
        return max(block.at + block.size for block in placed)


def lay_out_coded(model: Model) -> CodedPlan:
    """Plan a network with the least memory, and write what the engine in C has to know of it into its stages.

    Args:
        model: Of an engine with the kernel set `small`, which then cannot run here any more.
    """
    convs = _convs_of_stages(model)
    layouts = [_best_with(model, convs, streamed) for streamed in range(min(model.n_fires, _MOST_STREAMED) + 1)]
    layout, end = min(((layout, layout.place()) for layout in layouts), key=lambda placed: placed[1])
    blocks = layout.blocks
    for index, rows in enumerate(layout.stages):
        stage = model.stages[index]
        for name, value in rows.items():
            setattr(stage, name, value)
        stage.kept_at = blocks["kept", index].at
        if index < model.n_fires:
            stage.map_at = blocks["map", index].at
        if ("spare", index) in blocks:
            stage.spare_at = blocks["spare", index].at
    model.streamed, model.keeps_head_input, model.head_panels = layout.streamed, 1, 1
    model.head_pixels, model.sums_bytes = layout.head_pixels(), layout._sums_bytes()
    model.input_at, model.progress_at = blocks["input", 0].at, blocks["progress", 0].at
    model.trunk_bytes, model.scratch_bytes = 0, end + _SLACK + _up(model.wide_bytes)
    steps, starts = [PANEL_BY_PANEL] * model.n_convs, [0] * model.n_convs
    for index, own in enumerate(convs):
        for conv in own if index not in layout.by_panel else ():
            steps[conv], starts[conv] = layout._step(index), blocks["weights", conv].at
    each = [1 << tick for tick in range(3 * layout.n_steps)]
    coded = [block for (kind, _), block in blocks.items() if kind in ("weights", "panel", "decoder")]
    return CodedPlan(
        steps=tuple(steps), starts=tuple(starts), decoder_at=blocks["decoder", 0].at, panel_at=blocks["panel", 0].at,
        weight_bytes=max(sum(block.size for block in coded if block.ticks & tick) for tick in each),
        bytes=model.scratch_bytes, layers=layout.layers(),
    )  # fmt: skip


def layer_bytes(model: Model) -> tuple[tuple[str, int], ...]:
    """Return how much of the arena is in use while each layer runs, with weights as constants.

    Args:
        model: Of an engine that makes one row of a layer at a time.
    """
    return _Layout(model, [], model.streamed, set()).layers()


def _best_with(model: Model, convs: list[list[int]], streamed: int) -> _Layout:
    by_panel: set[int] = set()
    for index in range(streamed + 1, model.n_fires + 1):
        ways = [_Layout(model, convs, streamed, by_panel | extra) for extra in (set(), {index})]
        if ways[1].peak(ways[1].all_of(index)) < ways[0].peak(ways[0].all_of(index)):
            by_panel.add(index)
    return _Layout(model, convs, streamed, by_panel)


def _convs_of_stages(model: Model) -> list[list[int]]:
    """Convolutions of each stage: its own, and the squeeze layer that reads its output."""
    first = ctypes.addressof(model.convs[0])

    def number(address: Any) -> list[int]:
        return [(address - first) // ctypes.sizeof(Conv)] if address else []

    fires = [model.fires[index] for index in range(model.n_fires)]
    own = [[0], *(number(fire.expand1x1) + number(fire.expand3x3) + number(fire.bypass) for fire in fires)]
    return [convs + (number(fires[i].squeeze) if i < len(fires) else []) for i, convs in enumerate(own)]


def _decoder_bytes(model: Model) -> int:
    predictors = sum(kernel**2 for kernel in range(1, 12) if model.needs.kernels >> kernel & 1)
    columns, rows = 4 * model.needs.products, 2 * model.needs.products
    return int(DECODER_BYTES + _PREDICTOR_BYTES * predictors + columns + rows)


def _row_bytes(size: int, channels: int) -> int:
    return size * (-(-channels // 4) * 4)


def _up(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
