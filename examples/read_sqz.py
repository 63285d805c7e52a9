"""Read a `.sqz` file and classify a photo: the whole format in one file, in the order of docs/format.md.

    python examples/read_sqz.py MODEL.sqz PHOTO

It needs NumPy, and Pillow to decode the photo, but nothing of the `squeezenet` package. It is written to be read: plain
loops instead of speed (a network of a million weights takes about ten seconds), and few of the checks that a reader of
hostile files must make. The package's tests use it as their second opinion, so it computes the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
import zlib
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

# ---- Container: a signature, then chunks ----------------------------------------------------------------------------


def read_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a file by type, after their checksums were compared."""
    assert data[:8] == b"\x89SQZ\r\n\x1a\n", "no .sqz file"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (crc,) = struct.unpack_from("<I", data, at + 8 + length)
        assert crc == zlib.crc32(kind + body), f"damaged chunk {kind!r}"
        if kind == b"HASH":
            assert body == hashlib.sha256(data[:at]).digest(), "damaged file"
        chunks[kind] = body
        at += 12 + length
    return chunks


# ---- ARCH: the architecture, as the list of its operations ----------------------------------------------------------


@dataclass
class Tensor:
    """A quantised tensor: the real value is (q - zero) * scale."""

    channels: int
    size: int  # height and width
    scale: float = 1.0
    zero: int = 0


@dataclass
class Op:
    """One operation of the graph. Convolutions carry their weights once these are decoded."""

    kind: str  # "conv", "pool", "add" or "head"
    inputs: list[str]
    output: str
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    channels: int = 0  # that it writes
    offset: int = 0  # the first of them
    relu: bool = True
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (O, I, k, k) int64
    biases: list[int] = field(default_factory=list)
    multipliers: list[float] = field(default_factory=list)  # float32 values


@dataclass
class Network:
    """A file: its operations in order, its tensors by name, and the contents of META."""

    input_size: int
    ops: list[Op]
    tensors: dict[str, Tensor]
    meta: dict


def read_architecture(body: bytes) -> tuple[int, list[Op], dict[str, Tensor]]:
    """The operations and tensors of ARCH."""
    version, input_size, classes, flags = struct.unpack_from("<BHHB", body)
    assert version in (1, 2)
    conv1 = struct.unpack_from("<HBBB", body, 6)
    at = 12
    fires = [struct.unpack_from("<HHH", body, at + 6 * i) for i in range(body[at - 1])]
    at += 6 * len(fires)
    pools = body[at + 1 : at + 1 + body[at]]
    at += 1 + len(pools)
    at += 1 + body[at]  # the name
    ops, tensors, quantised = graph(input_size, classes, flags, conv1, fires, pools)
    for name in quantised:
        tensors[name].scale, tensors[name].zero = struct.unpack_from("<fB", body, at)
        at += 5
    for op in ops:
        if op.kind == "pool":  # pooling changes no values
            tensors[op.output].scale, tensors[op.output].zero = tensors[op.inputs[0]].scale, tensors[op.inputs[0]].zero
    assert at == len(body)
    return input_size, ops, tensors


