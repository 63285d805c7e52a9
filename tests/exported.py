"""What the tests of exports share: files to export, and the programs they need."""

import functools
import shutil

import pytest

from networks import random_network, random_pixels, tiny_spec, unknown_rule
from squeezenet import FireSpec, SqzFile, StemSpec, named_spec
from squeezenet.exports.browser import missing_browser
from squeezenet.fileformat import encode_sqz

ODD_FIRES = (
    FireSpec(squeeze_channels=5, expand1x1_channels=13, expand3x3_channels=18),
    FireSpec(squeeze_channels=17, expand1x1_channels=3, expand3x3_channels=28),
)
SPECS = {
    "plain": tiny_spec(),
    "simple bypass": tiny_spec(bypass="simple"),
    "odd": tiny_spec(
        stem=StemSpec(channels=21, kernel=5, stride=3, padding=2), input_size=45, fires=ODD_FIRES, bypass="complex",
        head_relu=False,
    ),
    "pooled": tiny_spec(
        stem=StemSpec(channels=7, kernel=7, stride=2), input_size=37, pools=(1, 2, 3), head_padding=1,
        squeeze_relu=False,
    ),
    "cifar": named_spec("squeezenet1_1", input_size=32, num_classes=10),
}  # fmt: skip


RULES = {"simple bypass": 36_450, "odd": 14_950}  # thresholds that tell random images apart


@functools.cache
def contents_of(name: str) -> SqzFile:
    """A file with random integers; of the CIFAR network sparse ones, which are coded fast."""
    settings = {"density": 0.05, "max_weight": 2} if name == "cifar" else {}
    network = random_network(SPECS[name], seed=4, **settings)
    rule = unknown_rule(network.spec, 3, threshold=RULES[name]) if name in RULES else None
    return SqzFile(network=network, unknown=rule, facts={} if name == "plain" else {"temperature": 0.75})


@functools.cache
def bytes_of(name: str) -> bytes:
    return encode_sqz(contents_of(name))


@functools.cache
def imagenet_sized() -> tuple[bytes, SqzFile]:
    """A whole 1.1 at 224 pixels with 1,000 named classes, and random sparse weights."""
    from squeezenet.labels import imagenet_labels
    from squeezenet.preprocess import TORCHVISION_PREPROCESSING

    network = random_network(named_spec("squeezenet1_1"), seed=5, density=0.05, max_weight=2)
    contents = SqzFile(network=network, labels=imagenet_labels(), preprocessing=TORCHVISION_PREPROCESSING)
    return encode_sqz(contents), contents


def pixels_for(contents: SqzFile, count: int):
    return random_pixels(contents.network.spec, count, seed=6)


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def need_browser() -> None:
    if missing := missing_browser():
        pytest.skip(missing)
