"""A model as constants of C: what the native engine holds in memory, written out."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coded import CodedPlan
from ..engine import NativeEngine
from ..memory import CodedForm
from ..native_library import Conv

__all__ = ["model_constants", "write_array"]

_SLACK = 64  # SQZ_SLACK
_LANES = 16  # SQZ_LANES


def write_array(declaration: str, values: Iterable[object]) -> Iterator[str]:
    """Lines of a constant array.

    Args:
        declaration: All before `= {`.
        values: Its elements, as C writes them.
    """
    texts = [str(value) for value in values]
    yield f"{declaration} = {{"
    for start in range(0, len(texts), 30):
        yield ",".join(texts[start : start + 30]) + ","
    yield "};"


def model_constants(engine: NativeEngine, coded: CodedForm | None = None) -> Iterator[str]:
    """Lines of C that define `own_model` and all that it points to.

    Args:
        engine: With the kernel set `small`; its schedule is written as well.
        coded: For weights that stay coded, where they are decoded to, and the streams.
    """
    model = engine.layout
    convs = [model.convs[index] for index in range(model.n_convs)]
    lanes = [conv.panels * _LANES for conv in convs]
    weights = [_at(conv.weights, np.int8, conv.panel_bytes * conv.panels) for conv in convs]
    weight_starts = np.cumsum([0, *map(len, weights)])
    lane_starts = np.cumsum([0, *lanes])
    if coded:
        yield from _sources(coded.plan, coded.streams)
    else:
        yield from write_array(
            f"SQZ_ALIGNED static const int8_t own_weights[{weight_starts[-1] + _SLACK}]",
            np.concatenate([*weights, np.zeros(_SLACK, np.int8)]).tolist(),
        )
    biases = [_at(conv.bias, np.int32, count) for conv, count in zip(convs, lanes, strict=True)]
    yield from write_array(
        f"static const int32_t own_biases[{lane_starts[-1]}]", map(_integer, np.concatenate(biases).tolist())
    )
    multipliers = [_at(conv.multiplier, np.float32, count) for conv, count in zip(convs, lanes, strict=True)]
    yield from write_array(
        f"static const float own_multipliers[{lane_starts[-1]}]", map(_float, np.concatenate(multipliers).tolist())
    )
    plain = _at(convs[-1].plain_bias, np.int32, lanes[-1] if model.head_padding else 1)
    yield from write_array(f"static const int32_t own_head_biases[{len(plain)}]", map(_integer, plain.tolist()))
    yield from write_array(f"static const sqz_conv own_convs[{len(convs)}]", (
        "\n" + _struct(conv, weights=f"(uint8_t *)own_weights + {0 if coded else weight_starts[index]}",
                       kinds="(uint8_t *)own_weights", bias=f"(int32_t *)own_biases + {lane_starts[index]}",
                       multiplier=f"(float *)own_multipliers + {lane_starts[index]}",
                       plain_bias="(int32_t *)own_head_biases" if index == len(convs) - 1 else "NULL")
        for index, conv in enumerate(convs)
    ))  # fmt: skip
    conv_at = ctypes.addressof(model.convs[0])

    def conv_name(address: int | None) -> str:
        return f"(sqz_conv *)own_convs + {(address - conv_at) // ctypes.sizeof(Conv)}" if address else "NULL"

    fires = [model.fires[index] for index in range(model.n_fires)]
    parts = ("squeeze", "expand1x1", "expand3x3", "bypass")
    yield from write_array(
        f"static const sqz_fire own_fires[{len(fires)}]",
        ("\n" + _struct(fire, **{part: conv_name(getattr(fire, part)) for part in parts}) for fire in fires),
    )
    stages = [model.stages[index] for index in range(model.n_fires + 1)]
    yield from write_array(
        f"static const sqz_stage own_stages[{len(stages)}]", ("\n" + _struct(stage) for stage in stages)
    )
    text = _struct(
        model, kernels="&sqz_small_kernels", convs="(sqz_conv *)own_convs", stem=conv_name(conv_at),
        head=conv_name(model.head), fires="(sqz_fire *)own_fires", stages="(sqz_stage *)own_stages",
    )  # fmt: skip
    if coded:
        text = f"{text[:-1]}, {{own_sources, {coded.plan.decoder_at}, {coded.plan.panel_at}}}}}"
    yield f"static const sqz_model own_model = {text};\n"


def _sources(plan: CodedPlan, streams: list[bytes]) -> Iterator[str]:
    """All streams in one array, and where each begins and is decoded to."""
    starts = np.cumsum([0, *map(len, streams)])
    yield from write_array(f"static const uint8_t own_weights[{starts[-1]}]", b"".join(streams))
    yield from write_array(f"static const sqz_source own_sources[{len(streams)}]", (
        f"{{own_weights + {start}, {len(stream)}, {step}, {at}}}"
        for start, stream, step, at in zip(starts.tolist(), streams, plan.steps, plan.starts, strict=False)
    ))  # fmt: skip


def _at(address: int, kind: type[np.generic], count: int) -> NDArray[Any]:
    held = (ctypes.c_char * (count * np.dtype(kind).itemsize)).from_address(address)
    return np.frombuffer(bytes(held), kind)


def _struct(value: ctypes.Structure, **pointers: str) -> str:
    texts = []
    for name, *_ in value._fields_:
        texts.append(pointers[name] if name in pointers else _value(getattr(value, name)))
    return "{" + ", ".join(texts) + "}"


def _value(value: object) -> str:
    if isinstance(value, ctypes.Structure):
        return _struct(value)
    if isinstance(value, ctypes.Array):
        return "{" + ", ".join(map(_value, value)) + "}"
    return _float(value) if isinstance(value, float) else _integer(value)


def _float(value: float) -> str:
    return f"{value!r}f"


def _integer(value: object) -> str:
    """INT_MIN has no literal, and large numbers need to be unsigned."""
    if value == -(1 << 31):
        return "-2147483647 - 1"
    return f"{value}u" if isinstance(value, int) and value >> 63 > 0 else str(value)