def graph(input_size, classes, flags, conv1, fires, pools):
    """Section "The graph": operations, tensors, and the names of those that are quantised, in order."""
    rounds_up, squeeze_relu, head_relu, head_pads = (bool(flags >> bit & 1) for bit in range(4))
    bypass = flags >> 4
    ops: list[Op] = []
    tensors = {"input": Tensor(3, input_size)}
    quantised = ["input"]

    def conv(name, source, channels, kernel=1, stride=1, padding=0, relu=True, into=None, offset=0, total=0):
        size = (tensors[source].size + 2 * padding - kernel) // stride + 1
        output = into or name
        if output not in tensors:
            tensors[output] = Tensor(total or channels, size)
            quantised.append(output)
        ops.append(Op("conv", [source], output, kernel, stride, padding, channels, offset, relu))
        return output

    def pool(layer, source):
        if layer not in pools:
            return source
        size = (tensors[source].size - (2 if rounds_up else 3)) // 2 + 1
        tensors[f"pool{layer}"] = Tensor(tensors[source].channels, size)
        ops.append(Op("pool", [source], f"pool{layer}"))
        return f"pool{layer}"

    def add(name, a, b):
        tensors[name] = Tensor(tensors[a].channels, tensors[a].size)
        quantised.append(name)
        ops.append(Op("add", [a, b], name))
        return name

    channels, kernel, stride, padding = conv1
    x = pool(1, conv("conv1", "input", channels, kernel, stride, padding))
    for layer, (squeeze, expand1, expand3) in enumerate(fires, start=2):
        width, fire = expand1 + expand3, f"fire{layer}"
        s = conv(f"{fire}.squeeze", x, squeeze, relu=squeeze_relu)
        has_add = bypass == 2 or (bypass == 1 and tensors[x].channels == width)
        expand = f"{fire}.expand" if has_add else fire
        y = conv(f"{fire}.expand1x1", s, expand1, into=expand, total=width)
        conv(f"{fire}.expand3x3", s, expand3, kernel=3, padding=1, into=y, offset=expand1)
        if has_add:
            has_conv = tensors[x].channels != width
            y = add(fire, y, conv(f"{fire}.bypass", x, width, relu=False) if has_conv else x)
        x = pool(layer, y)
    size = tensors[x].size + 2 * head_pads
    tensors["head"] = Tensor(classes, size)
    ops.append(Op("head", [x], "head", padding=int(head_pads), channels=classes, relu=head_relu))
    return ops, tensors, quantised


# ---- WGHT: the weights (docs/coding.md) -----------------------------------------------------------------------------


class Context:
    """The probability that a bit is 1, in units of 2^-16, and how often it was seen."""

    def __init__(self) -> None:
        self.p, self.n = 32768, 0

    def adapt(self, value: int) -> None:
        rate = 655360 // (10 * self.n + 18)
        self.p += ((65536 - self.p) * rate + 32768 >> 16) if value else -(self.p * rate + 32768 >> 16)
        self.n = min(self.n + 1, 255)


def contexts(*shape: int):
    """A table of new contexts, of any number of dimensions."""
    return [contexts(*shape[1:]) for _ in range(shape[0])] if shape else Context()


