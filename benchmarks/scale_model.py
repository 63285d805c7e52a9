"""What large jobs cost, by a model of measured parts; `benchmarks/scale.py` measures them.

Everything that is assumed rather than measured stands in `ASSUMED`.
"""

from __future__ import annotations

from typing import Any

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


def predictions(parts: dict[str, float]) -> dict[str, Any]:
    """What docs/scale.md shows: bulk jobs by size and cores, the recipe `imagenet` by GPUs, and what was assumed."""
    jobs = []
    for n_images in SIZES:
        list_bytes = n_images * parts["entry_bytes"]
        is_held = list_bytes <= ASSUMED["driver_memory_bytes"]
        costs = [{"cores": cores, **bulk(parts, n_images, cores, from_files=is_held)} for cores in CORES]
        jobs.append({"n_images": n_images, "list_bytes": list_bytes, "is_list_held": is_held,
                     "result_bytes": n_images * parts["row_bytes"], "costs": costs})  # fmt: skip
    images_per_s = gpu_images_per_s(parts)
    return {
        "assumed": ASSUMED, "core_ms": 1e3 * core_s(parts), "bulk": jobs,
        "train": [{"gpus": gpus, **train(parts, gpus)} for gpus in GPUS], "gpu_images_per_s": images_per_s,
        "decoding_cores": images_per_s * parts["train_input_ms"] / 1e3,
    }  # fmt: skip
