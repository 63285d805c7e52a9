"""Torch networks built from a spec, and the ways their weights come in and go out.

This is the lowest layer that imports torch; `import squeezenet` does not reach it.
"""

from .imagenet import imagenet_labels
from .squeezenet import (
    Fire,
    NormConv2d,
    SqueezeNet,
    build_model,
    fold_batch_norm,
    model_from_state,
    normalize_pixels,
    state_shapes,
)

__all__ = [
    "Fire",
    "NormConv2d",
    "SqueezeNet",
    "build_model",
    "fold_batch_norm",
    "imagenet_labels",
    "model_from_state",
    "normalize_pixels",
    "state_shapes",
]
