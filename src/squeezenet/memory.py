"""RAM and flash memory of a network on a microcontroller, for each form of its weights in exported C."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from .codec.native_weights import encode_weights_alone
from .coded import CodedPlan, lay_out_coded, layer_bytes
from .engine import NativeEngine, measure_memory
from .fileformat import SqzFile
from .native_library import Conv, Fire, Model, Stage
from .network import IntegerNetwork
from .spec import ArchSpec

__all__ = [
    "CODE_BYTES",
    "STACK_BYTES",
    "WEIGHTS",
    "ChipMemory",
    "CodedForm",
    "Weights",
    "chip_memory",
    "chip_ram_bytes",
    "coded_form",
    "small_engine",
]

Weights = Literal["flash", "ram", "coded"]
"""`flash`: constants, read from flash memory; `ram`: the `.sqz` file, decoded when the network is opened; `coded`:
    constants, decoded for each image."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
"""The forms, from the fastest to the slowest, including the time to open the network."""

STACK_BYTES = {"flash": 4_096, "ram": 12_288, "coded": 4_096}
"""Largest stack of opening and running, in bytes, compiled with -O1 or more; a test measures it."""
CODE_BYTES = {"flash": 12_288, "ram": 32_768, "coded": 16_384}
"""Largest code of the engine, in bytes, for Arm's Cortex-M at -Os; a test measures it."""
_ALIGN = 64  # SQZ_ALIGN
_SLACK = 64  # SQZ_SLACK
_LANES = 16  # SQZ_LANES
# What the structures take on a processor of 32 bits: four bytes a field, eight for whole numbers of 64 bits.
_WIDE = (ctypes.c_int64, ctypes.c_uint64)


@dataclass(frozen=True, kw_only=True)
class ChipMemory:
    """Memory of a network on a 32-bit microcontroller, in bytes."""

    weights: Weights
    arena_bytes: int
    """The arena, which is all memory except stack and logits; a constant of the header."""
    weight_bytes: int
    """Part of the arena for decoded weights."""
    stack_bytes: int
    logit_bytes: int
    """Memory of the caller for the logits."""
    constant_bytes: int
    """Flash memory for the model and the names of its classes."""
    code_bytes: int
    """Flash memory for the engine's code, an upper bound."""
    layers: tuple[tuple[str, int], ...]
    """Memory in use while groups of layers run: activations and, in the form `coded`, decoded weights."""

    @property
    def ram_bytes(self) -> int:
        """All RAM that a program needs: arena, stack and logits."""
        return self.arena_bytes + self.stack_bytes + self.logit_bytes

    @property
    def flash_bytes(self) -> int:
        """Code and constants."""
        return self.constant_bytes + self.code_bytes


class CodedForm(NamedTuple):
    """A network whose weights stay coded."""

    engine: NativeEngine
    """The schedule of the plan is set in it, so it cannot run here."""
    plan: CodedPlan
    streams: list[bytes]


def small_engine(network: IntegerNetwork) -> NativeEngine:
    """Build the engine as in exported C: kernels for small cores, and the schedule that needs the least memory."""
    return NativeEngine(network, threads=1, kernels="small", band_rows=1, streamed=-1)


def chip_ram_bytes(spec: ArchSpec) -> int:
    """Compute the RAM of an architecture with weights in flash memory: arena, stack and logits, bytes.

    Raises:
        ImportError: If the native engine, which computes it, was not built.

    Example:
        >>> from squeezenet.architectures import named_spec
        >>> chip_ram_bytes(named_spec("squeezenet1_1", input_size=224)) < 75_000
        True
    """
    return _flash_arena(spec) + STACK_BYTES["flash"] + 8 * spec.num_classes


def _flash_arena(spec: ArchSpec) -> int:
    activations: int = measure_memory(spec, kernels="small", band_rows=1, streamed=-1).arena_bytes
    return 2 * _ALIGN + activations


def chip_memory(contents: SqzFile, file_bytes: int, weights: Weights, coded: CodedForm | None = None) -> ChipMemory:
    """Return the memory of a network in one of the forms.

    Args:
        contents: The network with the names of its classes.
        file_bytes: Size of its `.sqz` file.
        weights: The form of the weights.
        coded: That form of the network, if the caller already has it.

    Raises:
        ImportError: If the native engine, which computes it, was not built.
    """
    network = contents.network
    sizes = measure_memory(network, kernels="small", band_rows=1, streamed=-1)
    names = sum(len(name.encode()) + 1 + 4 for name in contents.class_names)
    engine = small_engine(network)
    layers = layer_bytes(engine.layout)
    if weights == "flash":
        arena, decoded, constants = _flash_arena(network.spec), 0, _constant_bytes(engine)
    elif weights == "coded":
        engine, plan, streams = coded or coded_form(network)
        arena, decoded, layers = 3 * _ALIGN + plan.bytes, plan.weight_bytes, plan.layers
        constants = _constant_bytes(engine, streams)
    else:  # decoding is over when the first image comes
        decoded, constants = sizes.model_bytes, file_bytes
        arena = 2 * _ALIGN + decoded + max(sizes.load_bytes, sizes.arena_bytes)
    return ChipMemory(
        weights=weights, arena_bytes=arena, weight_bytes=decoded, stack_bytes=STACK_BYTES[weights],
        logit_bytes=8 * network.spec.num_classes, constant_bytes=constants + names, code_bytes=CODE_BYTES[weights],
        layers=layers,
    )  # fmt: skip


def coded_form(network: IntegerNetwork) -> CodedForm:
    """Plan the form `coded`: the addresses of decoded weights, and the coded streams. It takes a tenth of a second."""
    engine = small_engine(network)
    plan = lay_out_coded(engine.layout)
    return CodedForm(engine, plan, encode_weights_alone(network.spec.convs, network.convs))


def _constant_bytes(engine: NativeEngine, streams: list[bytes] | None = None) -> int:
    """Bytes of the model written as constants."""
    model = engine.layout
    convs = [model.convs[index] for index in range(model.n_convs)]
    weights = sum(conv.panel_bytes * conv.panels for conv in convs) + _SLACK
    if streams is not None:
        weights = sum(map(len, streams)) + 16 * len(streams) + 12  # with sqz_source and sqz_coded
    lanes = sum(conv.panels for conv in convs) * _LANES + (convs[-1].panels * _LANES if model.head_padding else 1) / 2
    structures = len(convs) * _size(Conv) + model.n_fires * _size(Fire) + (model.n_fires + 1) * _size(Stage)
    total: int = weights + int(8 * lanes) + structures + _size(Model)
    return total


def _size(structure: type[ctypes.Structure]) -> int:
    return sum(_field_size(field[1]) for field in structure._fields_)


def _field_size(kind: Any) -> int:
    if issubclass(kind, ctypes.Structure):
        return _size(kind)
    count: int = kind._length_ if issubclass(kind, ctypes.Array) else 1
    return count * (8 if kind in _WIDE else 4)
