"""Finds the shared library that was built from `csrc/`, and declares its functions.

The library is plain C that does not use Python's API, so one build works with every Python version. If there is no C
compiler during installation, the library is missing, and NumPy is used instead, which is slower. A library that was
built from other sources, as after an update of an editable installation, is not used: its structures may differ from
the ones declared here.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import zlib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from .errors import BadMagic, BadTable, ChecksumMismatch, FormatError, LimitExceeded, Truncated, UnsupportedVersion

__all__ = [
    "Conv", "ConvShape", "Fire", "Model", "Options", "RowSource", "Sizes", "Spec", "Stage", "Taught", "check_status",
    "load_library", "why_not_loaded",
]  # fmt: skip

MAX_FIRES = 64
MAX_TENSORS = 2 + 4 * MAX_FIRES

_ABI_VERSION = 4  # SQZ_ABI_VERSION of squeezenet.h
_FOLDER = Path(__file__).parent
_STEM = "_squeezenet"
_NOT_BUILT = "the native engine was not built: install a C compiler (Debian: apt install gcc) and reinstall squeezenet"
_FORMAT_ERRORS: dict[int, type[FormatError]] = dict(
    enumerate((BadMagic, Truncated, ChecksumMismatch, UnsupportedVersion, LimitExceeded, BadTable), start=1)
)


class _Tensor(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_float), ("zero_point", ctypes.c_uint8)]


class _Fire(ctypes.Structure):
    _fields_ = [(f"{part}_channels", ctypes.c_uint16) for part in ("squeeze", "expand1x1", "expand3x3")]


class Spec(ctypes.Structure):
    """`sqz_spec` of squeezenet.h."""

    _fields_ = [
        ("input_size", ctypes.c_uint16), ("num_classes", ctypes.c_uint16), ("stem_channels", ctypes.c_uint16),
        ("stem_kernel", ctypes.c_uint8), ("stem_stride", ctypes.c_uint8), ("stem_padding", ctypes.c_uint8),
        ("bypass", ctypes.c_uint8), ("pool_ceil_mode", ctypes.c_uint8), ("squeeze_relu", ctypes.c_uint8),
        ("head_relu", ctypes.c_uint8), ("head_padding", ctypes.c_uint8), ("n_fires", ctypes.c_uint8),
        ("has_pool", ctypes.c_uint8 * (MAX_FIRES + 2)),
        ("fires", _Fire * MAX_FIRES),
        ("n_tensors", ctypes.c_uint16),
        ("tensors", _Tensor * MAX_TENSORS),
    ]  # fmt: skip


class Options(ctypes.Structure):
    """`sqz_options` of squeezenet.h."""

    _fields_ = [
        ("kernels", ctypes.c_char_p), ("threads", ctypes.c_int), ("band_rows", ctypes.c_int),
        ("streamed", ctypes.c_int),
    ]  # fmt: skip


class Sizes(ctypes.Structure):
    """`sqz_sizes` of squeezenet.h."""

    _fields_ = [
        ("model_bytes", ctypes.c_size_t), ("load_bytes", ctypes.c_size_t), ("arena_bytes", ctypes.c_size_t),
        ("n_convs", ctypes.c_size_t), ("n_weights", ctypes.c_size_t), ("n_macs", ctypes.c_uint64),
        ("map_size", ctypes.c_int),
    ]  # fmt: skip


class Conv(ctypes.Structure):
    """`sqz_conv` of sqz_internal.h: a convolution whose weights are packed for a kernel set."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("in_channels", "out_channels", "kernel", "stride", "padding", "runs")),
        *((name, ctypes.c_int) for name in ("groups", "panels", "last_outputs")),
        ("panel_bytes", ctypes.c_size_t),
        *((name, ctypes.c_int) for name in ("in_zero", "out_zero", "is_set", "is_bounded")),
        ("largest_sum", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("weights", "kinds", "bias", "multiplier", "plain_bias")),
    ]  # fmt: skip


class _Add(ctypes.Structure):
    _fields_ = [("factor", ctypes.c_float * 2), ("zero", ctypes.c_int * 2), ("sum_zero", ctypes.c_int)]


class Fire(ctypes.Structure):
    """`sqz_fire` of sqz_internal.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("squeeze", "expand1x1", "expand3x3", "bypass")),
        ("has_add", ctypes.c_int), ("add", _Add),
    ]  # fmt: skip


class Stage(ctypes.Structure):
    """`sqz_stage` of sqz_internal.h: how many rows of a tensor exist, and where."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("channels", "map_channels", "size", "out_size", "has_pool", "rows")),
        ("is_added", ctypes.c_int), ("window_bytes", ctypes.c_size_t),
        *((name, ctypes.c_int) for name in ("step", "map_rows", "kept_rows", "band_rows")),
        *((name, ctypes.c_size_t) for name in ("map_at", "kept_at", "band_at", "spare_at")),
    ]  # fmt: skip


class _Needs(ctypes.Structure):
    _fields_ = [("rows", ctypes.c_size_t), ("products", ctypes.c_size_t), ("kernels", ctypes.c_uint)]


