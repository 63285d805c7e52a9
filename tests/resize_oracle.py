"""The resize of docs/format.md in plain Python and NumPy, written from that text alone."""

import math

import numpy as np

SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def kernel(name, x):
    x = abs(x)
    if name == "bilinear":
        return 1.0 - x if x < 1.0 else 0.0
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * a if x < 2.0 else 0.0


def coefficients(name, in_size, out_size):
    """For each output position: the first input position and the fixed-point weights, in units of 2^-22."""
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    support = SUPPORT[name] * stretch
    rows = []
    for out in range(out_size):
        centre = (out + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(in_size, int(centre + support + 0.5))
        weights = [kernel(name, (i - centre + 0.5) * (1.0 / stretch)) for i in range(first, last)]
        total = 0.0
        for weight in weights:
            total += weight
        shares = [weight / total for weight in weights]
        fixed = [math.trunc(share * (1 << 22) + (0.5 if share >= 0 else -0.5)) for share in shares]
        rows.append((first, fixed))
    return rows


def resize_rows(pixels, name, out_size):
    """Resize along the first axis."""
    if len(pixels) == out_size:
        return pixels
    out = np.empty((out_size, *pixels.shape[1:]), np.uint8)
    for position, (first, weights) in enumerate(coefficients(name, len(pixels), out_size)):
        window = pixels[first : first + len(weights)].astype(np.int64)
        total = (1 << 21) + np.tensordot(np.array(weights, np.int64), window, 1)
        out[position] = np.clip(total >> 22, 0, 255)
    return out


def resize(pixels, name, width, height):
    """Resize (H, W, 3) uint8: first across, rounded to uint8, then down."""
    across = resize_rows(pixels.transpose(1, 0, 2), name, width).transpose(1, 0, 2)
    return resize_rows(across, name, height)


def resized_size(width, height, resize_size, mode):
    if mode == "squash":
        return resize_size, resize_size
    short = min(width, height)
    return resize_size * width // short, resize_size * height // short


def crop(pixels, size):
    """Centre crop; half a pixel goes to the even side."""

    def offset(side):
        half, odd = divmod(side - size, 2)
        return half + (half & 1 if odd else 0)

    top, left = (offset(side) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]
