"""What large jobs cost, by a model of measured parts; `benchmarks/scale.py` measures them and fills docs/scale.md.

Everything that is assumed rather than measured stands in `ASSUMED`.
"""

from __future__ import annotations

from typing import Any

from marked_places import markdown_table

# Not measurable here: published peaks, and round figures for shares of them and for networks.
ASSUMED = {
    "store_bytes_per_s": 1.25e9,  # 10 Gbit/s between an object store and all workers together
    "driver_memory_bytes": 64e9,
    "gpu_flops": 989e12,  # H100 SXM, dense bf16, by its data sheet
    "gpu_flops_share": 0.10,  # of it that small 1x1 and 3x3 layers reach
    "gpu_bytes_per_s": 3.35e12,  # by the data sheet
    "activation_passes": 8,  # times that a step reads or writes each activation, in two bytes
    "cores_per_gpu": 16,
    "link_bytes_per_s": 25e9,  # 200 Gbit/s to each GPU
    "link_latency_s": 10e-6,  # of one of the 2 (G - 1) turns of a ring
}
SIZES = (10**6, 10**7, 10**8, 10**9, 10**10)
CORES = (2, 64, 1024, 16384)
GPUS = (1, 2, 4, 8, 16, 32, 64)
IMAGENET_IMAGES = 1_281_167
MIN_BLOCK, MAX_BLOCK, BLOCKS = 128, 100_000, 4_000  # as in squeezenet/cluster/bulk.py
PARTS = ("read", "decode", "resize", "infer", "rows")


def core_s(parts: dict[str, float]) -> float:
    """Seconds of one core for one image."""
    return sum(parts[f"{name}_ms"] for name in PARTS) / 1e3


