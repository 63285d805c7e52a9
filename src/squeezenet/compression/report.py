"""The report of a compression, measured on the encoded file by the engine: bytes, fidelity, accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..accounting import network_cost
from ..description import FileFacts
from ..evaluation.comparison import Comparison
from ..evaluation.metrics import kl_divergence
from .deep.huffman import LayerSizes
from .outcome import Distilled, RDPoint

__all__ = ["CompressionReport", "Fidelity", "pruning_table", "storage_table"]

PAPER_ROW = {"name": "SqueezeNet, Deep Compression at 6 bits (2016)", "file_bytes": 470_000, "ratio_vs_alexnet": 510}
"""The paper's best row, for comparison (Iandola et al. 2016, table 2)."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """How closely the predictions of a compressed network match those of the float network."""

    n_images: int
    kl: float
    """Mean KL(float || compressed) of the class probabilities, nats."""
    agreement: float
    """Percent of the images for which both predict the same class."""

    @classmethod
    def of(cls, expected: NDArray[np.float64], actual: NDArray[np.float64]) -> Fidelity:
        """Compare class scores (N, classes) of both networks on images that were not used for calibration."""
        same = expected.argmax(axis=1) == actual.argmax(axis=1)
        return cls(n_images=len(expected), kl=kl_divergence(expected, actual), agreement=100 * float(same.mean()))


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """The facts of a compression."""

    model: str
    """The MODEL as it was given."""
    method: str
    file: FileFacts
    fidelity: Fidelity | None
    """Fidelity to the float network on held-out photos; None without photos."""
    comparison: Comparison | None
    """Comparison with the float network on the labelled images of `val`."""
    layers_2016: tuple[LayerSizes, ...]
    points: tuple[RDPoint, ...]
    """Every network that the search of `RateDistortion` evaluated."""
    seconds: float
    calibration_photos: int
    calibration: str
    """Source of the activation scales: `photos`, or what was used instead."""
    is_chosen_on_val: bool
    """Whether the file was selected by its accuracy on `val`, which makes that accuracy optimistic."""
    meets_target: bool
    distilled: Distilled | None = None
    """Effect of distillation on unlabelled photos."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        spec, file = self.file.contents.network.spec, self.file
        cost = network_cost(spec)
        fields = ("name", "params", "density", "largest_weight", "entropy_bits")
        layers = [
            {field: getattr(stream, field) for field in fields}
            | {"coded_bits": 8 * stream.coded_bytes, "bits_per_param": stream.bits_per_param}
            for stream in file.streams
        ]
        report = {
            "name": spec.name,
            "preset": self.method,
            "params": cost.params,
            "macs": cost.macs,
            "fp32_bytes": cost.fp32_bytes,
            "file_bytes": file.file_bytes,
            "ratio_vs_fp32": file.ratio_vs_fp32,
            "ratio_vs_alexnet": file.ratio_vs_alexnet,
            "density": file.density,
            "fidelity": dataclasses.asdict(self.fidelity) if self.fidelity else None,
            "accuracy": self.comparison.to_dict() if self.comparison else None,
            "paper": PAPER_ROW,
            "layers": layers,
            "container_bytes": file.container_bytes,
            "model": self.model,
            "seconds": self.seconds,
            "calibration_photos": self.calibration_photos,
            "calibration": self.calibration,
            "is_data_free": not self.calibration_photos,
            "is_chosen_on_val": self.is_chosen_on_val,
            "meets_target": self.meets_target,
            "distilled": dataclasses.asdict(self.distilled) if self.distilled else None,
            "points": [dataclasses.asdict(point) for point in self.points],
        }
        if self.layers_2016:
            columns = ("name", "params", "density", "params_kept", "n_centroids", "fillers", "huffman_bytes")
            rows = [{column: getattr(layer, column) for column in columns} for layer in self.layers_2016]
            report["deep_compression"] = {"layers": rows, **_storage_steps(self.layers_2016)}
        return report

    def rows(self) -> list[tuple[str, str]]:
        """Rows of a table: what, measured."""
        file = self.file
        rows = [
            ("file", f"{file.file_bytes:,} bytes"),
            ("smaller than float32", f"{file.ratio_vs_fp32:.1f}x"),
            ("smaller than AlexNet", f"{file.ratio_vs_alexnet:.0f}x"),
        ]
        if self.fidelity:
            rows.append(("KL to the float network", f"{self.fidelity.kl:.4f} nats"))
            rows.append(("same class", f"{self.fidelity.agreement:.1f} % of {self.fidelity.n_images} photos"))
        if self.comparison:
            before, after = self.comparison.accuracies
            rows.append(("top-1", f"{after.top1:.2f} % (float {before.top1:.2f} %) of {after.n_images} images"))
        return rows


def pruning_table(layers: Sequence[LayerSizes]) -> list[tuple[str, ...]]:
    """Rows of the paper's table 1: layer, parameters, share of the weights kept, parameters kept, shared values."""
    rows = [(x.name, f"{x.params:,}", f"{x.density:.0%}", f"{x.params_kept:,}", str(x.n_centroids)) for x in layers]
    params, kept = sum(layer.params for layer in layers), sum(layer.params_kept for layer in layers)
    return [*rows, ("total", f"{params:,}", f"{kept / params:.0%}", f"{kept:,}", "")]


def storage_table(layers: Sequence[LayerSizes], file_bytes: int) -> list[tuple[str, str, str]]:
    """Rows of the paper's table 2 for this network: step, bytes, ratio to float32."""
    steps = _storage_steps(layers)
    names = ("float32", "pruned (float32 and 4-bit gaps)", "shared (fixed-length codes)", "Huffman-coded (2016)",
             "this .sqz file")  # fmt: skip
    sizes = (*steps.values(), file_bytes)
    return [(name, f"{size:,}", f"{sizes[0] / size:.1f}x") for name, size in zip(names, sizes, strict=True)]


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
