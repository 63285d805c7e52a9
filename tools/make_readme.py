"""Fill the generated parts of README.md and docs/engine.md: tables from results/*.json, the layout from docstrings.

python tools/make_readme.py [--check]
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

from marked_places import fill, markdown_table

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs/engine.md")
FP32_BYTES = {"1.0": 4 * 1_248_424, "1.1": 4 * 1_235_496}
MAX_KL = 0.055  # nats, of the ImageNet networks shown
HOW = {
    "rate_distortion_labelled": "rate-distortion, trained on the training set",
    "rate_distortion": "rate-distortion, 200 unlabelled photos",
    "deep_compression": "Deep Compression",
}
_DESCRIBED = {
    "csrc": "the C engine: parser, decoder, kernels",
    "benchmarks": "scripts that measure; they write `results/`",
    "docs": "normative format and coding, command reference",
    "fuzz": "fuzzing harnesses",
    "tests": "tests; those that need `../shared` are skipped without it",
    "tools": "generators of documents and fixtures",
    "dev/LOG.md": "every experiment with its numbers, failures too",
}


def parts() -> dict[str, str]:
    results = read("foundation")
    return {
        "results:summary": summary(results),
        "results:table": results_table(results),
        "results:latency": latency_table(read("engine")),
        "results:engine": engine_table(),
        "results:web": web_table(read("web")),
        "layout": layout(),
    }


def read(name: str) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((ROOT / f"results/{name}.json").read_text())
    return contents


def summary(results: dict[str, Any]) -> str:
    tuned = results["finetune"]
    rows = [("model", "file_bytes", "ratio_vs_fp32", "top1", "top5", "on")]
    for key, how in HOW.items():
        if entry := results.get(key):
            rows.append(
                (
                    f"squeezenet1_1, 10 classes, {how}",
                    f"{entry['file_bytes']:,}",
                    f"{entry['fp32_bytes'] / entry['file_bytes']:.1f}",
                    f"{entry['top1']:.1f} % (float {tuned['top1']:.1f} %)",
                    f"{entry['top5']:.1f} %",
                    f"imagenette, {entry['n_images']:,} photos",
                )
            )
    rows += [
        (
            f"squeezenet{row['model'].replace('.', '_')}, ImageNet, rate-distortion, 250 unlabelled photos",
            f"{row['file_bytes']:,}",
            f"{FP32_BYTES[row['model']] / row['file_bytes']:.1f}",
            f"{row['top1']:.1f} % (float {row['float_top1']:.1f} %)",
            "",
            f"imagenet-500, {row['n_images']} photos that calibrated nothing",
        )
        for row in smallest_faithful(read("compression")["results"])
    ]
    int8 = results["int8_1_1"]
    rows.append(
        (
            "squeezenet1_1, ImageNet, int8",
            f"{int8['file_bytes']:,}",
            f"{FP32_BYTES['1.1'] / int8['file_bytes']:.1f}",
            f"{int8['top1']:.1f} % (float {results['float_1_1']['top1']:.1f} %)",
            f"{int8['top5']:.1f} %",
            f"imagenet-500, {int8['n_images']} photos",
        )
    )
    return markdown_table(rows)


def smallest_faithful(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each published network, the smallest file of ours that keeps to MAX_KL."""
    ours = [row for row in rows if row["method"] == "rate-distortion" and row["kl"] <= MAX_KL]
    return [
        min((row for row in ours if row["model"] == model), key=lambda row: row["file_bytes"]) for model in FP32_BYTES
    ]


