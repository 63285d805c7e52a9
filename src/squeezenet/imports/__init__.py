"""Networks of other programs, read as data: torch, ONNX, Keras, Caffe, ncnn, TFLite. No torch here, and no code is run.

One file reads each format into a graph or a dictionary of tensors; `graph` and `state_dict` recognise the SqueezeNet.
"""

from .conventions import CONVENTIONS, Convention
from .foreign import ForeignNetwork, read_foreign

__all__ = ["CONVENTIONS", "Convention", "ForeignNetwork", "read_foreign"]
