"""The tables of README and docs, from results/*.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FP32_BYTES = {"1.0": 4 * 1_248_424, "1.1": 4 * 1_235_496}
MAX_KL = 0.055  # nats, of the ImageNet networks shown
MAX_SHOWN_KL = 0.25  # in the comparison of methods: what is further from the float network is of no use
MIB = 1 << 20
HOW = {
    "rate_distortion_labelled": "rate-distortion, trained on the training set",
    "rate_distortion": "rate-distortion, 200 unlabelled photos",
    "deep_compression": "Deep Compression",
}
VARIED = {"squeeze_ratio": "squeeze ratio", "pct_3x3": "share of 3x3 filters"}


def tables() -> dict[str, str]:
    """Each table by the name of its place."""
    foundation = read("foundation")
    return {
        "results:claims": claims(foundation),
        "results:claims-ko": claims(foundation, "ko"),
        "results:summary": summary(foundation),
        "results:table": results_table(foundation),
        "results:latency": latency_table(read("engine")),
        "results:engine": engine_table(),
        "results:web": web_table(read("web")),
        "results:web-peers": web_peers_table(read("web_peers")),
        "results:web-work": web_work_table(read("web_kernels"), read("web_work")),
        "compression": compression_table(read("compression")["results"]),
        "exponents": exponents_table(read("compression")["results"]),
        "tested": tested_table(),
        "litert": litert_table(read("litert")["results"]),
        "chips": chips_table(read("chips")["results"]),
        "coder": coder_table(read("coder")["results"]),
        "alexnet": alexnet_table(read("alexnet")["networks"]),
        "pareto": network_table("network", read("pareto")["networks"]),
        **{f"trend-{preset}": trend_table(result) for preset, result in read("trends").items()},
        **paper_tables(read("paper_counts")),
        **scale_tables(read("scale")),
    }


def read(name: str) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads((ROOT / f"results/{name}.json").read_text())
    return contents


def claims(results: dict[str, Any], language: str = "en") -> str:
    """The five claims at the top of the README, from `tools/claims/`."""
    timed = read("engine")
    engine = next(entry for entry in timed["results"] if entry["threads"] == 1)
    return (
        (ROOT / f"tools/claims/{language}.md")
        .read_text(encoding="utf-8")
        .rstrip()
        .format(
            published=smallest_faithful(read("compression")["results"])[0],
            ten=results["rate_distortion_labelled"],
            tuned=results["finetune"]["top1"],
            ms=engine["engines"][f"native_{timed['kernels'][0]}"]["latency_ms"],
            ratio=engine["ratio_vs_best_int8"],
        )
    )


def summary(results: dict[str, Any]) -> str:
    rows = [("model", "file_bytes", "ratio_vs_fp32", "top1", "top5", "on")]

    def add(model: str, entry: dict[str, Any], fp32_bytes: int, float_top1: float, on: str) -> None:
        size = entry["file_bytes"]
        top1, top5 = f"{entry['top1']:.1f} % (float {float_top1:.1f} %)", entry.get("top5")
        rows.append((model, f"{size:,}", f"{fp32_bytes / size:.1f}", top1, f"{top5:.1f} %" if top5 else "", on))

    for key, how in HOW.items():
        entry = results[key]
        on = f"imagenette, {entry['n_images']:,} photos"
        add(f"squeezenet1_1, 10 classes, {how}", entry, entry["fp32_bytes"], results["finetune"]["top1"], on)
    for row in smallest_faithful(read("compression")["results"]):
        name = f"squeezenet{row['model'].replace('.', '_')}, ImageNet, rate-distortion, 250 unlabelled photos"
        on = f"imagenet-500, {row['n_images']} photos not used for calibration"
        add(name, row, FP32_BYTES[row["model"]], row["float_top1"], on)
    int8, float_top1 = results["int8_1_1"], results["float_1_1"]["top1"]
    on = f"imagenet-500, {int8['n_images']} photos"
    add("squeezenet1_1, ImageNet, int8", int8, FP32_BYTES["1.1"], float_top1, on)
    return markdown_table(rows)


def smallest_faithful(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The smallest file of ours within MAX_KL, of each published network."""
    ours = [row for row in rows if row["method"] == "rate-distortion" and row["kl"] <= MAX_KL]
    return [
        min((row for row in ours if row["model"] == model), key=lambda row: row["file_bytes"]) for model in FP32_BYTES
    ]


