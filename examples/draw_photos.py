"""Draw sixty pictures of balls, boxes and flowers, for trying the tutorial without photos of your own.

python examples/draw_photos.py photos/ [SEED]
"""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 240


def table(rng):
    """A wooden table: brown, lit from one side, with a grain."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    light = 0.8 + 0.35 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) + 0.03 * rng.normal(size=(SIZE, SIZE))
    grain = 1 + 0.06 * np.sin(60 * y + 4 * np.sin(3 * x + rng.uniform(0, 6)))
    colour = np.array([150, 110, 75]) * rng.uniform(0.7, 1.2)
    return Image.fromarray((colour * (light * grain)[..., None]).clip(0, 255).astype(np.uint8))


def ball(rng, x, y, r):
    """A disc with a stripe."""
    turn = rng.uniform(-0.5, 0.5)
    stripe = [
        (x + r * math.cos(a + turn), y + r * math.sin(a + turn)) for a in (-0.2, 0.2, math.pi - 0.2, math.pi + 0.2)
    ]
    return [("ellipse", [x - r, y - r, x + r, y + r], 0), ("polygon", stripe, 1)]


def box(rng, x, y, r):
    """A cube seen from above: a top and two sides."""
    corners = [
        (x + r * math.cos(k * math.pi / 3 + math.pi / 6), y + r * math.sin(k * math.pi / 3 + math.pi / 6))
        for k in range(6)
    ]
    return [("polygon", corners, 0), ("polygon", [corners[0], corners[1], corners[2], (x, y)], 2),
            ("polygon", [corners[2], corners[3], corners[4], (x, y)], 1)]  # fmt: skip


def flower(rng, x, y, r):
    """Petals around a middle."""
    turn, petals, shapes = rng.uniform(0, 6), rng.integers(6, 10), []
    for k in range(petals):
        angle, s = turn + 2 * math.pi * k / petals, 0.38 * r
        px, py = x + 0.65 * r * math.cos(angle), y + 0.65 * r * math.sin(angle)
        shapes.append(("ellipse", [px - s, py - s, px + s, py + s], k % 2))
    return [*shapes, ("ellipse", [x - 0.35 * r, y - 0.35 * r, x + 0.35 * r, y + 0.35 * r], 3)]


def picture(thing, rng):
    """One thing on a table, with its shadow."""
    image, mask = table(rng), Image.new("L", (SIZE, SIZE))
    x, y, r = rng.uniform(95, 145), rng.uniform(95, 145), rng.uniform(55, 85)
    colour = rng.uniform(90, 230, 3)
    shades = [colour, colour * 0.75, colour * 0.5, np.array([225, 180, 40])]
    shapes = thing(rng, x, y, r)
    for kind, where, _ in shapes:
        getattr(ImageDraw.Draw(mask), kind)(where, fill=255)
    shadow = ImageChops.offset(mask, 10, 12).filter(ImageFilter.GaussianBlur(8))
    image = Image.composite(Image.eval(image, lambda value: value * 6 // 10), image, shadow)
    pen = ImageDraw.Draw(image)
    for kind, where, shade in shapes:
        getattr(pen, kind)(where, fill=tuple(shades[shade].astype(int)))
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)), float)
    return Image.fromarray((pixels + rng.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8))


def main(folder, seed=0):
    rng = np.random.default_rng(seed)
    for shape in (ball, box, flower):
        place = Path(folder, shape.__name__)
        place.mkdir(parents=True, exist_ok=True)
        for number in range(20):
            picture(shape, rng).save(place / f"{number:02}.jpg", quality=88)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