class RangeDecoder:
    """Bits out of bytes: each `bit` narrows the range in proportion to its probability."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.range, self.code = 2**32 - 1, 0
        for _ in range(4):
            self.code = self.code << 8 | self.next_byte()

    def next_byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def refill(self) -> None:
        while self.range < 2**24:
            self.code, self.range = self.code << 8 | self.next_byte(), self.range << 8

    def bit(self, context: Context) -> int:
        bound = (self.range >> 16) * context.p
        value = int(self.code < bound)
        if value:
            self.range = bound
        else:
            self.code, self.range = self.code - bound, self.range - bound
        context.adapt(value)
        self.refill()
        return value

    def raws(self, n: int) -> int:
        value = 0
        while n > 0:
            some = min(n, 8)
            n -= some
            self.range >>= some
            digits = self.code // self.range
            self.code -= digits * self.range
            self.refill()
            value = value << some | digits
        return value

    def tree(self, nodes: list[Context], n: int) -> int:
        node = 1
        for _ in range(n):
            node = node << 1 | self.bit(nodes[node])
        return node - 2**n

    def magnitude(self, lengths: list[Context], tops: list[Context]) -> int:
        length = n = self.tree(lengths, 5)
        if n < 2:
            return n
        value, n = 2 | self.bit(tops[n]), n - 2
        if n > 0:
            value, n = value << 1 | self.bit(tops[32 * (value - 1) + length]), n - 1
        return value << n | self.raws(n)

    def finish(self) -> None:
        assert (self.at - len(self.data), self.code >> 24) == (3, 0), "damaged stream"


class WeightDecoder:
    """What is learnt from one convolution and used in the next: contexts and two linear predictors."""

    def __init__(self) -> None:
        self.bias = contexts(32), contexts(96)
        self.distance = contexts(32), contexts(96)
        self.codebook = contexts(4)
        self.zero, self.sign = contexts(37, 8), contexts(7, 8)
        self.length, self.mantissa = contexts(37, 6, 8), contexts(37, 8, 8)
        self.predictors: dict[int, tuple[list[list[int]], list[list[int]]]] = {}

    def relax(self, table=None) -> None:
        """Every context remembers at most 30 bits when the next convolution begins."""
        if isinstance(table, Context):
            table.n = min(table.n, 30)
            return
        kept = (*self.bias, *self.distance, self.codebook, self.zero, self.sign, self.length, self.mantissa)
        for part in kept if table is None else table:
            self.relax(part)

    def convolution(self, data: bytes, outputs: int, inputs: int, kernel: int):
        """Weights (O, I, k, k), biases and multipliers of one stream."""
        self.relax()
        coder = RangeDecoder(data)
        shift = coder.raws(5)
        least, width = coder.raws(31 - shift), coder.raws(5)
        top, nodes = min(width, 6), contexts(64)
        patterns = []
        for _ in range(outputs):
            value = coder.tree(nodes, top)
            patterns.append(least + (value << width - top | coder.raws(width - top)) << shift)
        multipliers = [struct.unpack("<f", struct.pack("<I", pattern))[0] for pattern in patterns]

        shift = coder.raws(5)
        biases = []
        for _ in range(outputs):
            value = coder.magnitude(*self.bias) << shift
            biases.append(-value if value and coder.raws(1) else value)

        table = self.read_codebook(coder) if coder.raws(1) else None
        refers_to = [0, 0, *range(1, outputs - 1)]
        if coder.raws(1):
            for row in range(2, outputs):
                refers_to[row] = row - coder.magnitude(*self.distance)
        energy = coder.raws(5)
        symbols = self.rows(coder, outputs, inputs, kernel, refers_to, energy)
        coder.finish()
        if table is not None:
            zero = table.index(0)
            symbols = [table[zero + symbol] for symbol in symbols]
        return np.array(symbols, np.int64).reshape(outputs, inputs, kernel, kernel), biases, multipliers

    def read_codebook(self, coder: RangeDecoder) -> list[int]:
        present = {-129: 0, -128: 0}
        for value in range(-127, 128):
            context = self.codebook[2 * present[value - 2] + present[value - 1]]
            present[value] = 1 if value == 0 else coder.bit(context)
        return [value for value, is_there in present.items() if is_there]

    def rows(self, coder, outputs, inputs, kernel, refers_to, energy) -> list[int]:
        """Section "Weights": predict each symbol from its neighbours, read it, and learn from it."""
        positions, n = kernel * kernel, inputs * kernel * kernel
        if kernel not in self.predictors:
            ends = [min(p, 8) for p in range(positions)]
            self.predictors[kernel] = (
                [[0] * (end + 2) for end in ends],
                [[0] * (end + 1) + [2**20, 2**19] for end in ends],
            )
        means, sizes_of = self.predictors[kernel]
        layer = ((218 if energy % 2 else 154) << (energy >> 1)) >> 4
        column_size, column_mean = [layer] * n, [0] * n
        made: list[list[int]] = []  # rows of x
        for row in range(outputs):
            for coefficients in means + sizes_of:
                coefficients[:] = [clamp(c, -(2**21), 2**21) for c in coefficients]
            above = made[refers_to[row]] if row else [0] * n
            current: list[int] = []
            average, column_shift = layer, clamp((row + 1).bit_length(), 2, 5)
            for index in range(n):
                p = index % positions
                near = [*current[index - min(p, 8) : index], above[index]]
                sizes = [*map(abs, near), column_size[index] >> 4, average >> 4]
                near.append(column_mean[index] >> 4)
                mean = sum(c * v for c, v in zip(means[p], near, strict=True))
                size = sum(c * v for c, v in zip(sizes_of[p], sizes, strict=True))

                symbol = self.symbol(coder, mean, octave_thirds(clamp(size >> 18, layer >> 5, 16383)))

                x = 16 * symbol
                step = clamp(((x << 21) - mean + 2 ** (energy + 8)) >> (energy + 9), -511, 511)
                means[p] = [c + step * v for c, v in zip(means[p], near, strict=True)]
                step = clamp(((abs(x) << 21) - size + 2 ** (energy + 9)) >> (energy + 10), -511, 511)
                sizes_of[p] = [c + step * v for c, v in zip(sizes_of[p], sizes, strict=True)]
                column_size[index] += (16 * abs(x) - column_size[index]) >> column_shift
                column_mean[index] += (16 * x - column_mean[index]) >> column_shift
                average += (16 * abs(x) - average) >> clamp((index + 1).bit_length(), 3, 6)
                layer += (16 * abs(x) - layer) >> 7
                current.append(x)
            made.append(current)
        return [x // 16 for current in made for x in current]

    def symbol(self, coder: RangeDecoder, mean: int, level: int) -> int:
        certainty = clamp((octave_thirds(min(abs(mean) >> 18, 16383)) - level + 11) >> 1, 0, 7)
        if not coder.bit(self.zero[level][certainty]):
            return 0
        surprise = coder.bit(self.sign[level // 6][certainty])
        agreement = (5 if certainty > 3 else 0) if surprise else max(certainty - 3, 0)
        n = 1
        while n < 7 and coder.bit(self.length[level][agreement][n]):
            n += 1
        value, left = 1, n - 1
        while left > 0 and value < 8:
            left -= 1
            value = value << 1 | coder.bit(self.mantissa[level][n][value])
        value = value << left | coder.raws(left)
        return -value if bool(surprise) != (mean < 0) else value


def octave_thirds(value: int) -> int:
    """floor(3 * log2(value / 4 + 1)), in integers."""
    return ((value + 4) ** 3).bit_length() - 7


def clamp(value, least, most):
    return max(least, min(value, most))


def read_weights(body: bytes, version: int, ops: list[Op], tensors: dict[str, Tensor]) -> None:
    """Decode the streams of WGHT into the convolutions."""
    convs = [op for op in ops if op.kind in ("conv", "head")]
    lengths, at = [], 0
    for _ in convs:
        length = shift = 0
        while True:
            byte = body[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        lengths.append(length)
    fresh = [version > 1 and length % 2 for length in lengths]  # streams that do not need those before them
    if version > 1:
        lengths = [length // 2 for length in lengths]
    ends = [at]
    for length in lengths:
        ends.append(ends[-1] + length)
    assert ends[-1] == len(body)
    decoder = WeightDecoder()
    for op, is_fresh, (start, end) in zip(convs, fresh, pairwise(ends), strict=True):
        decoder = WeightDecoder() if is_fresh else decoder
        inputs = tensors[op.inputs[0]].channels
        op.weights, op.biases, op.multipliers = decoder.convolution(body[start:end], op.channels, inputs, op.kernel)


def read_sqz(data: bytes) -> Network:
    """The network in the bytes of a `.sqz` file."""
    chunks = read_chunks(data)
    input_size, ops, tensors = read_architecture(chunks[b"ARCH"])
    read_weights(chunks[b"WGHT"], chunks[b"ARCH"][0], ops, tensors)
    meta = json.loads(zlib.decompress(chunks[b"META"])) if b"META" in chunks else {}
    return Network(input_size, ops, tensors, meta)


# ---- The integer network --------------------------------------------------------------------------------------------


def run(network: Network, pixels: np.ndarray) -> tuple[list[float], dict[str, np.ndarray]]:
    """The logits of one image, (H, W, 3) uint8, and every tensor, (C, H, W) int64; of the head, its sums."""
    values = {"input": pixels.astype(np.int64).transpose(2, 0, 1)}
    for op in network.ops:
        x, tensor = values[op.inputs[0]], network.tensors[op.output]
        if op.kind == "pool":
            values[op.output] = max_pool(x, tensor.size)
        elif op.kind == "add":
            values[op.output] = add(network, op, values)
        else:
            sums = convolve(op, x, network.tensors[op.inputs[0]].zero)
            if op.kind == "head":
                values["head"] = np.maximum(sums, 0) if op.relu else sums
                totals = values["head"].sum(axis=(1, 2))
                logits = [int(total) * m / tensor.size**2 for total, m in zip(totals, op.multipliers, strict=True)]
                return logits, values
            scaled = sums.astype(np.float32) * np.array(op.multipliers, np.float32)[:, None, None]
            y = np.clip(np.rint(scaled).astype(np.int64) + tensor.zero, 0, 255)
            values[op.output] = np.concatenate([values[op.output], y]) if op.offset else y
    raise AssertionError("the graph ends with a head")


def convolve(op: Op, x: np.ndarray, zero: int) -> np.ndarray:
    """Exact sums of a convolution; outside the image, x is its zero-point."""
    padded = np.pad(x - zero, ((0, 0), (op.padding, op.padding), (op.padding, op.padding)))
    size = (padded.shape[1] - op.kernel) // op.stride + 1
    sums = np.zeros((op.channels, size, size), np.int64) + np.array(op.biases)[:, None, None]
    for row in range(op.kernel):
        for column in range(op.kernel):
            window = padded[:, row:, column:][:, :: op.stride, :: op.stride][:, :size, :size]
            sums += np.tensordot(op.weights[:, :, row, column], window, 1)
    return sums


def max_pool(x: np.ndarray, size: int) -> np.ndarray:
    """The largest of 3x3, stride 2; a slice ends where the image does."""
    y = np.empty((x.shape[0], size, size), np.int64)
    for row in range(size):
        for column in range(size):
            y[:, row, column] = x[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].max(axis=(1, 2))
    return y


def add(network: Network, op: Op, values: dict[str, np.ndarray]) -> np.ndarray:
    """Bypass: two products, their sum and the rounding, each in float32."""
    out = network.tensors[op.output]
    terms = []
    for name in op.inputs:
        tensor = network.tensors[name]
        factor = np.float32(tensor.scale / out.scale)
        terms.append((values[name] - tensor.zero).astype(np.float32) * factor)
    return np.clip(np.rint(terms[0] + terms[1]).astype(np.int64) + out.zero, 0, 255)


# ---- Preprocessing --------------------------------------------------------------------------------------------------


def filter_weight(name: str, x: float) -> float:
    x = abs(x)
    if name == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0


def resize_rows(pixels: np.ndarray, name: str, size: int) -> np.ndarray:
    """Resize (H, W, 3) along its first axis, in fixed point."""
    if len(pixels) == size:
        return pixels
    scale = len(pixels) / size
    stretch = max(scale, 1.0)
    support = stretch * (1.0 if name == "bilinear" else 2.0)
    out = np.empty((size, *pixels.shape[1:]), np.uint8)
    for position in range(size):
        centre = (position + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(len(pixels), int(centre + support + 0.5))
        weights = [filter_weight(name, (i - centre + 0.5) * (1.0 / stretch)) for i in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        shares = [weight / total * 2**22 for weight in weights]
        fixed = np.array([math.trunc(share + (0.5 if share >= 0 else -0.5)) for share in shares], np.int64)
        sums = 2**21 + np.tensordot(fixed, pixels[first:last].astype(np.int64), 1)
        out[position] = np.clip(sums >> 22, 0, 255)
    return out


def resize(pixels: np.ndarray, name: str, width: int, height: int) -> np.ndarray:
    """Resize (H, W, 3) uint8: first across, rounded to 8 bits, then down."""
    across = resize_rows(pixels.transpose(1, 0, 2), name, width).transpose(1, 0, 2)
    return resize_rows(across, name, height)


def preprocess(pixels: np.ndarray, settings: dict, input_size: int) -> np.ndarray:
    """The network's input from an upright RGB photo, (H, W, 3) uint8 both."""
    crop = settings.get("crop_size", input_size)
    target = settings.get("resize_size", input_size)
    height, width = pixels.shape[:2]
    if settings.get("resize_mode", "short_side") == "squash":
        new_width = new_height = target
    else:
        short = min(width, height)
        new_width, new_height = target * width // short, target * height // short
    pixels = resize(pixels, settings.get("resample", "bilinear"), new_width, new_height)
    top, left = round((new_height - crop) / 2), round((new_width - crop) / 2)  # Python rounds halves to even
    return pixels[top : top + crop, left : left + crop]


def main(model: str, photo: str) -> None:
    from PIL import Image, ImageOps

    with open(model, "rb") as stream:
        network = read_sqz(stream.read())
    with Image.open(photo) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    logits, _ = run(network, preprocess(pixels, network.meta.get("preprocessing", {}), network.input_size))
    names = network.meta.get("labels", {}).get("names") or list(map(str, range(len(logits))))
    shares = np.exp(np.array(logits) - max(logits))
    for index in sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:5]:
        print(f"{shares[index] / shares.sum():7.2%}  {names[index]}  (logit {logits[index]!r})")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
