"""Torch networks built from a spec, and the ways their weights come in and go out.

This is the lowest layer that imports torch; `import squeezenet` does not reach it.
"""

from ..errors import MissingDependencyError

with MissingDependencyError.named():
    import safetensors as _safetensors  # noqa: F401
    import torch as _torch  # noqa: F401

from .authors_net import load_net  # noqa: E402
from .fire import Fire, NormConv2d  # noqa: E402
from .pretrained import WEIGHTS, PublishedWeights, create_model, load_model, squeezenet1_0, squeezenet1_1  # noqa: E402
from .squeezenet import SqueezeNet, normalize_pixels  # noqa: E402
from .tensors import (  # noqa: E402
    float_network,
    fold_batch_norm,
    model_from_convs,
    model_from_foreign,
    model_from_state,
    state_shapes,
)
from .weights import load_safetensors, save_safetensors  # noqa: E402

__all__ = [
    "WEIGHTS", "Fire", "NormConv2d", "PublishedWeights", "SqueezeNet", "create_model", "float_network",
    "fold_batch_norm", "load_model", "load_net", "load_safetensors", "model_from_convs", "model_from_foreign",
    "model_from_state", "normalize_pixels", "save_safetensors", "squeezenet1_0", "squeezenet1_1", "state_shapes",
]  # fmt: skip
