"""The engines that run an integer network."""

from .reference import ReferenceEngine

__all__ = ["ReferenceEngine"]
