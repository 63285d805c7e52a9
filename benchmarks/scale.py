"""Measure the parts of large jobs, and predict jobs from them: some that fit this machine and are run, and larger ones.

    python benchmarks/scale.py [MODEL.sqz ../shared/data/imagenet-500.zip]

Writes results/scale.json; takes some three minutes. Without arguments, nothing is measured: the predictions are made
again from the parts that the file holds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bulk import repeat_photos, run_single
from environment import ROOT, describe_run, write_results
from scale_model import bulk, core_s, predictions

from squeezenet.classifier import Classifier, rank

N_PHOTOS, N_ROUNDS, N_ROWS, BATCH, BLOCK = 200, 3, 50_000, 16, 128
N_CHECK = 3_000  # images of the jobs that are predicted and then run


def seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of this thread, the best of a few rounds; what other work takes is not counted."""
    times = []
    for _ in range(N_ROUNDS):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return min(times)


def measure_prediction(classifier: Classifier, folder: Path) -> dict[str, float]:
    import pyarrow as pa

    from squeezenet.cluster.worker import row_schema
    from squeezenet.preprocess import load_image

    paths = sorted(folder.iterdir())[:N_PHOTOS]
    data = [path.read_bytes() for path in paths]
    decoded = [load_image(item) for item in data]
    pixels = np.stack([classifier.preprocessing(image) for image in decoded])
    logits = classifier.logits(pixels)
    names = list(classifier.labels.names) if classifier.labels else [str(index) for index in range(logits.shape[1])]

    def rows() -> pa.Table:
        made = []
        for index, scores in enumerate(logits):
            ranked = rank(scores, 5)
            classes, shares = [names[position] for position, _ in ranked], [share for _, share in ranked]
            made.append({"index": index, "path": str(paths[index]), "class": classes[0], "probability": shares[0],
                         "top_classes": classes, "top_probabilities": shares})  # fmt: skip
        return pa.Table.from_pylist(made, schema=row_schema())

    def infer() -> None:
        for start in range(0, len(pixels), BATCH):
            classifier.logits(pixels[start : start + BATCH])

    calls = {
        "read": lambda: [path.read_bytes() for path in paths],
        "decode": lambda: [load_image(item) for item in data],
        "resize": lambda: [classifier.preprocessing(image) for image in decoded],
        "infer": infer,
        "rows": rows,
    }
    parts = {f"{name}_ms": 1e3 * seconds(call) / len(paths) for name, call in calls.items()}
    # `preprocessing` copies what is decoded already; that is counted with the resize.
    return {**parts, "image_bytes": statistics.mean(map(len, data)), **measure_writing(names)}