def results_table(results: dict[str, Any]) -> str:
    int8, tuned = results["int8_1_1"], results["finetune"]
    networks = {
        "torchvision's 1.1 weights": "float_1_1",
        "the authors' 1.0 file": "float_1_0",
        "1.1 in int8": "int8_1_1",
    }
    right = "{top1_correct} top-1 and {top5_correct} top-5 of {n_images} correct"
    low, high = tuned["top1_interval"]
    rows = [
        ("what", "measured"),
        *(
            (f"{name}, imagenet-500", right.format(**results[key]))
            for name, key in networks.items()
        ),
        ("torch and engine agree bit for bit on 50 photos", "yes" if int8["is_torch_equal"] else "NO"),
        ("NumPy engine, 1.1 at 224, batches of 8", f"{int8['ms_per_image']:.0f} ms per image"),
        ("decoding 1.2 million int8 weights in plain Python", f"{int8['decode_python_s']:.1f} s"),
        ("imagenette, fine-tuned from 1.1",
         f"{tuned['top1']:.1f} % top-1 of {tuned['n_images']:,} (95 % interval {low:.1f} to {high:.1f})"),
    ]  # fmt: skip
    for key, how in HOW.items():
        entry = results[key]
        measured = f"{entry['top1']:.1f} % in {entry['file_bytes']:,} bytes, {entry['seconds'] / 60:.1f} min"
        rows.append((f"the same after {how}", measured))
    rows.append(("`squeezenet demo`", f"{results['demo_s']:.0f} s"))
    rows.append(("`squeezenet --help`", f"{1000 * results['help_s']:.0f} ms"))
    return f"{markdown_table(rows)}\n\n{by(results['run'])} Other work shared the machine, so times are upper bounds."


def latency_table(results: dict[str, Any]) -> str:
    """One row per net and thread count: this engine and its peers."""
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
    return f"{markdown_table(rows)}\n\nMedian ms per image. {by(results['run'])}"


def engine_table() -> str:
    """Other measurements of the engine."""
    cold, photos, avx2 = (read(name) for name in ("cold", "photos", "engine-avx2"))
    ours, torch = cold["results"]["squeezenet"], cold["results"]["torch"]
    rows = [
        ("what", "measured"),
        *equality_rows(read("equality")),
        *map(avx2_row, avx2["results"]),
        (
            "`squeezenet predict` of one photo, cold",
            f"{ours['wall_s']:.2f} s, {ours['peak_rss_bytes'] / 1e6:.0f} MB"
            f" (PyTorch {torch['wall_s']:.2f} s, {torch['peak_rss_bytes'] / 1e6:.0f} MB: {cold['speedup']:.1f} times)",
        ),
        (f"load and decode, a file of {cold['file_bytes']:,} bytes", f"{cold['load_ms']:.0f} ms"),
        (
            f"photos per second from JPEG files, {photos['photo_size'][0]}x{photos['photo_size'][1]}",
            f"{photos['results']['squeezenet']['photos_per_s']:.0f}"
            f" (PyTorch {photos['results']['torch']['photos_per_s']:.0f}: {photos['speedup']:.1f} times)",
        ),
    ]
    return markdown_table(rows)


