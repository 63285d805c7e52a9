"""Compare the weight coder with order-0 entropy and with NNCodec's coder on the same integers.

Writes results/coder.json. The integers are made here from ../shared/weights, without
calibration photos: steps are a share of each output channel's root mean square, values inside a dead zone of 0.6 steps
become zero, and the share is found by bisection for a given order-0 entropy; `int8` fills -127 to 127 in each channel;
`codebook` keeps the largest 33 % of each layer and clusters them to 64 values on a grid of 127. Integers of other
origin are taken from .npz files, one array (O, I, k, k) per layer. The coder's constants were chosen on the integers
made here (not on --integers).

    python benchmarks/coder.py [--integers NAME=FILE.npz ...] [--nncodec PYTHON]

PYTHON is an interpreter that has `nncodec` (2.1.3 pins an old NumPy, so it needs an environment of its own). Its bytes
are the least of several settings, each checked to be lossless.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import SHARED, describe_run, write_results
from sklearn.cluster import KMeans

from squeezenet.codec.rate import layer_bits
from squeezenet.codec.weights import decode_convs, encode_convs
from squeezenet.models import load_model
from squeezenet.network import ConvParams
from squeezenet.spec import Op

WEIGHTS = SHARED / "weights"
Layers = list[np.ndarray]

NNCODEC = """
import contextlib, io, json, sys
import numpy as np, nncodec.nnc as nnc
arrays = np.load(sys.argv[1])
layers = {f"layer{i:02d}.weight": arrays[name].astype(np.int32) for i, name in enumerate(arrays.files)}
sizes = []
for setting in ({}, {"cabac_unary_length_minus1": 2}, {"cabac_unary_length_minus1": 20}, {"codebook_mode": 2}):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            data = nnc.compress(dict(layers), sys.argv[2], use_dq=False, return_bitstream=True, **setting)
            back = nnc.decompress(data)
        except Exception:
            continue
    if all(np.array_equal(back[name], layers[name]) for name in layers):
        sizes.append(len(data))
