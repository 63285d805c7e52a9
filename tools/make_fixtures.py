"""Write the fixtures of all format versions: files that every later version must still read.

    python tools/make_fixtures.py

A fixture that exists is never rewritten: it stands for files that people have. Delete one only before its format
version was released. Each `NAME.sqz` comes with a `NAME.json` of what it must decode to and predict.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from squeezenet.codec.weights import encode_convs, round_multiplier
from squeezenet.container import DEFAULT_LIMITS, join_chunks, split_chunks
from squeezenet.engine import ReferenceEngine
from squeezenet.fileformat import SqzFile, encode_sqz, join_streams
from squeezenet.labels import Labels, imagenet_labels
from squeezenet.network import ConvParams, IntegerNetwork, TensorQuant, quantized_tensors
from squeezenet.preprocess import Preprocessing
from squeezenet.spec import ArchSpec, FireSpec, StemSpec

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / "format"


def formula_pixels(size: int) -> np.ndarray:
    """The image of docs/format.md ("Test vector"), shape (1, size, size, 3), uint8."""
    row, column, channel = np.ogrid[:size, :size, :3]
    return ((37 * row + 101 * column + 59 * channel + row * column) % 256).astype(np.uint8)[None]


def formula_network(spec: ArchSpec, *, span: int) -> IntegerNetwork:
    """Integers from a formula, so that no random generator has to be trusted; weights from -span to span."""
    relu_outputs = {op.output for op in spec.graph() if op.relu}
    tensors = {
        name: TensorQuant(float(np.float32(0.02 + 0.005 * index)), 0 if name in relu_outputs else 100 + 9 * index)
        for index, name in enumerate(quantized_tensors(spec))
    }
    tensors["input"] = TensorQuant(1.0, 128)
    convs = {}
    for number, op in enumerate(spec.convs, start=3):
        j = np.arange(op.out_channels * op.products_per_sum, dtype=np.int64)
        weight = (j * j * number + j * 5 + number) % (2 * span + 1) - span
        weight[(j * 7 + number) % 5 < 2] = 0
        o = np.arange(op.out_channels)
        steps = span * 30 * op.products_per_sum**0.5
        convs[op.name] = ConvParams(
            weight.reshape(op.out_channels, op.in_channels, op.kernel, op.kernel).astype(np.int8),
            ((o * 389 + number * 101) % 801 - 300).astype(np.int32),
            round_multiplier((40 + o * 11 % 60) / steps),
        )
    return IntegerNetwork(spec, tensors, convs)


def fixtures() -> dict[str, SqzFile]:
    """Name every fixture, its version first, and what it holds."""
    vector = ArchSpec(
        stem=StemSpec(channels=4, kernel=3, stride=2, padding=1),
        fires=(FireSpec(squeeze_channels=2, expand1x1_channels=2, expand3x3_channels=2),),
        pools=(1,),
        input_size=8,
        num_classes=3,
        bypass="simple",
        head_relu=False,
        name="vector",
    )
    everything = ArchSpec(
        stem=StemSpec(channels=5, kernel=5, stride=2, padding=2),
        fires=(
            FireSpec(squeeze_channels=3, expand1x1_channels=4, expand3x3_channels=4),
            FireSpec(squeeze_channels=2, expand1x1_channels=5, expand3x3_channels=3),
        ),
        pools=(1, 3),
        input_size=21,
        num_classes=4,
        bypass="complex",
        squeeze_relu=False,
        head_padding=1,
        pool_ceil_mode=False,
        name="everything é",
    )
    classes = vector.replace(num_classes=1000, bypass="none", head_relu=True, name="classes")
    return {
        "v1/vector": SqzFile(network=formula_network(vector, span=9)),
        "v1/everything": SqzFile(
            network=formula_network(everything, span=127),
            labels=Labels(("ant, emmet", "bee", "cat", "dög"), ("n1", "n2", "n3", "n4")),
            preprocessing=Preprocessing(
                crop_size=21, resize_size=24, resize_mode="squash", resample="bicubic", std=(64.0, 63.5, 1.0)
            ),
            facts={"provenance": {"by": ["hand", None, True, 0.5, 10**20]}, "text": "\x1b[0m"},
        ),
        "v1/classes": SqzFile(network=formula_network(classes, span=9), labels=imagenet_labels()),
        "v2/parts": SqzFile(network=formula_network(everything.replace(name="parts"), span=9)),
    }


def encoded(name: str, contents: SqzFile) -> bytes:
    """Encode a fixture in its version."""
    return encode_sqz(contents) if name.startswith("v1/") else in_parts(contents, {2, 7})


def in_parts(contents: SqzFile, fresh: Collection[int]) -> bytes:
    """Encode a file of version 2 whose streams with these indices are fresh."""
    chunks = split_chunks(encode_sqz(contents), DEFAULT_LIMITS)
    chunks[b"ARCH"] = b"\2" + chunks[b"ARCH"][1:]
    network = contents.network
    chunks[b"WGHT"] = join_streams(encode_convs(network.spec.convs, network.convs, fresh), fresh, 2)
    del chunks[b"HASH"]
    return join_chunks(chunks)


def describe(contents: SqzFile) -> dict[str, object]:
    """What a fixture must decode to and predict, as plain data."""
    network = contents.network
    return {
        "spec": network.spec.to_dict(),
        "tensors": {name: [quant.scale, quant.zero_point] for name, quant in network.tensors.items()},
        "convs_sha256": {
            name: hashlib.sha256(
                b"".join(values.astype(values.dtype.newbyteorder("<")).tobytes() for values in vars(params).values())
            ).hexdigest()
            for name, params in network.convs.items()
        },
        "labels": contents.labels and contents.labels.to_dict(),
        "preprocessing": contents.preprocessing and contents.preprocessing.to_dict(),
        "facts": contents.facts,
        "logits": ReferenceEngine(network).logits(formula_pixels(network.spec.input_size))[0].tolist(),
    }


def main() -> None:
    """Write the fixtures that are missing."""
    for name, contents in fixtures().items():
        path = FOLDER / f"{name}.sqz"
        if path.exists():
            print(f"{name}: exists, kept")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(name, contents))
        text = json.dumps(describe(contents), indent=1, ensure_ascii=False)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
