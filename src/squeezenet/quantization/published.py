"""torchvision's ImageNet network as a `.sqz` file: fetched once, compressed once, kept in the cache."""

from __future__ import annotations

from pathlib import Path

from ..fileformat import SqzFile, write_sqz
from ..models import create_model
from ..progress import Reporter
from ..zoo import imagenet_path
from .int8 import quantize_int8
from .photos import calibration_without_photos

__all__ = ["imagenet_file"]


def imagenet_file(reporter: Reporter) -> Path:
    """Find the file in the cache, or make it there from torchvision's 1.1 weights.

    It holds 8-bit weights, and activation ranges that were measured on photos of ImageNet.

    Raises:
        DownloadError: If the weights cannot be fetched.
        OSError: If the cache cannot be written.
    """
    path = imagenet_path()
    if path.is_file():
        return path
    reporter.say("imagenet: compressing torchvision's SqueezeNet 1.1, once; later calls find the file in the cache")
    model = create_model("squeezenet1_1", pretrained=True).eval()
    calibration = calibration_without_photos(model)
    network = quantize_int8(model, calibration, reporter)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sqz(path, SqzFile.of(model, network, preset="int8", calibration=calibration.source))
    return path
