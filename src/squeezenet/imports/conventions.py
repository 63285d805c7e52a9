"""The preprocessing that networks of different origins expect, which few files state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ..labels import Labels
from ..network import FloatConv
from ..preprocess import CAFFE_PREPROCESSING, TORCHVISION_PREPROCESSING, Preprocessing
from .graph import Floats, Graph

__all__ = ["CONVENTIONS", "Convention", "GraphFile", "left_behind", "with_rgb_input"]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The channel order and the preprocessing that a network expects."""

    name: str
    preprocessing: Preprocessing
    """Preprocessing with mean and std in the order R, G, B, even if `is_bgr`."""
    is_bgr: bool = False
    """The network was trained on blue, green, red."""

    def at(self, size: int) -> Preprocessing:
        """The preprocessing at another input size, resized in the same proportion."""
        how = self.preprocessing
        resize_size = max(round(size * how.resize_size / how.crop_size), size)
        return dataclasses.replace(how, crop_size=size, resize_size=resize_size)


@dataclass(frozen=True)
class GraphFile:
    """The result of reading a format with a graph."""

    graph: Graph
    names: str
    """The naming scheme of the operations, such as torchvision's."""
    convention: Convention
    convention_from: str
    """How the convention was found, or that it is a guess."""
    labels: Labels | None = None
    notes: tuple[str, ...] = ()


_KERAS = Preprocessing(
    resize_size=227, crop_size=227, resize_mode="squash", mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0)
)  # fmt: skip


def _torchvision_with(mean: float, std: float) -> Preprocessing:
    return dataclasses.replace(TORCHVISION_PREPROCESSING, mean=(mean,) * 3, std=(std,) * 3)


CONVENTIONS: Mapping[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(name="torchvision", preprocessing=TORCHVISION_PREPROCESSING),
        Convention(name="caffe", preprocessing=CAFFE_PREPROCESSING, is_bgr=True),
        Convention(name="keras", preprocessing=_KERAS, is_bgr=True),
        Convention(name="raw", preprocessing=_torchvision_with(0.0, 1.0)),
        Convention(name="raw-bgr", preprocessing=_torchvision_with(0.0, 1.0), is_bgr=True),
        Convention(name="0-to-1", preprocessing=_torchvision_with(0.0, 255.0)),
        Convention(name="-1-to-1", preprocessing=_torchvision_with(127.5, 127.5)),
        Convention(name="caffe-rgb", preprocessing=CAFFE_PREPROCESSING),
        Convention(name="torchvision-bgr", preprocessing=TORCHVISION_PREPROCESSING, is_bgr=True),
        Convention(name="-1-to-1-bgr", preprocessing=_torchvision_with(127.5, 127.5), is_bgr=True),
    )
}
"""The usual conventions by name, the most likely ones first."""


def left_behind(facts: Mapping[str, object]) -> tuple[str, ...]:
    """Notes on facts that are only kept in `.sqz` files, if this package wrote the file."""
    names = [name for name in ("temperature", "unknown", "unknown_below") if facts.get(name) not in (None, 1)]
    if not names:
        return ()
    return (f"without {' and '.join(names)}, which `squeezenet evaluate --store` measures for a .sqz file",)


def with_rgb_input(convs: Mapping[str, FloatConv[Floats]], *, is_bgr: bool) -> dict[str, FloatConv[Floats]]:
    """Reverse the input channels of the first convolution if they are blue, green, red."""
    stem = convs["conv1"]
    return {**convs, "conv1": FloatConv(stem.weight[:, ::-1].copy(), stem.bias)} if is_bgr else dict(convs)
