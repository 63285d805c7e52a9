"""The ways out of a `.sqz` file: a web page, C source, ONNX, safetensors; and the proof that they agree.

Use this when a network has to run where this package does not.
"""

from .web_page import PageSizes, build_page

__all__ = ["PageSizes", "build_page"]