def measure_writing(names: list[str]) -> dict[str, float]:
    """Blocks of two sizes tell what a block costs and what a row; wall clock, since disks are waited for."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter, read_table, write_table

    from squeezenet.cluster.worker import row_schema
    from squeezenet.files import atomic_write

    generator = np.random.default_rng(0)
    made: list[dict[str, Any]] = []
    for index, shares in enumerate(generator.dirichlet(np.ones(5), N_ROWS).tolist()):
        classes = [names[position] for position in generator.integers(0, len(names), 5)]
        made.append({"index": index, "path": f"photos/{index:09}.jpg", "class": classes[0], "probability": shares[0],
                     "top_classes": classes, "top_probabilities": shares})  # fmt: skip
    large = pa.Table.from_pylist(made, schema=row_schema())
    small = large.slice(0, BLOCK)

    def write(rows: Any, path: Path) -> float:
        started = time.perf_counter()
        with atomic_write(path) as stream:
            write_table(rows, stream)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.parquet"
        small_s = min(write(small, path) for _ in range(20))
        large_s = min(write(large, path) for _ in range(N_ROUNDS))
        row_s = (large_s - small_s) / (len(large) - len(small))

        def merge() -> None:
            with ParquetWriter(Path(name) / "merged.parquet", large.schema) as writer:
                writer.write_table(read_table(path))

        merge_s = seconds(merge) / len(large)
        row_bytes = path.stat().st_size / len(large)
    return {
        "write_block_ms": 1e3 * (small_s - row_s * len(small)), "write_row_us": 1e6 * row_s,
        "merge_row_us": 1e6 * merge_s, "row_bytes": row_bytes,
    }  # fmt: skip


def measure_listing(folder: Path) -> dict[str, float]:
    import tracemalloc

    from squeezenet.cluster.entries import list_entries

    n_files = len(list(folder.iterdir()))
    list_s = seconds(lambda: list_entries([folder]))
    tracemalloc.start()
    kept = list_entries([folder])
    entry_bytes = tracemalloc.get_traced_memory()[0] / n_files
    tracemalloc.stop()
    del kept
    return {"list_us": 1e6 * list_s / n_files, "entry_bytes": entry_bytes}


def measure_handing_out() -> float:
    """Milliseconds per block when workers have nothing to do."""
    import pyarrow as pa

    from squeezenet.cluster import ClusterTasks

    def give_back(plan: pa.Table) -> pa.Table:
        return plan

    plan = pa.table({"index": list(range(BLOCK))})
    with ClusterTasks.open("local", give_back) as tasks:

        def run(n_blocks: int) -> float:
            started = time.perf_counter()
            for _ in tasks.run_all((number, (plan,)) for number in range(n_blocks)):
                pass
            return time.perf_counter() - started

        run(20)  # workers start
        few, many = min(run(20) for _ in range(2)), run(220)
    return 1e3 * (many - few) / 200


def measure_training(folder: Path, work: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The recipe `imagenet` on one core: input and step; and an epoch to check them on."""
    import torch

    from squeezenet.accounting import network_cost
    from squeezenet.architectures import named_spec
    from squeezenet.data.decode import decode_for_crops
    from squeezenet.models import SqueezeNet
    from squeezenet.process import keep_freed_memory
    from squeezenet.training import load_recipe, train_model
    from squeezenet.training.feed.augment import Augmentation, EpochDraw, augment

    keep_freed_memory()
    torch.set_num_threads(1)
    recipe = load_recipe("imagenet")
    data = [path.read_bytes() for path in sorted(folder.iterdir())[:N_PHOTOS]]
    decoded = [decode_for_crops(item, recipe.resize_size) for item in data]
    numbers = EpochDraw(len(data), seed=0, epoch=0).numbers
    crops = Augmentation(
        size=192, crop=recipe.crop, crop_scale=recipe.crop_scale, crop_ratio=(3 / 4, 4 / 3), hflip=True
    )
    decode_s = seconds(lambda: [decode_for_crops(item, recipe.resize_size) for item in data]) / len(data)
    crop_s = seconds(lambda: augment(decoded, numbers, crops)) / len(data)

    for label in range(2):  # two classes of the same photos: what is learned does not matter here
        (work / str(label)).mkdir(parents=True)
        for index, item in enumerate(data):
            (work / str(label) / f"{index}.jpg").write_bytes(item)
    short = recipe.replace(batch_size=32, warmup_epochs=0, mixup=0.0, cutmix=0.0, trivial_augment=False, lr=0.01)

    def img_per_s(n_epochs: int, run: str) -> float:
        train_model(str(work), str(work), run_dir=work.parent / run, recipe=short, epochs=n_epochs, progress=False)
        header, *rows = (line.split(",") for line in (work.parent / run / "log.csv").read_text().splitlines())
        return float(rows[-1][header.index("img_per_s")])

    # The first epoch of the first run tells the step; the second epoch of another is predicted from its parts.
    step_s = 1 / img_per_s(1, "first") - crop_s
    spec = named_spec("squeezenet1_1", num_classes=1000, input_size=192, bypass="simple")
    cost = network_cost(spec)
    parts = {
        "train_input_ms": 1e3 * (decode_s + crop_s), "train_step_ms": 1e3 * step_s, "batch_size": recipe.batch_size,
        "epochs": recipe.epochs, "train_macs": cost.macs, "train_activations": cost.activation_bytes,
        "gradient_bytes": 4 * sum(parameter.numel() for parameter in SqueezeNet(spec).parameters()),
    }  # fmt: skip
    check = {"what": "training on one core, its second epoch, images/s", "unit": "",
             "predicted": 1 / (crop_s + step_s), "measured": img_per_s(2, "second")}  # fmt: skip
    return parts, check


def measure(model: str, data: str) -> dict[str, Any]:
    from squeezenet.cluster import predict_to_parquet

    classifier = Classifier(model, threads=1)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = work / "photos"
        folder.mkdir()
        repeat_photos(data, folder, N_CHECK)
        parts = {**measure_prediction(classifier, folder), **measure_listing(folder)}
        training, training_check = measure_training(folder, work / "classes")
        parts |= {**training, "hand_out_ms": measure_handing_out()}
        before = os.times()
        run_single(model, folder, {min(os.sched_getaffinity(0))}, work / "one.jsonl")
        after = os.times()
        one_s = sum(after[2:4]) - sum(before[2:4])  # of ended children, which other work does not lengthen
        first = predict_to_parquet(model, [folder], work / "rows.parquet")
        parts |= {"start_s": first.start_s, "first_block_s": first.first_s}
        started = time.perf_counter()
        again = predict_to_parquet(model, [folder], work / "again.parquet")
        cluster_s = time.perf_counter() - started
    cores = again.n_processors
    checks = [
        {"what": f"{N_CHECK:,} images, `squeezenet predict` on one core, processor time", "unit": "s",
         "predicted": N_CHECK * core_s(parts), "measured": one_s},
        {"what": f"{N_CHECK:,} images, Ray on {cores} cores of one machine", "unit": "s",
         "predicted": bulk(parts, N_CHECK, cores, from_files=True)["seconds"], "measured": cluster_s},
        training_check,
    ]  # fmt: skip
    bulk_results = ROOT / "results" / "bulk.json"
    if bulk_results.exists():
        known = json.loads(bulk_results.read_text())
        n_images, cores = known["n_images"], known["cluster"]["processors"]
        checks.append(
            {"what": f"{n_images:,} images, the same, a worker killed (`benchmarks/bulk.py`)", "unit": "s",
             "predicted": bulk(parts, n_images, cores, from_files=True)["seconds"],
             "measured": known["cluster"]["wall_s"]}
        )  # fmt: skip
    return {"run": describe_run(), "parts": parts, "checks": checks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", help="a .sqz file")
    parser.add_argument("data", nargs="?", help="photos")
    options = parser.parse_args()
    if options.model and not options.data:
        parser.error("expected MODEL and DATA to measure, got MODEL alone")
    if options.model:
        results = measure(options.model, options.data)
    else:
        results = json.loads((ROOT / "results/scale.json").read_text())
    write_results("scale", {**results, "predicted": predictions(results["parts"])})


if __name__ == "__main__":
    main()
