"""The figures on the pages of concepts, from results/*.json."""

from __future__ import annotations

from typing import Any

from tables import FP32_BYTES, markdown_table, read


def concept_tables() -> dict[str, str]:
    """Each table by the name of its place."""
    return {
        "concepts:exact": _exact_table(),
        "concepts:budgets": _budget_table(read("compression")["results"]),
        "concepts:unknown": _unknown_table(read("unknown")),
        "concepts:resume": _resume_table(read("kills")),
        "concepts:memory": _memory_table(read("cold")["results"]),
    }


def _exact_table() -> str:
    """Everything that was compared with the NumPy engine, and how much of it differed."""
    equality, page, forms = read("equality"), read("web")["agreement"]["page"], read("forms")
    rows = [["compared with NumPy's logits", "inputs", "inputs that differ"]]
    counts: dict[str, list[int]] = {}
    for net in equality["results"]:
        for name, differ in net["n_different"].items():
            kernels = name.split(",")[0]
            counts.setdefault(f"`{kernels}` kernels, 1 to 4 threads", [0, 0])
            counts[f"`{kernels}` kernels, 1 to 4 threads"][0] += net["n_images"]
            counts[f"`{kernels}` kernels, 1 to 4 threads"][1] += differ
        for name, differ in net["n_different_ports"].items():
            if differ is not None:
                counts.setdefault(name, [0, 0])
                counts[name][0] += net["n_images_ports"]
                counts[name][1] += differ
    rows += [[name, f"{inputs:,} photos", str(differ)] for name, (inputs, differ) in counts.items()]
    random = equality["random_networks"]
    rows.append(["every kernel set of x86, random networks", f"{random['n_networks']} networks",
                 str(sum(random["n_different"].values()))])  # fmt: skip
    rows.append(["the page in Chromium, PNG files", f"{page['n_photos']} photos",
                 str(page["n_photos"] - page["png_bit_identical"])])  # fmt: skip
    forms_compared = ", ".join(f"`{form}`" for form in forms["n_different"])
    rows.append([f"exported C, weights as {forms_compared}", f"{forms['n_networks']} random networks",
                 str(sum(forms["n_different"].values()))])  # fmt: skip
    chips: dict[str, list[int]] = {}
    for entry in read("chips")["results"]:
        found = chips.setdefault(entry["chip"], [0, 0])
        found[0] += entry["n_images"]
        found[1] += entry["n_different"]
    names = ", ".join(sorted(chips))
    rows.append([f"exported C on emulated {names}", f"{sum(found[0] for found in chips.values())} photos",
                 str(sum(found[1] for found in chips.values()))])  # fmt: skip
    return markdown_table(rows)


def _budget_table(results: list[dict[str, Any]]) -> str:
    """What a byte budget costs: files of this project, largest first."""
    rows = [["network", "bytes", "bits per weight", "KL, nats", "same class", "top-1 (float)"]]
    ours = [row for row in results if row["method"] == "rate-distortion"]
    for row in sorted(ours, key=lambda row: (row["model"], -row["file_bytes"])):
        bits = 8 * row["file_bytes"] / (FP32_BYTES[row["model"]] / 4)
        rows.append([
            f"SqueezeNet {row['model']}", f"{row['file_bytes']:,}", f"{bits:.2f}", f"{row['kl']:.3f}",
            f"{row['agreement']:.1f} %", f"{row['top1']:.1f} % ({row['float_top1']:.1f} %)",
        ])  # fmt: skip
    return markdown_table(rows)


def _unknown_table(results: dict[str, Any]) -> str:
    foreign = results["n_foreign"]
    rows = [["taught from", "correct predictions kept", f"rejected of {foreign['imagenette-val']:,} imagenette photos",
             f"rejected of {foreign['cats and dogs']:,} cats and dogs"]]  # fmt: skip
    for photos in (10, 25, 50):
        row = results[f"{photos} per class"]
        caught = [f"{row[name]['caught']:.1f} %" for name in ("imagenette-val", "cats and dogs")]
        rows.append([f"{photos} photos per class", f"{row['kept']:.1f} %", *caught])
    return markdown_table(rows)


def _resume_table(kills: dict[str, Any]) -> str:
    rows = [["what was killed", "kills", "runs", "same bytes as an uninterrupted run"]]
    for name, what in {
        "ranks_1": "a training in one process",
        "ranks_2": "one of two processes under `torchrun`",
        "command": "`squeezenet train`, from its start on",
        "command_in_child": "the same, with its modules loaded beforehand",
    }.items():
        one = kills[name]
        rows.append([what, str(one["kills"]), str(one["runs"]), f"{one['same_bytes']} of {one['runs']}"])
    return markdown_table(rows)


def _memory_table(cold: dict[str, Any]) -> str:
    rows = [["a process that classifies one photo", "peak memory", "time"]]
    for name, what in {"squeezenet": "`squeezenet predict`, 1.0", "torch": "the same network in PyTorch"}.items():
        rows.append([what, f"{cold[name]['peak_rss_bytes'] / 1e6:.0f} MB", f"{cold[name]['wall_s']:.2f} s"])
    return markdown_table(rows)
