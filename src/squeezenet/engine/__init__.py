"""The engines that run an integer network."""

from .native import NativeEngine, available_cores, measure_memory, native_kernels
from .reference import ReferenceEngine

__all__ = ["NativeEngine", "ReferenceEngine", "available_cores", "measure_memory", "native_kernels"]
