"""Time the native engine against ONNX Runtime, OpenVINO and PyTorch on the same nets, in one process that alternates.

Writes results/engine.json. Times depend on shapes alone, except that the AVX2 kernels choose by the size of weights, so
weights are random: `int8` networks have a normal distribution that fills -127 to 127 in each channel, `compressed` ones
fill -31 to 31, as five to six bits do.

    python benchmarks/engine.py                  everything, some minutes
    python benchmarks/engine.py --quick --json   one JSON line within a minute, with ratio_vs_best_int8
    python benchmarks/engine.py --avx2           ONNX Runtime and ours as on a processor without AVX-512
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from environment import ROOT, describe_run

from squeezenet.accounting import network_cost
from squeezenet.architectures import named_spec
from squeezenet.codec.weights import round_multiplier
from squeezenet.engine import NativeEngine, native_kernels
from squeezenet.network import ConvParams, IntegerNetwork, TensorQuant, quantized_tensors
from squeezenet.spec import ArchSpec
from squeezenet.timing import measure_peak

NETS = {"squeezenet1_1@224": ("squeezenet1_1", 224), "squeezenet1_0@227": ("squeezenet1_0", 227)}
INT8_PEERS = ("onnxruntime_int8", "openvino_int8")

Run = Callable[[], object]


def random_network(spec: ArchSpec, largest: int) -> IntegerNetwork:
    rng = np.random.default_rng(0)
    tensors = {name: TensorQuant(0.0625, 0) for name in quantized_tensors(spec)}
    convs = {}
    for op in spec.convs:
        real = rng.standard_normal((op.out_channels, op.products_per_sum))
        weight = np.rint(real * (largest / np.abs(real).max(axis=1, keepdims=True)))
        spread = np.sqrt((weight**2).sum(axis=1)) * 60
        convs[op.name] = ConvParams(
            weight.astype(np.int8).reshape(op.out_channels, op.in_channels, op.kernel, op.kernel),
            np.zeros(op.out_channels, np.int32),
            round_multiplier(60 / spread),
        )
    return IntegerNetwork(spec, tensors, convs)


def float_weights(network: IntegerNetwork) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of about unit gain, for the float engines."""
    return {
        op.name: (
            (conv.weight * (np.sqrt(2 / op.products_per_sum) / 40)).astype(np.float32),
            np.zeros(op.out_channels, np.float32),
        )
        for op, conv in ((op, network.convs[op.name]) for op in network.spec.convs)
    }


def onnx_model(spec: ArchSpec, weights: dict[str, tuple[np.ndarray, np.ndarray]]) -> object:
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, joined = [], [], {}
    for op in spec.graph():
        if op.kind == "max_pool":
            nodes.append(
                helper.make_node(
                    "MaxPool",
                    op.inputs,
                    [op.output],
                    kernel_shape=[3, 3],
                    strides=[2, 2],
                    ceil_mode=int(spec.pool_ceil_mode),
                )
            )
            continue
        for part, value in zip("wb", weights[op.name], strict=True):
            constants.append(numpy_helper.from_array(value, f"{op.name}.{part}"))
        source, target = op.inputs[0], f"{op.name}.out"
        nodes.append(
            helper.make_node(
                "Conv", [source, f"{op.name}.w", f"{op.name}.b"], [target + ".sum"], strides=[op.stride] * 2,
                pads=[op.padding] * 4, kernel_shape=[op.kernel] * 2,
            )
        )  # fmt: skip
        nodes.append(helper.make_node("Relu", [target + ".sum"], [target]))
        parts = joined.setdefault(op.output, [])
        parts.append(target)
        if op.is_head:
            nodes.append(helper.make_node("GlobalAveragePool", [target], ["logits"]))
        elif op.name.endswith("expand3x3"):
            nodes.append(helper.make_node("Concat", parts, [op.output], axis=1))
        elif not op.name.endswith("expand1x1"):
            nodes[-1].output[0] = op.output
    shape = [1, 3, spec.input_size, spec.input_size]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, spec.num_classes, 1, 1])], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_onnx(network: IntegerNetwork, folder: Path, image: np.ndarray) -> tuple[Path, Path]:
    """The float model and its QDQ form, per channel."""
    import logging

    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"input": image}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    fp32, int8 = folder / "fp32.onnx", folder / "int8.onnx"
    onnx.save(onnx_model(network.spec, float_weights(network)), fp32)
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        fp32, int8, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    return fp32, int8


def onnxruntime_run(path: Path, image: np.ndarray, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": image})


def openvino_run(path: Path, image: np.ndarray, threads: int, precision: str) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }  # fmt: skip
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: image}, share_inputs=True, share_outputs=True)


