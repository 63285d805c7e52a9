"""Write the seed corpora of the fuzzers: tiny networks over the spec space, and single weight streams.

python fuzz/make_corpus.py FOLDER        makes FOLDER/file, FOLDER/stream and FOLDER/coded
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixture_files import in_parts
from networks import random_network
from squeezenet import ArchSpec, FireSpec, Labels, SqzFile, StemSpec
from squeezenet.codec.native_weights import encode_weights_alone
from squeezenet.codec.weights import encode_convs
from squeezenet.fileformat import encode_sqz
from squeezenet.network import ConvParams
from squeezenet.spec import Op

N_FILES = 40
N_STREAMS = 40


def tiny_file(rng: np.random.Generator, seed: int) -> bytes:
    while True:
        kernel = int(rng.choice([1, 2, 3, 5, 7]))
        fires = tuple(
            FireSpec(
                squeeze_channels=int(rng.integers(1, 6)),
                expand1x1_channels=int(rng.integers(1, 6)),
                expand3x3_channels=int(rng.integers(1, 6)),
            )
            for _ in range(rng.integers(1, 3))
        )
        try:
            spec = ArchSpec(
                stem=StemSpec(
                    channels=int(rng.integers(1, 7)), kernel=kernel, stride=int(rng.integers(1, 4)),
                    padding=int(rng.integers(0, kernel // 2 + 1)),
                ),
                fires=fires, pools=tuple(layer for layer in range(1, len(fires) + 2) if rng.random() < 0.4),
                input_size=int(rng.integers(3, 14)), num_classes=int(rng.integers(1, 9)),
                bypass=("none", "simple", "complex")[rng.integers(3)], pool_ceil_mode=bool(rng.integers(2)),
                squeeze_relu=bool(rng.integers(2)), head_relu=bool(rng.integers(2)),
                head_padding=int(rng.integers(2)), name="t",
            )  # fmt: skip
            break
        except ValueError:
            continue
    network = random_network(spec, seed=seed, max_weight=int(rng.choice([1, 4, 30, 127])), density=rng.uniform(0.2, 1))
    labels = Labels(tuple(str(index) for index in range(spec.num_classes))) if rng.random() < 0.3 else None
    contents = SqzFile(network=network, labels=labels)
    fresh = {index for index in range(len(spec.convs)) if rng.random() < 0.3} if seed % 2 else set()
    return in_parts(contents, fresh) if fresh else encode_sqz(contents)


def stream_pair(rng: np.random.Generator, encode: Callable[..., list[bytes]] = encode_convs) -> bytes:
    head, ops, convs = bytearray(), [], {}
    for name in "ab":
        kernel = int(rng.choice([1, 2, 3, 5]))
        in_channels, out_channels = int(rng.integers(1, 4 if kernel > 3 else 9)), int(rng.integers(1, 9))
        # For kernels above 3 the harness takes in_channels % 3 + 1 of the first byte's value + 1.
        head += bytes([in_channels - 2 if kernel > 3 and in_channels > 1 else (2 if kernel > 3 else in_channels - 1)])
        head += bytes([out_channels - 1, kernel - 1])
        ops.append(
            Op(
                name=name,
                kind="conv",
                inputs=("x",),
                output=name,
                in_channels=in_channels,
                out_channels=out_channels,
                in_size=8,
                out_size=8,
                kernel=kernel,
            )  # fmt: skip
        )
        shape = (out_channels, in_channels, kernel, kernel)
        largest = int(rng.choice([1, 4, 30, 127]))
        convs[name] = ConvParams(
            (rng.integers(-largest, largest + 1, shape) * (rng.random(shape) < rng.uniform(0.2, 1))).astype(np.int8),
            rng.integers(-1000, 1000, out_channels).astype(np.int32),
            rng.uniform(1e-4, 1e-2, out_channels).astype(np.float32),
        )
    streams = encode(ops, convs)
    total = sum(map(len, streams))
    split = next(s for s in range(256) if total * s // 255 >= len(streams[0]))
    return bytes(head) + bytes([split]) + b"".join(streams)


def main() -> None:
    folder = Path(sys.argv[1])
    rng = np.random.default_rng(0)
    for kind, count, make in (
        ("file", N_FILES, lambda seed: tiny_file(rng, seed)),
        ("stream", N_STREAMS, lambda _: stream_pair(rng)),
        ("coded", N_STREAMS, lambda _: stream_pair(rng, encode_weights_alone)),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for seed in range(count):
            (folder / kind / f"seed-{seed:03}").write_bytes(make(seed))


if __name__ == "__main__":
    main()
