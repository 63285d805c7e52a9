"""Networks as NumPy arrays, without torch: the integer network that every engine runs, and its float counterpart.

An `IntegerNetwork` is an architecture plus numbers: uint8 zero-points and float32 scales of its activations, and int8
weights, int32 biases and float32 multipliers for each convolution. Its constructor proves that no sum can overflow.
docs/format.md ("The integer network") defines what the engines compute from it; `engine.reference` is the normative
implementation. A `FloatNetwork` is the same architecture with real weights, for exporters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import QuantizationError
from .labels import Labels
from .preprocess import Preprocessing
from .spec import ArchSpec, Op

__all__ = [
    "INT32_MAX", "MAX_ABS_WEIGHT", "ConvParams", "FloatConv", "FloatNetwork", "IntegerNetwork", "TensorQuant",
    "check_tensors", "largest_sum", "quantized_source", "quantized_tensors",
]  # fmt: skip

MAX_ABS_WEIGHT = 127
INT32_MAX = 2**31 - 1
# Multipliers outside this range would make every output 0 or 255; inside it their products stay finite float32.
MIN_MULTIPLIER = 2.0**-40
MAX_MULTIPLIER = 2.0**20
# The same for scales: far from float32's limits, so that quotients of two scales are normal numbers.
MIN_SCALE = 2.0**-40
MAX_SCALE = 2.0**40

Array = TypeVar("Array")


@dataclass(frozen=True)
class TensorQuant:
    """The real numbers that a uint8 tensor represents: real = (q - zero_point) * scale."""

    scale: float
    """Positive, a float32 value."""
    zero_point: int
    """0 to 255; 0 makes the clamp at 0 a ReLU."""


@dataclass(frozen=True)
class FloatConv(Generic[Array]):
    """A convolution in real numbers, as NumPy arrays or torch tensors."""

    weight: Array
    """(O, I, k, k)."""
    bias: Array
    """(O,)."""


@dataclass(frozen=True)
class FloatNetwork:
    """A float network without torch, for exporters."""

    spec: ArchSpec
    convs: Mapping[str, FloatConv[NDArray[np.float32]]]
    """One entry for each of `spec.convs`, by name; conv1 reads normalised images."""
    preprocessing: Preprocessing
    labels: Labels | None = None


@dataclass(frozen=True)
class ConvParams:
    """Integers of one convolution.

    `multiplier[o]` converts the int32 sum to steps of the output tensor and, in the head, to the logit.
    """

    weight: NDArray[np.int8]
    """(O, I, k, k), from -127 to 127."""
    bias: NDArray[np.int32]
    """(O,), in units of the sum."""
    multiplier: NDArray[np.float32]
    """(O,), positive."""


@dataclass(frozen=True)
class IntegerNetwork:
    """An integer network, checked on construction.

    Raises:
        QuantizationError: If shapes, types or ranges are wrong, or a sum could leave int32.
    """

    spec: ArchSpec
    tensors: Mapping[str, TensorQuant]
    """One entry for each of `quantized_tensors(spec)`."""
    convs: Mapping[str, ConvParams]
    """One entry for each of `spec.convs`, by name."""

    def __post_init__(self) -> None:
        """Prove that every engine can run this network in int32."""
        if self.spec.batch_norm:
            raise QuantizationError("expected a network with its batch norm folded: call `fold_batch_norm` first")
        check_tensors(self.spec, self.tensors)
        _check_names("convolutions", self.convs, [op.name for op in self.spec.convs])
        for op in self.spec.convs:
            _check_conv(op, self.convs[op.name])

    def check_pixels(self, pixels: object) -> int:
        """Return N; raises ValueError unless pixels are uint8 of shape (N, H, W, 3), H = W = the network's input
        size.
        """
        size, found = self.spec.input_size, type(pixels).__name__
        if isinstance(pixels, np.ndarray):
            if pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[1:] == (size, size, 3):
                return len(pixels)
            found = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(
            f"expected `pixels` of shape (N, {size}, {size}, 3) and dtype uint8, got {found}: photos and paths of any"
            " size go to `Classifier.predict` and `Classifier.features`"
        )

    def tensor(self, name: str) -> TensorQuant:
        """Quantisation of any tensor of the graph; a pooled tensor has that of its input."""
        return self.tensors[quantized_source(self.spec, name)]

    def weight_scale(self, op: Op) -> NDArray[np.float64]:
        """Real value of one weight step for each output channel, shape (O,), derived from the multipliers."""
        out_scale = 1.0 if op.is_head else self.tensor(op.output).scale
        return self.convs[op.name].multiplier.astype(np.float64) * out_scale / self.tensor(op.inputs[0]).scale

    def dequantize(self, preprocessing: Preprocessing, labels: Labels | None = None) -> FloatNetwork:
        """Build the float network that these integers represent; it does not round its activations.

        Args:
            preprocessing: Its mean and std are removed from conv1, so that the float network reads normalised images.
            labels: Names of the classes, if known.
        """
        convs = {}
        for op in self.spec.convs:
            params = self.convs[op.name]
            scale = self.weight_scale(op)
            weight = params.weight * scale[:, None, None, None]
            bias = params.bias * scale * self.tensor(op.inputs[0]).scale
            if op.name == "conv1":
                weight = weight * self.tensors["input"].scale
                offset = np.array(preprocessing.mean) - self.tensors["input"].zero_point
                bias = bias + (weight * offset[:, None, None]).sum(axis=(1, 2, 3))
                weight = weight * np.array(preprocessing.std)[:, None, None]
            convs[op.name] = FloatConv(weight.astype(np.float32), bias.astype(np.float32))
        return FloatNetwork(self.spec, convs, preprocessing, labels)


def quantized_tensors(spec: ArchSpec) -> list[str]:
    """Names of the tensors that have a scale and a zero-point, in the order of the file.

    These are the input, then the tensors that convolutions and additions write, in graph order. Pools keep the
    quantisation of their input, and the head's sums are not a uint8 tensor.
    """
    names = ["input"]
    for op in spec.graph():
        if op.kind != "max_pool" and not op.is_head and op.output not in names:
            names.append(op.output)
    return names


def check_tensors(spec: ArchSpec, tensors: Mapping[str, TensorQuant]) -> None:
    """Check the quantisation of a network's activations.

    Raises:
        QuantizationError: If tensors are missing or unknown, or a scale or zero-point is out of range.
    """
    _check_names("tensors", tensors, quantized_tensors(spec))
    for name, quant in tensors.items():
        zero, scale = quant.zero_point, quant.scale
        if not 0 <= zero <= 255 or zero != int(zero):
            raise QuantizationError(f"tensor {name}: expected a whole zero-point from 0 to 255, got {zero}")
        if not MIN_SCALE <= scale <= MAX_SCALE or float(np.float32(scale)) != scale:
            raise QuantizationError(f"tensor {name}: expected a float32 scale from 2^-40 to 2^40, got {scale!r}")
    for op in spec.convs:
        # The clamp at 0 is the ReLU; with another zero-point it would let negative values through.
        zero = 0 if op.is_head else tensors[op.output].zero_point
        if op.relu and zero:
            raise QuantizationError(f"tensor {op.output}: expected the zero-point 0 after a ReLU, got {zero}")


def quantized_source(spec: ArchSpec, tensor: str) -> str:
    """Name of the quantised tensor that a tensor gets its values from: itself, or the tensor it was pooled from."""
    for op in reversed(spec.graph()):
        if op.kind == "max_pool" and op.output == tensor:
            tensor = op.inputs[0]
    return tensor


def largest_sum(params: ConvParams) -> int:
    """Upper bound of |sum of products| plus |bias| over all outputs, which an accumulator must be able to hold."""
    magnitudes = np.abs(params.weight.reshape(len(params.weight), -1)).view(np.uint8)  # -128 has none in int8
    per_output = magnitudes.sum(axis=1, dtype=np.int64) * 255
    return int((per_output + np.abs(params.bias.astype(np.int64))).max())


def _check_names(what: str, given: Mapping[str, object], expected: list[str]) -> None:
    if set(given) != set(expected):
        raise QuantizationError(f"expected the {what} {expected}, got {sorted(given)}")


def _check_conv(op: Op, params: ConvParams) -> None:
    shape = (op.out_channels, op.in_channels, op.kernel, op.kernel)
    for field, values, dtype, expected in (
        ("weight", params.weight, np.int8, shape),
        ("bias", params.bias, np.int32, shape[:1]),
        ("multiplier", params.multiplier, np.float32, shape[:1]),
    ):
        if values.dtype != dtype or values.shape != expected:
            raise QuantizationError(
                f"{op.name}.{field}: expected {np.dtype(dtype)} of shape {expected}, got {values.dtype} {values.shape}"
            )
    if (params.weight == -128).any():
        raise QuantizationError(f"{op.name}.weight: expected values from -127 to 127, got -128")
    # Written so that NaN fails as well.
    if not ((params.multiplier >= MIN_MULTIPLIER) & (params.multiplier <= MAX_MULTIPLIER)).all():
        raise QuantizationError(f"{op.name}.multiplier: expected values from 2^-40 to 2^20")
    if (largest := largest_sum(params)) > INT32_MAX:
        raise QuantizationError(f"{op.name}: sums can reach {largest}, beyond int32; use smaller biases")
