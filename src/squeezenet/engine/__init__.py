"""The engines that run an integer network."""

from .native import NativeEngine, measure_memory, native_kernels
from .reference import ReferenceEngine

__all__ = ["NativeEngine", "ReferenceEngine", "measure_memory", "native_kernels"]
