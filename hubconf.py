"""Entry points for `torch.hub.load("<owner>/squeezenet", "squeezenet1_1", pretrained=True)`."""

import pathlib
import sys

dependencies = ["torch", "numpy", "PIL", "safetensors"]

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "src"))

from squeezenet.models import squeezenet1_0, squeezenet1_1  # noqa: E402

__all__ = ["squeezenet1_0", "squeezenet1_1"]