print(json.dumps(min(sizes)))
"""


def float_layers(path: Path) -> Layers:
    model = load_model(path)
    return [conv.weight.detach().numpy().astype(np.float64) for conv in model.convs.values()]


def entropy_bytes(layer: np.ndarray) -> float:
    _, counts = np.unique(layer, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def dead_zone(layers: Layers, share: float) -> Layers:
    quantised = []
    for weight in layers:
        rms = np.sqrt((weight**2).mean(axis=(1, 2, 3), keepdims=True)) + 1e-12
        steps = np.abs(weight) / (share * rms)
        quantised.append((np.sign(weight) * np.minimum(np.floor(steps + 0.4), 127)).astype(np.int8))
    return quantised


def at_entropy(layers: Layers, total_bytes: float) -> Layers:
    low, high = 0.01, 5.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        if sum(map(entropy_bytes, dead_zone(layers, middle))) > total_bytes:
            low = middle
        else:
            high = middle
    return dead_zone(layers, high)


def int8(layers: Layers) -> Layers:
    return [np.rint(w / np.abs(w).max(axis=(1, 2, 3), keepdims=True) * 127).astype(np.int8) for w in layers]


def codebook(layers: Layers, n_values: int = 64, density: float = 0.33) -> Layers:
    quantised = []
    for weight in layers:
        flat = weight.reshape(-1)
        kept = np.abs(flat) > np.quantile(np.abs(flat), 1 - density)
        values = flat[kept].reshape(-1, 1)
        start = np.linspace(values.min(), values.max(), n_values).reshape(-1, 1)
        means = KMeans(n_values, init=start, n_init=1, max_iter=20).fit(values)
        out = np.zeros(flat.shape)
        out[kept] = np.rint(means.cluster_centers_[means.labels_, 0] / np.abs(flat).max() * 127)
        quantised.append(out.astype(np.int8).reshape(weight.shape))
    return quantised


def made_here() -> dict[str, Callable[[], Layers]]:
    v11 = float_layers(WEIGHTS / "squeezenet1_1-imagenet-fp16.safetensors")
    v10 = float_layers(WEIGHTS / "compressed_SqueezeNet.net")
    n_weights = sum(layer.size for layer in v11)
    n_nonzero = sum(int((layer != 0).sum()) for layer in v10)
    return {
        "1.1, 2.0 bits per weight": lambda: at_entropy(v11, 2.0 * n_weights / 8),
        "1.1, 2.5 bits per weight": lambda: at_entropy(v11, 2.5 * n_weights / 8),
        "1.1, 4.0 bits per weight": lambda: at_entropy(v11, 4.0 * n_weights / 8),
        "1.1, int8": lambda: int8(v11),
        "1.1, codebook of 64, density 33 %": lambda: codebook(v11),
        "1.0, 5.0 bits per non-zero": lambda: at_entropy(v10, 5.0 * n_nonzero / 8),
        "1.0, 6.2 bits per non-zero": lambda: at_entropy(v10, 6.2 * n_nonzero / 8),
    }


def measure(layers: Layers, nncodec: str | None) -> dict[str, float | int | None]:
    ops = [
        Op(
            name=f"layer{index}", kind="conv", inputs=("x",), output="y", in_channels=layer.shape[1],
            out_channels=layer.shape[0], in_size=8, out_size=8, kernel=layer.shape[2],
        )
        for index, layer in enumerate(layers)
    ]  # fmt: skip
    convs = {
        op.name: ConvParams(layer, np.zeros(len(layer), np.int32), np.ones(len(layer), np.float32))
        for op, layer in zip(ops, layers, strict=True)
    }
    start = time.process_time()
    streams = encode_convs(ops, convs)
    encoded = time.process_time()
    decoded = decode_convs(ops, streams)
    end = time.process_time()
    assert all(np.array_equal(decoded[op.name].weight, convs[op.name].weight) for op in ops)
    coded_bytes = sum(map(len, streams))
    bound = sum(map(entropy_bytes, layers))
    peer = None
    if nncodec:
        with tempfile.TemporaryDirectory() as folder:
            arrays = Path(folder) / "layers.npz"
            np.savez(arrays, *layers)
            command = [nncodec, "-W", "ignore", "-c", NNCODEC, str(arrays), str(Path(folder) / "out.nnc")]
            peer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "n_weights": sum(layer.size for layer in layers),
        "n_nonzero": sum(int((layer != 0).sum()) for layer in layers),
        "order0_bytes": round(bound),
        "coded_bytes": coded_bytes,
        "ratio_vs_order0": round(coded_bytes / bound, 4),
        "nncodec_bytes": peer,
        "ratio_vs_nncodec": peer and round(coded_bytes / peer, 4),
        "estimated_bytes": round(sum(map(layer_bits, layers)) / 8),
        "encode_cpu_s": round(encoded - start, 2),
        "decode_cpu_s": round(end - encoded, 2),
    }


def nncodec_version(python: str) -> str:
    program = "from importlib.metadata import version; print(version('nncodec'))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--integers", action="append", default=[], metavar="NAME=FILE.npz")
    parser.add_argument("--nncodec", metavar="PYTHON")
    options = parser.parse_args()
    nets = made_here()
    for item in options.integers:
        name, _, path = item.partition("=")
        arrays = np.load(path)
        nets[name] = lambda arrays=arrays: [arrays[key] for key in arrays.files if arrays[key].ndim == 4]
    results = {}
    print(f"{'integers':40} {'order 0':>9} {'coded':>9} {'':>8} {'NNCodec':>9} {'':>8} {'decode':>8}")
    for name, make in nets.items():
        row = results[name] = measure(make(), options.nncodec)
        gain = (row["ratio_vs_order0"] - 1) * 100
        peer = (
            f"{row['nncodec_bytes']:9,} {(row['ratio_vs_nncodec'] - 1) * 100:+7.2f}%" if options.nncodec else " " * 18
        )
        sizes = f"{row['order0_bytes']:9,} {row['coded_bytes']:9,} {gain:+7.2f}%"
        print(f"{name:40} {sizes} {peer} {row['decode_cpu_s']:6.1f} s", flush=True)
    report = {
        "run": describe_run(),
        "nncodec": options.nncodec and nncodec_version(options.nncodec),
        "results": results,
    }
    write_results("coder", report)


if __name__ == "__main__":
    main()
