"""Activation ranges of published weights, found by a fingerprint of the weights and not by a file's name.

`published_ranges.toml` is written by `tools/make_activation_ranges.py`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from ..models import SqueezeNet
from .quantize import required_preprocessing

__all__ = ["RANGES_FILE", "published_ranges", "weights_fingerprint"]

RANGES_FILE = Path(__file__).with_name("published_ranges.toml")


def published_ranges(model: SqueezeNet) -> dict[str, tuple[float, float]] | None:
    """Look up lowest and highest value of each quantised tensor but the input, for a network with published weights.

    None for other weights, and for published ones that were fine-tuned, resized or given another normalisation.

    Raises:
        QuantizationError: If the model has no preprocessing.
    """
    found = _ranges_by_fingerprint().get(weights_fingerprint(model))
    return None if found is None else dict(found)


def weights_fingerprint(model: SqueezeNet) -> str:
    """Identify a network by what it computes: a SHA-256 in hex.

    It covers the architecture but its name, the mean and deviation of the normalisation, and the weights and biases
    rounded to float16, so that half-precision copies count as well, in the order of `spec.convs`.
    """
    spec = {key: value for key, value in model.spec.to_dict().items() if key != "name"}
    preprocessing = required_preprocessing(model)
    described = json.dumps([spec, preprocessing.mean, preprocessing.std], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    for op in model.spec.convs:
        conv = model.convs[op.name]
        for values in (conv.weight, conv.bias):
            assert values is not None
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, in every copy alike
                rounded = values.detach().cpu().numpy().astype("<f2")
            digest.update(rounded.tobytes())
    return digest.hexdigest()


@functools.cache
def _ranges_by_fingerprint() -> dict[str, dict[str, tuple[float, float]]]:
    networks: dict[str, Any] = tomllib.loads(RANGES_FILE.read_text(encoding="utf-8"))
    return {
        network["fingerprint"]: {name: (low, high) for name, (low, high) in network["ranges"].items()}
        for network in networks.values()
    }
