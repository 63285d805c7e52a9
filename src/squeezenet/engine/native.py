"""The native engine: the integer network in C, bit-identical to the reference engine.

The library does no allocation of its own: weights, activations and thread state live in NumPy arrays held here. The
interpreter lock is released while it runs, and pixels are read where they are.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import SpecError, SqueezeNetError
from ..native_library import Model, Options, Sizes, Spec, check_status, load_library, why_not_loaded
from ..network import IntegerNetwork, TensorQuant, quantized_tensors
from ..process import usable_cores
from ..spec import ArchSpec

__all__ = ["NativeEngine", "measure_memory", "native_kernels"]

_BYPASS_CODES = {"none": 0, "simple": 1, "complex": 2}
_KERNELS_VARIABLE = "SQUEEZENET_KERNEL"
_MAX_THREADS = 256


def native_kernels() -> tuple[str, ...]:
    """Names of the kernel sets that this processor can run, the fastest first; empty if the engine was not built."""
    library = load_library()
    return () if library is None else _kernels_in(library)


@functools.cache  # asking the processor takes as long as decoding some thousand weights
def _kernels_in(library: ctypes.CDLL) -> tuple[str, ...]:
    names: list[str] = []
    while name := library.sqz_kernels_name(len(names)):
        names.append(name.decode())
    return tuple(names)


def measure_memory(
    network: IntegerNetwork | ArchSpec, *, kernels: str, threads: int = 1, band_rows: int = 0, streamed: int = 0
) -> Sizes:
    """Compute how much memory a network takes, without running it; the options are those of `NativeEngine`.

    All networks of an architecture take the same memory.

    Raises:
        ImportError: If the library was not built, or from other sources.
    """
    library = load_library()
    if library is None:
        raise ImportError(why_not_loaded())
    sizes = Sizes()
    options = Options(kernels.encode(), threads, band_rows, streamed)
    if isinstance(network, ArchSpec):
        spec = _native_spec(network, dict.fromkeys(quantized_tensors(network), TensorQuant(1.0, 0)))
    else:
        spec = _native_spec(network.spec, network.tensors)
    check_status(library, library.sqz_measure(spec, options, sizes), "network")
    return sizes


class NativeEngine:
    """Runs an `IntegerNetwork` on raw pixels, in C.

    Raises:
        ImportError: If the library was not built, or from other sources.
        ValueError: If `kernels` or `threads` is not possible on this machine.
    """

    def __init__(
        self,
        network: IntegerNetwork,
        *,
        threads: int | None = None,
        kernels: str | None = None,
        band_rows: int = 0,
        streamed: int = 0,
    ) -> None:
        """Pack the weights.

        Args:
            network: The network to run.
            threads: Number of threads, by default one per core; results do not depend on it.
            kernels: One of `native_kernels()`; by default the environment's SQUEEZENET_KERNEL, else the best.
            band_rows: Rows of a layer computed at a time; 0 for the fastest number, 1 for the least memory.
            streamed: Fire modules, from the first on, of whose input only a few rows exist at any time; -1 for as many
                as take the least memory. Only the rest of the network is shared by threads.
        """
        self._options: dict[str, Any] = {
            "threads": threads, "kernels": kernels, "band_rows": band_rows, "streamed": streamed,
        }  # fmt: skip
        library = load_library()
        if library is None:
            raise ImportError(why_not_loaded())
        wanted = os.environ.get(_KERNELS_VARIABLE)
        if not kernels and wanted and wanted not in native_kernels():
            raise SqueezeNetError(
                f"expected one of {', '.join(native_kernels())}, got {wanted!r}", source=_KERNELS_VARIABLE
            )
        kernels = kernels or wanted or None
        if kernels is not None and kernels not in native_kernels():
            raise ValueError(f"expected `kernels` to be one of {native_kernels()}, got {kernels!r}")
        threads = threads or min(usable_cores(), _MAX_THREADS)
        if not 1 <= threads <= _MAX_THREADS:
            raise ValueError(f"expected `threads` from 1 to {_MAX_THREADS}, got {threads}")
        self.network = network
        self.threads = threads
        self._library = library
        spec = _native_spec(network.spec, network.tensors)
        sizes = Sizes()
        options = Options(kernels.encode() if kernels else None, threads, band_rows, streamed)
        check_status(library, library.sqz_measure(spec, options, sizes), "network")
        self._sizes = sizes
        self._memory = np.empty(sizes.model_bytes, np.uint8)
        model = ctypes.c_void_p()
        status = library.sqz_create(spec, options, self._memory.ctypes.data, self._memory.nbytes, model)
        check_status(library, status, "network")
        self._model = model
        self._classes = network.spec.num_classes
        for index, op in enumerate(network.spec.convs):
            params = network.convs[op.name]
            arrays = [np.ascontiguousarray(array) for array in (params.weight, params.bias, params.multiplier)]
            status = library.sqz_set_conv(model, index, *(array.ctypes.data for array in arrays))
            check_status(library, status, op.name)
        # The arena and the pool serve one call at a time; other Python threads wait.
        self._lock = threading.Lock()
        self._arena = np.empty(sizes.arena_bytes, np.uint8)
        self._pool: _Pool | None = None  # its threads start with the first call
        _engines.add(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Return the network and the arguments: copying and unpickling create a new engine."""
        return functools.partial(type(self), **self._options), (self.network,)

    @property
    def kernels(self) -> str:
        """Name of the kernel set in use."""
        name: bytes = self._library.sqz_kernels_of(self._model)
        return name.decode()

    @property
    def layout(self) -> Model:
        """The model as it lies in memory, which this engine owns."""
        return Model.from_address(self._model.value or 0)

    @property
    def memory_bytes(self) -> int:
        """Bytes of packed weights and activations."""
        return self._memory.nbytes + self._arena.nbytes

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute class scores.

        Args:
            pixels: Raw RGB, shape (N, H, W, 3), uint8, H = W = the network's input size.

        Returns:
            Shape (N, classes), float64; bit-identical on every engine.
        """
        scores = np.empty((self.network.check_pixels(pixels), self._classes))
        self._run(pixels, scores=scores)
        return scores

    def features(self, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Compute what the head reads, summed over positions; see `ReferenceEngine.features`."""
        sums = np.empty((self.network.check_pixels(pixels), self.network.spec.num_features), np.int32)
        self._run(pixels, features=sums)
        return sums.astype(np.int64)

    def outputs(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Compute class scores and features in one run."""
        count = self.network.check_pixels(pixels)
        scores, sums = np.empty((count, self._classes)), np.empty((count, self.network.spec.num_features), np.int32)
        self._run(pixels, scores=scores, features=sums)
        return scores, sums.astype(np.int64)

    def activation_map(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Compute the class activation map: the tensor whose mean over positions is `logits`.

        Args:
            pixels: As for `logits`.

        Returns:
            Shape (N, h, w, classes), float64, one map a class.
        """
        side = self._sizes.map_size
        maps = np.empty((self.network.check_pixels(pixels), side, side, self._classes))
        self._run(pixels, maps=maps)
        return maps

    def _run(
        self, pixels: NDArray[np.uint8], *, scores: NDArray[np.float64] | None = None,
        maps: NDArray[np.float64] | None = None, features: NDArray[np.int32] | None = None,
    ) -> None:  # fmt: skip
        pixels = np.ascontiguousarray(pixels)
        with self._lock:
            if self._pool is None and self.threads > 1:
                self._pool = _Pool(self._library, self.threads)
            status = self._library.sqz_run_features(
                self._model, self._pool.handle if self._pool else None, self._arena.ctypes.data, self._arena.nbytes,
                pixels.ctypes.data, len(pixels),
                *(None if result is None else result.ctypes.data for result in (scores, maps, features)),
            )  # fmt: skip
        check_status(self._library, status, "network")


_engines: weakref.WeakSet[NativeEngine] = weakref.WeakSet()


def _forget_threads() -> None:
    """Reset pools and locks in a forked process: their threads exist only in the parent."""
    for engine in _engines:
        engine._lock = threading.Lock()
        if engine._pool:
            engine._pool.end.detach()  # it would wait for them
            engine._pool = None


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_threads)