def torch_run(network: IntegerNetwork, image: np.ndarray) -> Run:
    import torch
    import torch.nn.functional as F

    layout = torch.channels_last
    weights = {
        name: (torch.from_numpy(weight).to(memory_format=layout), torch.from_numpy(bias))
        for name, (weight, bias) in float_weights(network).items()
    }
    pixels = torch.from_numpy(image).to(memory_format=layout)
    graph = network.spec.graph()

    @torch.inference_mode()
    def run() -> object:
        live: dict[str, list[torch.Tensor]] = {"input": [pixels]}
        for op in graph:
            x = live[op.inputs[0]]
            joined = x[0] if len(x) == 1 else torch.cat(x, 1)
            live[op.inputs[0]] = [joined]
            if op.kind == "max_pool":
                live[op.output] = [F.max_pool2d(joined, 3, 2, ceil_mode=network.spec.pool_ceil_mode)]
            else:
                y = F.relu_(F.conv2d(joined, *weights[op.name], stride=op.stride, padding=op.padding))
                live.setdefault(op.output, []).append(y)
        return live[op.output][0].mean((2, 3))

    return run


def runs_of(name: str, threads: int, folder: Path, quick: bool, avx2: bool) -> dict[str, Run]:
    spec = named_spec(NETS[name][0], input_size=NETS[name][1])
    networks = {"int8": random_network(spec, 127), "compressed": random_network(spec, 31)}
    pixels = np.random.default_rng(1).integers(0, 256, (1, spec.input_size, spec.input_size, 3)).astype(np.uint8)
    image = np.ascontiguousarray((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 64)
    runs: dict[str, Run] = {}
    for label, network in networks.items():
        for kernels in native_kernels():
            is_best = kernels == native_kernels()[0]
            # Compressed weights matter to avx2 alone; a quick run wants the best set alone.
            if kernels == "scalar" or (label == "compressed" and kernels != "avx2"):
                continue
            if quick and not is_best and not avx2:
                continue
            engine = NativeEngine(network, threads=threads, kernels=kernels)
            runs[f"native_{kernels}" + ("_compressed" if label == "compressed" else "")] = lambda e=engine: e.logits(
                pixels
            )
    fp32, int8 = write_onnx(networks["int8"], folder, image)
    runs["onnxruntime_int8"] = onnxruntime_run(int8, image, threads)
    if avx2:
        return runs
    runs["openvino_int8"] = openvino_run(int8, image, threads, "f32")
    if not quick:
        runs["onnxruntime_fp32"] = onnxruntime_run(fp32, image, threads)
        runs["openvino_bf16"] = openvino_run(fp32, image, threads, "bf16")
        import torch

        torch.set_num_threads(threads)
        runs["torch_fp32"] = torch_run(networks["int8"], image)
    return runs


def alternate(runs: dict[str, Run], rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """Median and 95th percentile of each, in milliseconds; all take turns, each for a few calls at a time."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            end = time.perf_counter() + seconds
            run()  # its weights are not in the cache: the one before was another engine
            while (start := time.perf_counter()) < end:
                run()
                times[name].append((time.perf_counter() - start) * 1e3)
    return {
        name: {
            "latency_ms": round(statistics.median(values), 4),
            "p95_ms": round(float(np.percentile(values, 95)), 4),
            "n_runs": len(values),
        }
        for name, values in times.items()
    }


def measure(name: str, threads: int, quick: bool, avx2: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        runs = runs_of(name, threads, Path(folder), quick, avx2)
        latencies = alternate(runs, rounds=6 if quick else 30, seconds=0.1)
    result: dict[str, object] = {"net": name, "threads": threads, "engines": latencies}
    native = {key: value["latency_ms"] for key, value in latencies.items() if key.startswith("native_")}
    if avx2:
        for label in ("native_avx2", "native_avx2_compressed"):
            result[f"ratio_{label}"] = round(native[label] / latencies["onnxruntime_int8"]["latency_ms"], 4)
    else:
        best = min(latencies[peer]["latency_ms"] for peer in INT8_PEERS)
        macs = network_cost(named_spec(NETS[name][0], input_size=NETS[name][1])).macs
        ours = native[f"native_{native_kernels()[0]}"]
        peak = measure_peak(native_kernels()[0])
        result["ratio_vs_best_int8"] = round(ours / best, 4)
        result["gmacs"] = round(macs / ours / 1e6, 1)
        result["peak_gmacs_a_thread"] = peak
        result["share_of_peak"] = round(macs / ours / 1e6 / (peak * threads), 4) if peak else None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer engines and rounds: under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--avx2", action="store_true", help="only what a processor without AVX-512 would run")
    parser.add_argument("--output", type=Path, help="default: results/engine.json, or results/engine-avx2.json")
    options = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    if options.avx2:
        from without_avx512 import hide_avx512_from_onnxruntime

        hide_avx512_from_onnxruntime(Path(folder.name))
    results = []
    for threads in (1, 2):
        for name in NETS:
            results.append(measure(name, threads, options.quick, options.avx2))
            if not options.json:
                print(json.dumps(results[-1], indent=1))
    report = {"run": describe_run(), "kernels": list(native_kernels()), "results": results}
    if options.json:
        print(json.dumps(report))
    if not options.quick:
        name = "engine-avx2.json" if options.avx2 else "engine.json"
        (options.output or ROOT / "results" / name).write_text(json.dumps(report, indent=1) + "\n")
    folder.cleanup()


if __name__ == "__main__":
    main()