def avx2_row(entry: dict[str, Any]) -> tuple[str, str]:
    net, threads = entry["net"].removeprefix("squeezenet").replace("_", "."), entry["threads"]
    return (
        f"AVX2 alone, {net}, {threads} {'thread' if threads == 1 else 'threads'}, over ONNX Runtime int8",
        f"{entry['ratio_native_avx2']:.2f}, compressed weights {entry['ratio_native_avx2_compressed']:.2f}",
    )


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
            "photos with a bit that differs from the NumPy engine, over all kernel sets and numbers of threads",
            f"{sum(count for _, count in compared):,} of {sum(n for n, _ in compared):,}",
        ),
        (
            "random networks with a bit that differs, each run by every kernel set",
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
    agreement, timing = results["agreement"], results["timing"]
    page, onnx, c = (agreement[key] for key in ("page", "onnx_1_1", "c_1_1_at_224"))
    loading, image = timing["loading"], timing["image_1_1_at_224"]
    same = all(agreement[key][machine]["bit_identical"] for key in ("c_1_1_at_224", "c_cifar")
               for machine in ("native", "arm_qemu"))  # fmt: skip
    rows = [
        ("what", "measured"),
        (f"page of 1.0 for {page['classes']:,} classes",
         f"{page['page_bytes']:,} bytes, including {page['runtime_bytes']:,} of runtime"),
        ("its logits in Chromium, identical to Python's bit for bit",
         f"{page['png_bit_identical']} of {page['n_photos']} photos as PNG, {page['jpeg_bit_identical']} as JPEG"),
        ("network requests", str(page["network_requests"])),
        ("ONNX Runtime against torch, floats",
         f"relative difference at most {onnx['float_largest_relative_difference']:.0e}"),
        ("ONNX Runtime against the engine, int8", f"{onnx['int8_top1_equal']} of {onnx['n_photos']} the same top-1,"
         f" logits differ by at most {onnx['int8_largest_difference']:.0e}"),
        ("exported C, here and on ARM", f"{'bit-identical' if same else 'DIFFERS'}; 1.1 at 224 in"
         f" {c['arena_bytes']:,} bytes of RAM"),
        ("page opened from disk", f"first paint after {loading['first_paint_ms'] / 1000:.2f} s,"
         f" ready after {loading['ready_ms'] / 1000:.2f} s"),
        ("1.1 at 224 in Chromium, one thread", f"{image['chromium_ms']:.1f} ms (PyTorch eager, one thread:"
         f" {image['torch_eager_one_thread_ms']:.1f} ms)"),
    ]  # fmt: skip
    runs = [results[part]["run"] for part in ("agreement", "timing")]
    made = "; ".join(f"`{run['command']}` at {run['commit']}, {run['date']}" for run in runs)
    return f"{markdown_table(rows)}\n\nBy {made}: {runs[0]['hardware']}."


def web_peers_table(results: dict[str, Any]) -> str:
    """The page beside other ways to run the same network in the same browser."""
    header = (
        "",
        "bytes to load",
        "first prediction",
        "time per photo, one thread",
        "two runs identical",
        "bit-identical to Python",
        "same class",
    )
    rows = [header]
    first, photos = results["first"], results["photos"]
    for name, loaded in first["peers"].items():
        peer = loaded | photos["peers"][name]
        version = f" {peer['version']}" if "version" in peer else ""
        rows.append((
            name.replace(",", f"{version},", 1) if "," in name else f"{name}{version}",
            f"{peer['bytes']:,}", f"{peer['first_answer_ms']:.0f} ms", f"{peer['ms']:.1f} ms",
            "yes" if peer["two_runs_equal"] else "NO",
            f"{peer['photos_with_python_s_bits']} of {photos['n_photos']}",
            f"{peer['same_class']} of {photos['n_photos']}",
        ))  # fmt: skip
    made = " and ".join(f"`{part['run']['command']}`, {part['run']['date']}" for part in (first, photos))
    made = f"By {made}: Chromium {first['chromium']}, {first['run']['hardware']}."
    return f"{markdown_table(rows)}\n\n{made}"


def web_work_table(kernels: dict[str, Any], work: dict[str, Any]) -> str:
    """Kernels against the commit before relaxed SIMD, bits, several photos at once, teaching."""
    bits, teach = kernels["bits"], work["teach"]
    differing = sum(sum(counts.values()) for counts in bits["networks"].values())
    differing += sum(bits["random_networks"].values())
    rows = [("what", "measured")]
    for timed in kernels["timing"]["networks"]:
        ms, share = timed["ms"], timed["share_of_before"]
        rows.append((
            f"{timed['net']}, {timed['file_bytes']:,} bytes, one thread",
            f"{ms['plain']:.1f} ms plain, {ms['pairs']:.1f} ms with relaxed SIMD ({share['pairs']:.2f} of"
            f" {ms['before']:.1f} ms before)",
        ))  # fmt: skip
    rows += [
        (f"logits that differ from Python's: {bits['n_photos']} photos of each of {len(bits['networks'])} networks and"
         f" {bits['n_random']} random networks, every kernel set", str(differing)),
        *((f"{many['n_photos']} photos at once, {many['cores']} cores",
           f"{many['photos_a_second']:.0f} per second, {many['speedup']:.2f} times one worker")
          for many in [work.get("many")] if many),
        ("teaching 100 photos; adding one more, until its prediction", f"{teach['teach_100_photos_s']:.1f} s;"
         f" {teach['one_more_photo_s']:.2f} s"),
        ("page before teaching; saved page with 5 classes and features of 250 photos",
         f"{teach['page_bytes']:,}; {teach['saved_page_bytes']:,} bytes"),
    ]  # fmt: skip
    run = kernels["timing"]["run"]
    return f"{markdown_table(rows)}\n\nBy `benchmarks/web_kernels.py` and `benchmarks/web_work.py`: {run['hardware']}."


def tested_table() -> str:
    """What the larger checks, too long for every change, last found."""
    equality, page = read("equality"), read("web")["agreement"]["page"]
    lockstep, kills, dead = read("lockstep"), read("kills"), read("dead_runs")
    commands, jobs = [kills["command"], kills["command_in_child"]], read("ray_jobs")["seen"]
    broken, photos = read("broken_inputs"), sum(net["n_images"] for net in equality["results"])
    different = sum(count for net in equality["results"] for count in net["n_different"].values())
    networks = equality["random_networks"]
    different += sum(networks["n_different"].values())
    deaths = [dead[task] for task in ("digits", "cifar10", "imagenette")]
    rows = [
        ("check", "by", "found"),
        (f"logits of every kernel set against NumPy's, {photos:,} photos and {networks['n_networks']} random networks",
         "`benchmarks/equality.py`", f"{different} different"),
        (f"logits in Chromium against Python's, {page['n_photos']} photos as PNG and as JPEG", "`benchmarks/web.py`",
         f"{2 * page['n_photos'] - page['png_bit_identical'] - page['jpeg_bit_identical']} different"),
        (f"{lockstep['n_files']:,} damaged files read in Python and in C", "`benchmarks/lockstep.py`",
         f"{lockstep['differences']} files accepted by one reader only, or refused with different errors"),
        (f"trainings killed {kills['ranks_1']['kills']} times at random moments and resumed", "`benchmarks/kills.py`",
         f"{kills['ranks_1']['same_bytes']} of {kills['ranks_1']['runs']} have the bytes of the uninterrupted run"),
        (f"`squeezenet train` killed {sum(one['kills'] for one in commands)} times, each continued by `--resume`",
         "`benchmarks/kills.py`",
         f"{sum(one['same_bytes'] for one in commands)} have the bytes of the uninterrupted run"),
        (f"{jobs['jobs']} jobs of `predict --ray` with drivers and workers killed, images changed, parts damaged",
         "`benchmarks/ray_jobs.py`",
         f"{jobs['rows twice or missing'] + jobs['rows of another image']} of {jobs['rows']:,} rows missing,"
         " duplicated or of a wrong image"),
        (f"trainings from scratch, {sum(task['seeds'] for task in deaths)} seeds", "`benchmarks/dead_runs.py`",
         f"{sum(task['dead'] for task in deaths)} that never learnt"),
        (f"{broken['commands']} commands on broken images, folders and files", "`benchmarks/broken_inputs.py`",
         f"{broken['tracebacks']} tracebacks"),
    ]  # fmt: skip
    return markdown_table(rows)


def compression_table(rows: list[dict[str, Any]]) -> str:
    """The rows in order of network and bytes."""
    header = ["SqueezeNet", "method", "setting", "bytes", "KL", "same class", "top-1 (float)", "time"]
    ordered = sorted(rows, key=lambda row: (row["model"], row["file_bytes"]))
    return markdown_table([header, *(
        [
            row["model"], row["method"], row["setting"], f"{row['file_bytes']:,}", f"{row['kl']:.3f}",
            f"{row['agreement']:.1f} %", f"{row['top1']:.1f} % ({row['float_top1']:.1f})",
            f"{row['seconds']} s" if "seconds" in row else "",
        ]
        for row in ordered if row["kl"] < MAX_SHOWN_KL
    )])  # fmt: skip


def exponents_table(rows: list[dict[str, Any]]) -> str:
    """How fast KL falls with bytes, KL ~ bytes^-p, between neighbouring files of one method."""
    header = ["SqueezeNet", "method", "bytes", "KL", "p", "1 % fewer bytes: KL"]
    shown = [header]
    for version, method in dict.fromkeys((row["model"], row["method"]) for row in rows):
        if "uniform" in method:
            continue
        points = sorted((row["file_bytes"], row["kl"]) for row in rows
                        if (row["model"], row["method"]) == (version, method))  # fmt: skip
        for (size, kl), (larger, less) in pairwise(points):
            exponent = math.log(kl / less) / math.log(larger / size)
            shown.append([
                version, method, f"{size:,} to {larger:,}", f"{kl:.3f} to {less:.3f}", f"{exponent:.1f}",
                f"{100 * (0.99**-exponent - 1):+.1f} %",
            ])  # fmt: skip
    return markdown_table(shown)


def litert_table(rows: list[dict[str, Any]]) -> str:
    """How near LiteRT comes to the engines."""
    header = [
        "network", "photos", "head", "kernels", "bytes", "same class",
        "largest difference of a logit", "largest logit", "ms",
    ]  # fmt: skip
    return markdown_table([header, *(
        [
            row["network"], str(row["n_photos"]), row["head"], row["kernels"], f"{row['file_bytes']:,}",
            f"{row['same_class']} of {row['n_photos']}", f"{row['largest_difference']:.1g}",
            f"{row['largest_logit']:.1f}", f"{row['ms']:.1f}",
        ]
        for row in rows
    )])  # fmt: skip


def coder_table(results: dict[str, dict[str, float | int | None]]) -> str:
    rows = [
        [
            "integers",
            "non-zero",
            "order-0 entropy, bytes",
            "coded, bytes",
            "vs. entropy",
            "NNCodec, bytes",
            "vs. NNCodec",
        ]
    ]
    for name, row in results.items():
        peer = row["nncodec_bytes"]
        rows.append([
            name.replace("_", " "), f"{100 * row['n_nonzero'] / row['n_weights']:.0f} %", f"{row['order0_bytes']:,}",
            f"{row['coded_bytes']:,}", f"{100 * row['ratio_vs_order0'] - 100:+.1f} %",
            f"{peer:,}" if peer else "", f"{100 * row['ratio_vs_nncodec'] - 100:+.1f} %" if peer else "",
        ])  # fmt: skip
    return markdown_table(rows)


def chips_table(results: list[dict[str, Any]]) -> str:
    rows = [["network", "weights", "core", "GCC", "instructions per MAC", "million instructions per image",
             "RAM, bytes", "flash memory", "code in flash memory", "photos that differ"]]  # fmt: skip
    order = sorted(results, key=lambda row: (-row["classes"], row["net"], row["weights"], row["optimize"], row["chip"]))
    for entry in order:
        version, size = entry["net"].removeprefix("squeezenet").split("@")
        rows.append([
            f"{version.replace('_', '.', 1).replace('_', ' ')} at {size}, {entry['classes']:,} classes",
            entry["weights"], entry["chip"], entry["optimize"], f"{entry['instructions_per_mac']:.2f}",
            f"{entry['run_instructions'] / 1e6:,.0f}", f"{entry['ram_bytes'] + entry['stack_bytes']:,}",
            f"{entry['flash_bytes']:,}", f"{entry['code_bytes']:,}",
            f"{entry['n_different']} of {entry['n_images']}",
        ])  # fmt: skip
    return markdown_table(rows)


def alexnet_table(networks: dict[str, dict[str, Any]]) -> str:
    rows = [["network", "parameters", "MACs", "weights", "bytes", "of AlexNet's float32", "top-1", "95 % interval"]]
    largest = networks["AlexNet"]["float32"]["file_bytes"]
    for name, forms in networks.items():
        params, macs = (f"{forms['float32'][key]:,}" for key in ("params", "macs"))
        for form, facts in forms.items():
            low, high = facts["top1_interval"]
            rows.append([
                name, params, macs, form, f"{facts['file_bytes']:,}", f"1/{largest / facts['file_bytes']:,.0f}",
                f"{facts['top1']:.1f} %", f"{low:.1f} to {high:.1f}",
            ])  # fmt: skip
    return markdown_table(rows)


def trend_table(result: dict[str, Any]) -> str:
    return network_table(VARIED[result["name"]], {f"{row['value']:g}": row for row in result["points"]})


def network_table(what: str, rows: dict[str, dict[str, Any]]) -> str:
    """Networks by what tells them apart, each with its counts and the accuracy of several seeds."""
    has_ram = all("ram_bytes" in row for row in rows.values())
    ram = ["RAM on a chip, bytes"] if has_ram else []
    header = [what, "parameters", "MACs", *ram, "int8 file, bytes", "top-1 of the file", "of each seed"]
    lines = [
        [
            title, f"{row['params']:,}", f"{row['macs']:,}", *([f"{row['ram_bytes']:,}"] if has_ram else []),
            f"{row['file_bytes']:,}",
            f"{row['top1_mean']:.1f} ± {row['top1_std']:.1f} %", ", ".join(f"{top1:.1f}" for top1 in row["top1"]),
        ]
        for title, row in rows.items()
    ]  # fmt: skip
    return markdown_table([header, *lines])


def paper_tables(results: dict[str, Any]) -> dict[str, str]:
    """The page's tables, by the name of their place."""
    parts = {}
    for preset, title in (
        ("paper-sr", "squeeze ratio"),
        ("paper-pct3x3", "3x3 share"),
        ("paper-bypass", "bypass"),
        ("late-downsampling", "pools after"),
    ):
        rows = [(title, "parameters", "float32, bytes", "MB", "MiB", "paper prints", "actual unit",
                 "MACs at 227", "peak activations, bytes", "paper's top-5")]  # fmt: skip
        for row in results[preset]:
            value = f"{row['value']:.3g}" if isinstance(row["value"], float) else str(row["value"]).replace(",", ", ")
            size = row["fp32_bytes"]
            printed = "" if row["printed_mb"] is None else f"{row['printed_mb']:g} MB"
            top5 = "" if row["printed_top5"] is None else f"{row['printed_top5']:.1f} %"
            counts = (f"{row['params']:,}", f"{size:,}", f"{size / 1e6:.2f}", f"{size / MIB:.2f}")
            costs = (f"{row['macs']:,}", f"{row['peak_activation_bytes']:,}")
            rows.append((value, *counts, printed, row["printed_is"] or "", *costs, top5))
        parts[preset] = markdown_table(rows)
    rows = [("layer", "output", "parameters", "paper", "kept, from the paper's shares", "kept, paper")]
    for row in results["table_1"]:
        output = f"{row['out_size']}x{row['out_size']}x{row['out_channels']}"
        rows.append((row["layer"], output, f"{row['params']:,}", f"{row['printed_params']:,}",
                     f"{row['kept']:,.0f}", f"{row['printed_kept']:,}"))  # fmt: skip
    total = [
        sum(row[key] for row in results["table_1"]) for key in ("params", "printed_params", "kept", "printed_kept")
    ]
    rows.append(("total", "", *(f"{value:,.0f}" for value in total)))
    parts["table-1"] = markdown_table(rows)
    return parts


def scale_tables(results: dict[str, Any]) -> dict[str, str]:
    predicted = results["predicted"]
    assumed = [("assumed", "value"), *((f"`{name}`", f"{value:g}") for name, value in predicted["assumed"].items())]
    return {
        "scale:parts": _parts_table(results),
        "scale:bulk": _bulk_table(predicted["bulk"]),
        "scale:train": _train_table(predicted),
        "scale:checks": _checks_table(results["checks"]),
        "scale:assumed": markdown_table(assumed),
    }


def _parts_table(results: dict[str, Any]) -> str:
    parts, run, core_ms = results["parts"], results["run"], results["predicted"]["core_ms"]
    names = {
        "read": "read the file", "decode": "decode, colours and orientation", "resize": "resize and crop",
        "infer": "infer, on one thread", "rows": "rows of the result",
    }  # fmt: skip
    rows = [
        ("part", "measured", "per"),
        *((what, f"{parts[f'{name}_ms']:.3f} ms", "image, one core") for name, what in names.items()),
        ("**total**", f"**{core_ms:.2f} ms**", f"image, one core: {1e3 / core_ms:.0f} images/s"),
        ("list", f"{parts['list_us']:.1f} us", f"file, and {parts['entry_bytes']:.0f} bytes of the driver's memory"),
        ("hand out", f"{parts['hand_out_ms']:.1f} ms", "block, to idle workers"),
        ("write", f"{parts['write_block_ms']:.1f} ms + {parts['write_row_us']:.2f} us", "block + per image in it"),
        ("merge", f"{parts['merge_row_us']:.2f} us", f"image; its row takes {parts['row_bytes']:.0f} bytes"),
        ("start", f"{parts['start_s']:.1f} s + {parts['first_block_s']:.1f} s",
         "cluster + until the first block is finished"),
        ("input of training", f"{parts['train_input_ms']:.2f} ms", "image, one core: decode, random crop"),
        ("step on a core", f"{parts['train_step_ms']:.1f} ms", "image, one core: forward, backward, update"),
    ]  # fmt: skip
    return (
        f"{markdown_table(rows)}\n\n{parts['image_bytes']:,.0f} bytes per image on average. By `{run['command']}` at"
        f" {run['commit']}, {run['date']}: {run['hardware']}."
    )


def _bulk_table(jobs: list[dict[str, Any]]) -> str:
    cores = [f"{cost['cores']:,} cores" for cost in jobs[0]["costs"]]
    rows = [("images", "list of files", "result", *cores)]
    for job in jobs:
        listed = _size(job["list_bytes"]) + ("" if job["is_list_held"] else ": too long, use Parquet")
        costs = [f"{_duration(cost['seconds'])} ({cost['bound']})" for cost in job["costs"]]
        rows.append((f"10^{len(str(job['n_images'])) - 1}", listed, _size(job["result_bytes"]), *costs))
    return markdown_table(rows)


def _train_table(predicted: dict[str, Any]) -> str:
    rows = [("GPUs", "decoding, ms per step", "GPU, ms", "gradients, ms", "all epochs", "speed-up", "bound by")]
    alone = predicted["train"][0]["hours"]
    for cost in predicted["train"]:
        times = (f"{1e3 * cost['decoding']:.1f}", f"{1e3 * cost['GPU']:.2f}", f"{1e3 * cost['gradients']:.2f}")
        hours = cost["hours"]
        rows.append((str(cost["gpus"]), *times, _duration(3600 * hours), f"{alone / hours:.1f}", cost["bound"]))
    return (
        f"{markdown_table(rows)}\n\nBy these assumptions a GPU processes {predicted['gpu_images_per_s']:,.0f} images/s;"
        f" {predicted['decoding_cores']:.0f} cores decode as many."
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


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows, of which the first is the header."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)