class _Pool:
    """Threads that live as long as the engine."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        memory = np.empty(library.sqz_pool_bytes(threads), np.uint8)
        self.handle = ctypes.c_void_p()
        status = library.sqz_pool_create(threads, memory.ctypes.data, memory.nbytes, self.handle)
        check_status(library, status, f"{threads} threads")
        # The finaliser holds the memory until the threads have ended.
        self.end = weakref.finalize(
            self, lambda library, handle, memory: library.sqz_pool_destroy(handle), library, self.handle, memory
        )


def _native_spec(spec: ArchSpec, tensors: Mapping[str, TensorQuant]) -> Spec:
    if len(spec.fires) > len(Spec().fires):
        raise SpecError(f"expected at most {len(Spec().fires)} Fire modules, got {len(spec.fires)}")
    native = Spec(
        input_size=spec.input_size, num_classes=spec.num_classes, stem_channels=spec.stem.channels,
        stem_kernel=spec.stem.kernel, stem_stride=spec.stem.stride, stem_padding=spec.stem.padding,
        bypass=_BYPASS_CODES[spec.bypass], pool_ceil_mode=spec.pool_ceil_mode, squeeze_relu=spec.squeeze_relu,
        head_relu=spec.head_relu, head_padding=spec.head_padding, n_fires=len(spec.fires),
    )  # fmt: skip
    for index, fire in enumerate(spec.fires):
        native.fires[index] = (fire.squeeze_channels, fire.expand1x1_channels, fire.expand3x3_channels)
    for layer in spec.pools:
        native.has_pool[layer] = 1
    names = quantized_tensors(spec)
    native.n_tensors = len(names)
    for index, name in enumerate(names):
        native.tensors[index] = (tensors[name].scale, tensors[name].zero_point)
    return native
