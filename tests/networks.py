"""Integer networks for tests: random, but built so that their activations neither vanish nor saturate."""

import numpy as np

from squeezenet.codec.weights import round_multiplier
from squeezenet.network import ConvParams, IntegerNetwork, TensorQuant, quantized_tensors
from squeezenet.spec import ArchSpec, FireSpec, StemSpec
from squeezenet.unknown import UnknownRule


def tiny_spec(**options) -> ArchSpec:
    """Two Fire modules on 16x16 pixels: a few thousand weights."""
    settings = {
        "stem": StemSpec(channels=8, kernel=3, stride=2),
        "fires": (
            FireSpec(squeeze_channels=4, expand1x1_channels=8, expand3x3_channels=8),
            FireSpec(squeeze_channels=4, expand1x1_channels=8, expand3x3_channels=8),
        ),
        "pools": (1,),
        "input_size": 16,
        "num_classes": 5,
        "name": "tiny",
    }
    return ArchSpec(**{**settings, **options})


def random_spec(rng: np.random.Generator) -> ArchSpec:
    """Any architecture of a few thousand weights: sizes, strides, paddings, pools and widths that fit no register."""
    while True:
        kernel = int(rng.integers(1, 12))
        fires = tuple(
            FireSpec(
                squeeze_channels=int(rng.integers(1, 40)),
                expand1x1_channels=int(rng.integers(1, 50)),
                expand3x3_channels=int(rng.integers(1, 50)),
            )
            for _ in range(rng.integers(1, 4))
        )
        if rng.random() < 0.5:  # equal widths, so that identities occur
            fires = (fires[0],) * len(fires)
        try:
            return ArchSpec(
                stem=StemSpec(
                    channels=int(rng.integers(1, 40)),
                    kernel=kernel,
                    stride=int(rng.integers(1, 5)),
                    padding=int(rng.integers(0, kernel // 2 + 1)),
                ),
                fires=fires,
                pools=tuple(layer for layer in range(1, len(fires) + 2) if rng.random() < 0.4),
                input_size=int(rng.integers(4, 70)),
                num_classes=int(rng.integers(1, 70)),
                bypass=("none", "simple", "complex")[rng.integers(3)],
                pool_ceil_mode=bool(rng.integers(2)),
                squeeze_relu=bool(rng.integers(2)),
                head_relu=bool(rng.integers(2)),
                head_padding=int(rng.integers(2)),
            )
        except ValueError:
            continue


def random_network(spec: ArchSpec, *, seed: int = 0, max_weight: int = 127, density: float = 1.0) -> IntegerNetwork:
    """Random weights of up to `max_weight`; zero-points are random where no ReLU needs 0."""
    rng = np.random.default_rng(seed)
    relu_outputs = {op.output for op in spec.graph() if op.relu}
    tensors = {
        name: TensorQuant(
            float(np.float32(rng.uniform(0.01, 0.1))), 0 if name in relu_outputs else int(rng.integers(0, 256))
        )
        for name in quantized_tensors(spec)
    }
    convs = {}
    for op in spec.convs:
        shape = (op.out_channels, op.in_channels, op.kernel, op.kernel)
        weight = rng.integers(-max_weight, max_weight + 1, shape) * (rng.random(shape) < density)
        typical_sum = max_weight * 60 * np.sqrt(op.products_per_sum)
        convs[op.name] = ConvParams(
            weight.astype(np.int8),
            rng.integers(-int(typical_sum), int(typical_sum) + 1, op.out_channels).astype(np.int32),
            round_multiplier(rng.uniform(20, 120, op.out_channels) / typical_sum),
        )
    return IntegerNetwork(spec, tensors, convs)


def random_pixels(spec: ArchSpec, count: int, *, seed: int = 0) -> np.ndarray:
    """Pixels of shape (count, H, W, 3), uint8."""
    shape = (count, spec.input_size, spec.input_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def unknown_rule(spec: ArchSpec, count: int, *, threshold: int = 40_000) -> UnknownRule | None:
    """A rule of random vectors; none for a count of 0."""
    vectors = np.random.default_rng(count).integers(0, 16, (count, spec.num_features), np.uint8)
    return UnknownRule(vectors, threshold) if count else None
