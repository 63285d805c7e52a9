"""Exports of a `.sqz` file (web page, C source, ONNX, TFLite, safetensors), and the test that they agree."""

from .c_source import CSource, build_c_source
from .onnx_graph import build_onnx_float, build_onnx_int8, pooling_warnings
from .tflite_graph import build_tflite
from .web_page import PageSizes, build_page
from .web_script import build_script

__all__ = [
    "CSource", "PageSizes", "build_c_source", "build_onnx_float", "build_onnx_int8", "build_page", "build_script",
    "build_tflite", "pooling_warnings",
]  # fmt: skip