def results_table(results: dict[str, Any]) -> str:
    rows = [("what", "measured")]
    for name, key in (
        ("torchvision's 1.1 weights", "float_1_1"),
        ("the authors' 1.0 file", "float_1_0"),
        ("1.1 in int8", "int8_1_1"),
    ):
        entry = results[key]
        right = f"{entry['top1_correct']} top-1 and {entry['top5_correct']} top-5 of {entry['n_images']} right"
        rows.append((f"{name}, imagenet-500", right))
    int8, tuned = results["int8_1_1"], results["finetune"]
    low, high = tuned["top1_interval"]
    rows += [
        ("torch and engine agree bit for bit on 50 photos", "yes" if int8["is_torch_equal"] else "NO"),
        ("NumPy engine, 1.1 at 224, batches of 8", f"{int8['ms_per_image']:.0f} ms an image"),
        ("decoding 1.2 million int8 weights in plain Python", f"{int8['decode_python_s']:.1f} s"),
        (
            "imagenette, fine-tuned from 1.1",
            f"{tuned['top1']:.1f} % top-1 of {tuned['n_images']:,} (95 % interval {low:.1f} to {high:.1f})",
        ),
    ]
    for key, how in HOW.items():
        if entry := results.get(key):
            rows.append(
                (
                    f"the same after {how}",
                    f"{entry['top1']:.1f} % in {entry['file_bytes']:,} bytes, {entry['seconds'] / 60:.1f} min",
                )
            )
    if "demo_s" in results:
        rows.append(("`squeezenet demo`", f"{results['demo_s']:.0f} s"))
        rows.append(("`squeezenet --help`", f"{1000 * results['help_s']:.0f} ms"))
    return f"{markdown_table(rows)}\n\n{by(results['run'])} Other work shared the machine, so times are upper bounds."


def latency_table(results: dict[str, Any]) -> str:
    """One row a net and thread count: this engine and its peers."""
    peers = {
        "onnxruntime_int8": "ONNX Runtime int8",
        "openvino_int8": "OpenVINO int8",
        "openvino_bf16": "OpenVINO bf16",
        "onnxruntime_fp32": "ONNX Runtime fp32",
        "torch_fp32": "PyTorch fp32",
    }
    ours = f"native_{results['kernels'][0]}"
    # The highest of the peaks measured: other work on the machine can only lower one.
    peak = max(entry["peak_gmacs_a_thread"] for entry in results["results"])
    rows = [("net, threads", f"`{results['kernels'][0]}`", *peers.values(), "ratio to best int8", "share of peak")]
    for entry in results["results"]:
        times = [entry["engines"][name]["latency_ms"] for name in (ours, *peers)]
        rows.append(
            (
                f"{entry['net'].removeprefix('squeezenet').replace('_', '.')}, {entry['threads']}",
                *(f"{time:.2f}" for time in times),
                f"{entry['ratio_vs_best_int8']:.2f}",
                f"{100 * entry['gmacs'] / (peak * entry['threads']):.0f} %",
            )
        )
    return f"{markdown_table(rows)}\n\nMedian ms an image. {by(results['run'])}"


def engine_table() -> str:
    """What else the engine is measured by, against what it must be."""
    cold, photos, avx2 = (read(name) for name in ("cold", "photos", "engine-avx2"))
    ours, torch = cold["results"]["squeezenet"], cold["results"]["torch"]
    rows = [
        ("what", "measured"),
        *(equality_rows(read("equality")) if (ROOT / "results/equality.json").exists() else ()),
        *(
            (
                f"AVX2 alone, {entry['net'].removeprefix('squeezenet').replace('_', '.')}, {entry['threads']} threads,"
                " over ONNX Runtime int8",
                f"{entry['ratio_native_avx2']:.2f}, compressed weights {entry['ratio_native_avx2_compressed']:.2f}",
            )
            for entry in avx2["results"]
        ),
        (
            "`squeezenet predict` of one photo, cold",
            f"{ours['wall_s']:.2f} s, {ours['peak_rss_bytes'] / 1e6:.0f} MB"
            f" (PyTorch {torch['wall_s']:.2f} s, {torch['peak_rss_bytes'] / 1e6:.0f} MB: {cold['speedup']:.1f} times)",
        ),
        (f"load and decode, a file of {cold['file_bytes']:,} bytes", f"{cold['load_ms']:.0f} ms"),
        (
            f"photos a second from JPEG files, {photos['photo_size'][0]}x{photos['photo_size'][1]}",
            f"{photos['results']['squeezenet']['photos_per_s']:.0f}"
            f" (PyTorch {photos['results']['torch']['photos_per_s']:.0f}: {photos['speedup']:.1f} times)",
        ),
    ]
    return markdown_table(rows)


