"""What the tests of imports share: networks with random weights that keep activations alive, and their logits."""

import numpy as np
import torch

from squeezenet import ArchSpec, FireSpec, SqueezeNet, StemSpec
from squeezenet.imports import ForeignNetwork
from squeezenet.models import float_network, normalize_pixels

FIRES = (
    FireSpec(squeeze_channels=4, expand1x1_channels=8, expand3x3_channels=8),
    FireSpec(squeeze_channels=5, expand1x1_channels=7, expand3x3_channels=9),
    FireSpec(squeeze_channels=6, expand1x1_channels=12, expand3x3_channels=4),
)


def variant(**options) -> ArchSpec:
    """A network of nobody's widths: bypasses around fire3 and fire4."""
    settings = {
        "stem": StemSpec(channels=10, kernel=3, stride=2), "fires": FIRES, "pools": (1, 3), "input_size": 47,
        "num_classes": 5,
    }  # fmt: skip
    return ArchSpec(**{**settings, **options})


def random_model(spec, *, seed=0) -> SqueezeNet:
    torch.manual_seed(seed)
    model = SqueezeNet(spec).eval()
    for conv in model.convs.values():
        if conv.bias is not None:
            torch.nn.init.normal_(conv.bias, std=0.1)
    return model


def check_same_convs(foreign: ForeignNetwork, model: SqueezeNet, *, is_bgr=False):
    """Every weight is the same, to the bit."""
    expected = float_network(model).convs
    found = foreign.network().convs
    assert list(found) == list(expected)
    for name, conv in expected.items():
        weight = conv.weight[:, ::-1] if is_bgr and name == "conv1" else conv.weight
        np.testing.assert_array_equal(found[name].weight, weight, name)
        np.testing.assert_array_equal(found[name].bias, conv.bias, name)


def images_for(spec, count=2, *, seed=0) -> np.ndarray:
    """Normalised images (N, 3, H, W), float32."""
    return np.random.default_rng(seed).normal(0, 1, (count, 3, spec.input_size, spec.input_size)).astype(np.float32)


def torch_logits(model, images) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(torch.from_numpy(images)).numpy()


def check_same_logits(actual, expected):
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def normalized(pixels, how) -> np.ndarray:
    return normalize_pixels(pixels, how).numpy()
