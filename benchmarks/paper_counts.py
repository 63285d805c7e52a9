"""Count every network of the paper's exploration, exactly, beside what the paper prints.

Writes results/paper_counts.json; takes a second, trains nothing.

    python benchmarks/paper_counts.py
"""

from __future__ import annotations

from typing import Any

from environment import write_results

from squeezenet.accounting import network_cost, peak_activation_bytes
from squeezenet.architectures import named_spec
from squeezenet.exploration import load_space
from squeezenet.spec import ArchSpec
from squeezenet.training import Recipe

MIB = 1 << 20
# The paper's networks, at the 227 pixels of its tables.
PAPER = Recipe(epochs=1, lr=0.04, architecture="squeezenet1_0", input_size=227, head_relu=True)
NUM_CLASSES = 1000

# What Iandola et al. 2016 print, by preset and point: (megabytes, top-5 in percent), None where the text gives none.
PRINTED: dict[str, dict[Any, tuple[float | None, float | None]]] = {
    "paper-sr": {0.125: (4.8, 80.3), 0.75: (19, 86.0)},
    "paper-pct3x3": {0.5: (13, 85.6)},
    "paper-bypass": {"none": (4.8, 80.3), "simple": (4.8, 82.5), "complex": (7.7, 82.0)},
}
# Table 1: parameters, shares kept after pruning (squeeze, expand 1x1, expand 3x3; one for a plain layer), kept.
TABLE_1 = {
    "conv1": (14_208, (1.0,), 14_208), "fire2": (11_920, (1.0, 1.0, 0.33), 5_746),
    "fire3": (12_432, (1.0, 1.0, 0.33), 6_258), "fire4": (45_344, (1.0, 1.0, 0.33), 20_646),
    "fire5": (49_440, (1.0, 1.0, 0.33), 24_742), "fire6": (104_880, (1.0, 0.5, 0.33), 44_700),
    "fire7": (111_024, (0.5, 1.0, 0.33), 46_236), "fire8": (188_992, (1.0, 0.5, 0.33), 77_581),
    "fire9": (197_184, (0.5, 1.0, 0.30), 77_581), "conv10": (513_000, (0.20,), 103_400),
}  # fmt: skip


def count(spec: ArchSpec) -> dict[str, int]:
    cost = network_cost(spec)
    return {
        "params": cost.params,
        "fp32_bytes": cost.fp32_bytes,
        "macs": cost.macs,
        "peak_activation_bytes": peak_activation_bytes(spec),
    }


def follows(fp32_bytes: int, printed_mb: float) -> str:
    """In which unit a printed size is the exact one, to the digits printed: MB, MiB, both or neither."""
    digits = 1 if printed_mb < 10 else 0
    units = [name for name, unit in (("MB", 10**6), ("MiB", MIB)) if round(fp32_bytes / unit, digits) == printed_mb]
    return " and ".join(units) or "neither"


def points(preset: str) -> list[dict[str, Any]]:
    space = load_space(preset)
    rows = []
    for point in space.grid():
        (value,) = point.values()
        megabytes, top5 = PRINTED.get(preset, {}).get(value, (None, None))
        counted = count(space.spec(point, PAPER, NUM_CLASSES))
        unit = follows(counted["fp32_bytes"], megabytes) if megabytes is not None else None
        rows.append({"value": value, **counted, "printed_mb": megabytes, "printed_top5": top5, "printed_is": unit})
    return rows


def table_1() -> list[dict[str, Any]]:
    spec = named_spec("squeezenet1_0", input_size=227)
    rows = []
    for layer in network_cost(spec).layers:
        if layer.name not in TABLE_1:
            continue
        printed, shares, printed_kept = TABLE_1[layer.name]
        ops = [op for op in spec.convs if op.name.split(".")[0] == layer.name]
        kept = sum(
            share * op.out_channels * op.products_per_sum + op.out_channels
            for op, share in zip(ops, shares, strict=True)
        )
        rows.append(
            {"layer": layer.name, "out_size": layer.out_size, "out_channels": layer.out_channels,
             "params": layer.params, "printed_params": printed, "kept": kept, "printed_kept": printed_kept}
        )  # fmt: skip
    return rows


def measure() -> dict[str, Any]:
    presets = ("paper-sr", "paper-pct3x3", "paper-bypass", "late-downsampling")
    return {
        "command": "python benchmarks/paper_counts.py",
        "input_size": 227,
        "num_classes": NUM_CLASSES,
        "table_1": table_1(),
        **{preset: points(preset) for preset in presets},
    }


if __name__ == "__main__":
    write_results("paper_counts", measure())
