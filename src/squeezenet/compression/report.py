"""What a compression did: bytes, fidelity to the float network, accuracy; as data and as a table.

Everything is measured on the encoded file through the engine, nothing is taken over from the compressor.

Use this when you have a `.sqz` file's bytes and the network it came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accounting import ALEXNET_FILE_BYTES, network_cost
from ..evaluation.comparison import Comparison
from ..evaluation.metrics import kl_divergence
from ..evaluation.predictor import Predictor
from ..fileformat import decode_sqz, stream_bytes
from .deep.deep_compression import LayerSizes

__all__ = ["Fidelity", "compression_report", "measure_fidelity", "pruning_table", "storage_table"]

PAPER_ROW = {"name": "SqueezeNet, Deep Compression at 6 bits (2016)", "file_bytes": 470_000, "ratio_vs_alexnet": 510}
"""The paper's best row, to stand beside ours (Iandola et al. 2016, table 2)."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How close a compressed network's answers are to the float network's."""

    n_images: int
    kl: float
    """Mean KL(float || compressed) of the class probabilities, nats."""
    agreement: float
    """Percent of the images on which both give the same class."""


def measure_fidelity(reference: Predictor, compressed: Predictor, pixels: NDArray[np.uint8]) -> Fidelity:
    """Compare two networks on pixels (N, H, W, 3), uint8, that neither was calibrated on."""
    expected, actual = reference.logits(pixels), compressed.logits(pixels)
    same = expected.argmax(axis=1) == actual.argmax(axis=1)
    return Fidelity(n_images=len(pixels), kl=kl_divergence(expected, actual), agreement=100 * float(same.mean()))


def compression_report(
    encoded: bytes,
    *,
    preset: str,
    fidelity: Fidelity | None,
    comparison: Comparison | None,
    layers_2016: Sequence[LayerSizes] = (),
    **facts: Any,
) -> dict[str, Any]:
    """Collect the facts of a compression as plain data for JSON.

    Args:
        encoded: The file's bytes; what is said about the network is read from them.
        preset: Which compressor made it.
        fidelity: Measured against the float network.
        comparison: With the float network, on labelled images.
        layers_2016: Sizes under the storage scheme of the paper, for the preset that follows it.
        facts: Further entries.
    """
    contents = decode_sqz(encoded)
    spec = contents.network.spec
    cost = network_cost(spec)
    streams = stream_bytes(encoded)
    layers = []
    for op in spec.convs:
        weight = contents.network.convs[op.name].weight
        layers.append(
            {
                "name": op.name,
                "params": op.params,
                "density": float((weight != 0).mean()),
                "largest_weight": int(np.abs(weight.astype(np.int16)).max()),
                "entropy_bits": _entropy_bits(weight),
                "coded_bits": 8 * streams[op.name],
                "bits_per_param": 8 * streams[op.name] / op.params,
            }
        )
    n_weights = sum(params.weight.size for params in contents.network.convs.values())
    n_kept = sum(int((params.weight != 0).sum()) for params in contents.network.convs.values())
    report = {
        "name": spec.name,
        "preset": preset,
        "params": cost.params,
        "macs": cost.macs,
        "fp32_bytes": cost.fp32_bytes,
        "file_bytes": len(encoded),
        "ratio_vs_fp32": cost.fp32_bytes / len(encoded),
        "ratio_vs_alexnet": ALEXNET_FILE_BYTES / len(encoded),
        "density": n_kept / n_weights,
        "fidelity": dataclasses.asdict(fidelity) if fidelity else None,
        "accuracy": comparison.to_dict() if comparison else None,
        "paper": PAPER_ROW,
        "layers": layers,
        "container_bytes": {key: streams[key] for key in ("ARCH", "META", "container")},
        **facts,
    }
    if layers_2016:
        report["deep_compression"] = {
            "layers": [
                {
                    "name": layer.name,
                    "params": layer.params,
                    "density": layer.density,
                    "params_kept": layer.n_kept + layer.params - layer.n_weights,
                    "n_centroids": layer.n_centroids,
                    "fillers": layer.sizes.fillers,
                    "huffman_bytes": layer.huffman_bytes,
                }
                for layer in layers_2016
            ],
            **_storage_steps(layers_2016),
        }
    return report


def pruning_table(layers: Sequence[LayerSizes]) -> list[tuple[str, ...]]:
    """Rows of the paper's table 1: layer, parameters, share of the weights kept, parameters kept, shared values."""
    rows = [
        (
            layer.name,
            f"{layer.params:,}",
            f"{layer.density:.0%}",
            f"{layer.n_kept + layer.params - layer.n_weights:,}",
            str(layer.n_centroids),
        )
        for layer in layers
    ]
    params = sum(layer.params for layer in layers)
    kept = sum(layer.n_kept + layer.params - layer.n_weights for layer in layers)
    return [*rows, ("total", f"{params:,}", f"{kept / params:.0%}", f"{kept:,}", "")]


def storage_table(layers: Sequence[LayerSizes], file_bytes: int) -> list[tuple[str, str, str]]:
    """Rows of the paper's table 2 for this network: step, bytes, ratio to float32."""
    steps = _storage_steps(layers)
    named = [
        ("float32", steps["fp32_bytes"]),
        ("pruned (float32 and 4-bit gaps)", steps["pruned_bytes"]),
        ("shared (fixed-length codes)", steps["shared_bytes"]),
        ("Huffman-coded (2016)", steps["huffman_bytes"]),
        ("this .sqz file", file_bytes),
    ]
    return [(name, f"{size:,}", f"{steps['fp32_bytes'] / size:.1f}x") for name, size in named]


def _storage_steps(layers: Sequence[LayerSizes]) -> dict[str, int]:
    biases = sum(layer.params - layer.n_weights for layer in layers)
    codebooks = sum(4 * layer.n_centroids for layer in layers)
    entries = sum(layer.sizes.n_entries for layer in layers)
    return {
        "fp32_bytes": 4 * sum(layer.params for layer in layers),
        "pruned_bytes": 4 * (entries + biases) + entries // 2,
        "shared_bytes": sum(layer.sizes.fixed_bits for layer in layers) // 8 + codebooks + 4 * biases,
        "huffman_bytes": sum(layer.huffman_bytes for layer in layers),
    }


def _entropy_bits(weight: NDArray[np.int8]) -> float:
    """Order-0 entropy of all weights of a layer, in bits."""
    counts = np.bincount(weight.reshape(-1).astype(np.int64) + 128)
    shares = counts[counts > 0] / weight.size
    return float(-(shares * np.log2(shares)).sum() * weight.size)