class Model(ctypes.Structure):
    """`sqz_model` of sqz_internal.h."""

    _fields_ = [
        ("kernels", ctypes.c_void_p), ("convs", ctypes.POINTER(Conv)), ("stem", ctypes.c_void_p),
        ("head", ctypes.c_void_p), ("fires", ctypes.POINTER(Fire)), ("stages", ctypes.POINTER(Stage)),
        ("n_convs", ctypes.c_size_t), ("n_set", ctypes.c_size_t),
        *((name, ctypes.c_int) for name in ("n_fires", "streamed", "keeps_head_input", "input_size", "stem_kernel")),
        *((name, ctypes.c_int) for name in ("head_relu", "head_padding")),
        *((name, ctypes.c_size_t) for name in ("input_at", "progress_at", "trunk_bytes", "scratch_bytes")),
        ("wide_bytes", ctypes.c_size_t), ("head_pixels", ctypes.c_int), ("head_panels", ctypes.c_int),
        ("sums_bytes", ctypes.c_size_t), ("integer_bytes", ctypes.c_size_t), ("needs", _Needs),
        ("n_macs", ctypes.c_uint64), ("shape_hash", ctypes.c_uint64),
    ]  # fmt: skip


class ConvShape(ctypes.Structure):
    """`sqz_conv_shape` of squeezenet.h."""

    _fields_ = [("in_channels", ctypes.c_int), ("out_channels", ctypes.c_int), ("kernel", ctypes.c_int)]


RowSource = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_uint8))
"""`sqz_row_source` of squeezenet.h."""


class Taught(ctypes.Structure):
    """`sqz_taught` of squeezenet.h."""

    _fields_ = [
        ("weight", ctypes.c_void_p), ("centre", ctypes.c_void_p), ("scores", ctypes.c_void_p),
        ("exponent", ctypes.c_int), ("gain", ctypes.c_int), ("base", ctypes.c_double), ("has_levels", ctypes.c_int),
    ]  # fmt: skip


def load_library() -> ctypes.CDLL | None:
    """Load the shared library; None if it was not built, or was built from other sources than those of this
    package.
    """
    return _load()[0]


def why_not_loaded() -> str:
    """Explain in one line why `load_library` returns None, and what to do."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    for suffix in EXTENSION_SUFFIXES:
        path = _FOLDER / (_STEM + suffix)
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
                library.sqz_abi.restype = ctypes.c_uint32
                if library.sqz_abi() == _abi():
                    return _declare(library), ""
            except (OSError, AttributeError):  # built for another machine, or before `sqz_abi` existed
                pass
            return None, f"the native engine was built for another version or machine ({path}): reinstall squeezenet"
    return None, _NOT_BUILT


def _abi() -> int:
    """Compute `sqz_abi` of squeezenet.h from the structures of this module."""
    numbers = [_ABI_VERSION]
    for structure in (_Tensor, _Fire, Spec, Options, Sizes, ConvShape, Conv, Fire, Stage, Model, Taught):
        numbers.append(ctypes.sizeof(structure))
        for declared in structure._fields_:
            field = getattr(structure, declared[0])
            numbers += [field.offset, field.size]
    return zlib.crc32(struct.pack(f"={len(numbers)}I", *numbers))


def check_status(library: ctypes.CDLL, status: int, where: str) -> None:
    """Raise the exception for a status other than 0.

    Raises:
        FormatError: A subclass, if bytes or integers were invalid.
        MemoryError: If a block was too small or the system could not start a thread.
        ValueError: If an argument was invalid.
    """
    if status == 0:
        return
    message = f"{where}: {library.sqz_status_text(status).decode()}"
    if status in _FORMAT_ERRORS:
        raise _FORMAT_ERRORS[status](message)
    if status == 8:
        raise MemoryError(message)
    raise ValueError(message)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, integer, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p
    out, spec, shape = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(Spec), ctypes.POINTER(ConvShape)
    options = ctypes.POINTER(Options)
    functions = {
        "sqz_status_text": (text, [integer]),
        "sqz_kernels_name": (text, [integer]), "sqz_kernels_of": (text, [pointer]),
        "sqz_measure": (integer, [spec, options, ctypes.POINTER(Sizes)]),
        "sqz_create": (integer, [spec, options, pointer, size, out]),
        "sqz_set_conv": (integer, [pointer, size, pointer, pointer, pointer]),
        "sqz_decoder_bytes": (size, [shape, size]),
        "sqz_decoder_create": (integer, [shape, size, pointer, size, out]),
        "sqz_encode_bytes": (size, [shape]),
        "sqz_encode_conv": (integer, [pointer, shape] + [pointer] * 4 + [size, ctypes.POINTER(size)]),
        "sqz_decode_conv": (integer, [pointer, text, size, shape, pointer, pointer, pointer]),
        "sqz_run_features": (integer, [pointer] * 3 + [size, pointer, size] + [pointer] * 3),
        "sqz_run_rows": (integer, [pointer, pointer, size, RowSource] + [pointer] * 4),
        "sqz_teach_bytes": (size, [integer] * 3),
        "sqz_teach": (
            integer,
            [pointer, integer, pointer, pointer, integer, integer, integer, pointer, size, ctypes.POINTER(Taught)],
        ),
        "sqz_peak": (ctypes.c_uint64, [text, ctypes.c_uint32]),
        "sqz_pool_bytes": (size, [integer]), "sqz_pool_create": (integer, [integer, pointer, size, out]),
        "sqz_pool_destroy": (None, [pointer]),
    }  # fmt: skip
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