def equality_rows(equality: dict[str, Any]) -> list[tuple[str, str]]:
    compared = [
        (result[kind], count)
        for result in equality["results"]
        for kind in ("n_images", "n_images_ports")
        for count in result[kind.replace("n_images", "n_different")].values()
        if count is not None
    ]
    random = equality["random_networks"]
    return [
        (
            "photos with a bit that differs from the NumPy engine, all kernel sets and threads counted",
            f"{sum(count for _, count in compared):,} of {sum(n for n, _ in compared):,}",
        ),
        (
            "random networks with one, each with every kernel set",
            f"{sum(random['n_different'].values())} of {random['n_networks']:,}",
        ),
    ]


def by(run: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version)
    return (
        f"By `{run['command']}` at {run['commit']}, {run['date']}: {run['hardware']};"
        f" Python {run['python']}, {versions}."
    )


def web_table(results: dict[str, Any]) -> str:
    """What `benchmarks/web.py` measured; its two parts may have run at different times."""
    rows = [("what", "measured")]
    if agreement := results.get("agreement"):
        page, onnx = agreement["page"], agreement["onnx_1_1"]
        photos, n = page["n_photos"], onnx["n_photos"]
        c = agreement["c_1_1_at_224"]
        same = all(agreement[key][machine]["bit_identical"] for key in ("c_1_1_at_224", "c_cifar")
                   for machine in ("native", "arm_qemu"))  # fmt: skip
        rows += [
            (
                f"page of 1.0 for {page['classes']:,} classes",
                f"{page['page_bytes']:,} bytes, of them {page['runtime_bytes']:,} runtime",
            ),
            ("its logits in Chromium, as Python's to the bit", f"{page['png_bit_identical']} of {photos} photos as PNG,"
             f" {page['jpeg_bit_identical']} as JPEG"),
            ("requests to a network", str(page["network_requests"])),
            ("ONNX Runtime against torch, floats", f"at most {onnx['float_largest_relative_difference']:.0e} relative"),
            ("ONNX Runtime against the engine, int8", f"{onnx['int8_top1_equal']} of {n} top-1,"
             f" logits within {onnx['int8_largest_difference']:.0e}"),
            ("exported C, here and on ARM", f"{'bit-identical' if same else 'DIFFERS'}; 1.1 at 224 in"
             f" {c['arena_bytes']:,} bytes of RAM"),
        ]  # fmt: skip
    if timing := results.get("timing"):
        loading, image = timing["loading"], timing["image_1_1_at_224"]
        rows += [
            ("page opened from disk", f"painted after {loading['first_paint_ms'] / 1000:.2f} s,"
             f" ready after {loading['ready_ms'] / 1000:.2f} s"),
            ("1.1 at 224 in Chromium, one thread", f"{image['chromium_ms']:.1f} ms (PyTorch eager on one:"
             f" {image['torch_eager_one_thread_ms']:.1f} ms)"),
        ]  # fmt: skip
    runs = [results[part]["run"] for part in ("agreement", "timing") if part in results]
    made = "; ".join(f"`{run['command']}` at {run['commit']}, {run['date']}" for run in runs)
    return f"{markdown_table(rows)}\n\nBy {made}: {runs[0]['hardware']}."


def layout() -> str:
    lines = ["```"]
    package = ROOT / "src/squeezenet"
    lines.append("src/squeezenet/")
    for path in sorted(package.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            lines.append(f"  {path.name + '/':<18} {first_line(path / '__init__.py')}")
        elif path.suffix == ".py" and not path.name.startswith("__"):
            lines.append(f"  {path.name:<18} {first_line(path)}")
    lines += [f"{name:<20} {what}" for name, what in _DESCRIBED.items() if (ROOT / name).exists()]
    return "\n".join([*lines, "```"])


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if the README is not up to date")
    arguments = parser.parse_args()
    filling = parts()
    for page in PAGES:
        filled = fill(page.read_text(), filling)
        if arguments.check and filled != page.read_text():
            sys.exit(f"{page.name} is not up to date: run `make docs`")
        if not arguments.check:
            page.write_text(filled)


if __name__ == "__main__":
    main()