def bulk(parts: dict[str, float], n_images: int, cores: int, *, from_files: bool) -> dict[str, Any]:
    """Seconds of a bulk prediction, and what bounds it."""
    block = min(max(MIN_BLOCK, n_images // BLOCKS), MAX_BLOCK)
    seconds = {
        "workers": n_images * core_s(parts) / cores,
        "store": n_images * parts["image_bytes"] / ASSUMED["store_bytes_per_s"],
        "driver": n_images
        * (parts["write_row_us"] / 1e6 + (parts["write_block_ms"] + parts["hand_out_ms"]) / 1e3 / block),
    }
    merge_s = n_images * parts["merge_row_us"] / 1e6
    fixed = {
        "start": parts["start_s"] + parts["first_block_s"],
        "list and merge": merge_s + n_images * parts["list_us"] / 1e6 * from_files,
    }
    bound = max(seconds, key=lambda name: seconds[name])
    slowest = max(fixed, key=lambda name: fixed[name])
    return {
        "seconds": seconds[bound] + sum(fixed.values()),
        "bound": slowest if fixed[slowest] > seconds[bound] else bound,
    }


def train(parts: dict[str, float], gpus: int) -> dict[str, Any]:
    """Seconds of a step of the recipe `imagenet`, and what bounds it."""
    images = parts["batch_size"] / gpus
    input_s = images * parts["train_input_ms"] / 1e3 / ASSUMED["cores_per_gpu"]
    compute_s = images / gpu_images_per_s(parts)
    turns = 2 * (gpus - 1)
    gradients_s = (
        turns / gpus * parts["gradient_bytes"] / ASSUMED["link_bytes_per_s"] + turns * ASSUMED["link_latency_s"]
    )
    step_s = max(input_s, compute_s) + gradients_s
    times = {"decoding": input_s, "GPU": compute_s, "gradients": gradients_s}
    steps = parts["epochs"] * (IMAGENET_IMAGES // parts["batch_size"])
    return {
        **times,
        "step_s": step_s,
        "hours": steps * step_s / 3600,
        "bound": max(times, key=lambda name: times[name]),
    }


def gpu_images_per_s(parts: dict[str, float]) -> float:
    by_flops = ASSUMED["gpu_flops"] * ASSUMED["gpu_flops_share"] / (6 * parts["train_macs"])
    by_memory = ASSUMED["gpu_bytes_per_s"] / (2 * ASSUMED["activation_passes"] * parts["train_activations"])
    return float(min(by_flops, by_memory))


def tables(results: dict[str, Any]) -> dict[str, str]:
    parts = results["parts"]
    return {
        "scale:parts": _parts_table(results),
        "scale:bulk": _bulk_table(parts),
        "scale:train": _train_table(parts),
        "scale:checks": _checks_table(results["checks"]),
        "scale:assumed": markdown_table(
            [("assumed", "value"), *((f"`{name}`", f"{value:g}") for name, value in ASSUMED.items())]
        ),
    }


def _parts_table(results: dict[str, Any]) -> str:
    parts, run = results["parts"], results["run"]
    rows = [("part", "measured", "of")]
    rows += [
        (f"{name}{what}", f"{parts[f'{name}_ms']:.3f} ms", "an image, one core")
        for name, what in zip(
            PARTS,
            (" the file", ", colours and orientation", " and crop", ", on one thread", " of the result"),
            strict=True,
        )
    ]
    rows += [
        ("**all of it**", f"**{1e3 * core_s(parts):.2f} ms**", f"an image, one core: {1 / core_s(parts):.0f} images/s"),
        ("list", f"{parts['list_us']:.1f} us", f"a file, and {parts['entry_bytes']:.0f} bytes of the driver's memory"),
        ("hand out", f"{parts['hand_out_ms']:.1f} ms", "a block, to workers with nothing to do"),
        (
            "write",
            f"{parts['write_block_ms']:.1f} ms + {parts['write_row_us']:.2f} us",
            "a block, and each image of it",
        ),
        ("merge", f"{parts['merge_row_us']:.2f} us", f"an image; its row takes {parts['row_bytes']:.0f} bytes"),
        (
            "start",
            f"{parts['start_s']:.1f} s + {parts['first_block_s']:.1f} s",
            "a cluster, and until its first block is back",
        ),
        ("input of training", f"{parts['train_input_ms']:.2f} ms", "an image, one core: decode for crops, crop"),
        ("step on a core", f"{parts['train_step_ms']:.1f} ms", "an image, one core: forward, backward, update"),
    ]
    return (
        f"{markdown_table(rows)}\n\n{parts['image_bytes']:,.0f} bytes an image on average. By `{run['command']}` at"
        f" {run['commit']}, {run['date']}: {run['hardware']}."
    )


def _bulk_table(parts: dict[str, float]) -> str:
    rows = [("images", "list of files", "result", *(f"{cores:,} cores" for cores in CORES))]
    for n_images in SIZES:
        listed = n_images * parts["entry_bytes"]
        fits = listed <= ASSUMED["driver_memory_bytes"]
        cells = []
        for cores in CORES:
            cost = bulk(parts, n_images, cores, from_files=fits)
            cells.append(f"{_duration(cost['seconds'])} ({cost['bound']})")
        name = f"10^{len(str(n_images)) - 1}"
        shown = _size(listed) if fits else f"{_size(listed)}: too long, Parquet instead"
        rows.append((name, shown, _size(n_images * parts["row_bytes"]), *cells))
    return markdown_table(rows)


def _train_table(parts: dict[str, float]) -> str:
    rows = [("GPUs", "decoding, ms a step", "GPU, ms", "gradients, ms", "all epochs", "speed-up", "bound by")]
    alone = train(parts, 1)["hours"]
    for gpus in GPUS:
        cost = train(parts, gpus)
        rows.append(
            (str(gpus), f"{1e3 * cost['decoding']:.1f}", f"{1e3 * cost['GPU']:.2f}", f"{1e3 * cost['gradients']:.2f}",
             _duration(3600 * cost["hours"]), f"{alone / cost['hours']:.1f}", cost["bound"])
        )  # fmt: skip
    needed = gpu_images_per_s(parts) * parts["train_input_ms"] / 1e3
    return (
        f"{markdown_table(rows)}\n\nA GPU would take {gpu_images_per_s(parts):,.0f} images/s by the assumptions;"
        f" {needed:.0f} cores decode as many."
    )


def _checks_table(checks: list[dict[str, Any]]) -> str:
    rows = [("what", "predicted", "measured", "measured / predicted")]
    for check in checks:
        ratio = check["measured"] / check["predicted"]
        rows.append(
            (
                check["what"],
                f"{check['predicted']:.1f} {check['unit']}",
                f"{check['measured']:.1f} {check['unit']}",
                f"{ratio:.2f}",
            )
        )
    return markdown_table(rows)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _size(size_bytes: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= length:
            return f"{size_bytes / length:.3g} {unit}"
    return f"{size_bytes:,.0f} B"
