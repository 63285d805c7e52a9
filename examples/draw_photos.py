"""Draw sixty pictures of balls, boxes and flowers, for trying the tutorial without photos of your own.

python examples/draw_photos.py photos/ [SEED]
"""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 240


def cloth(rng):
    """A table top: one colour, lit from one side, with a weave."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    light = 0.75 + 0.4 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) + 0.05 * rng.normal(size=(SIZE, SIZE))
    return Image.fromarray((rng.uniform(60, 200, 3) * light[..., None]).clip(0, 255).astype(np.uint8))


def ball(pen, rng, x, y, r):
    pen.ellipse([x - r, y - r, x + r, y + r], fill=255)


def box(pen, rng, x, y, r):
    turn = rng.uniform(0, math.pi / 2)
    flat = rng.uniform(0.55, 1)
    angles = [turn + k * math.pi / 2 + (1 - flat) * (-1) ** k for k in range(4)]
    pen.polygon([(x + r * math.cos(a), y + r * math.sin(a)) for a in angles], fill=255)


def flower(pen, rng, x, y, r):
    turn, petals = rng.uniform(0, 2 * math.pi), rng.integers(5, 8)
    points = []
    for step in range(120):
        angle = 2 * math.pi * step / 120
        reach = r * (0.6 + 0.4 * abs(math.cos(petals * angle / 2)) ** 0.6)
        points.append((x + reach * math.cos(angle + turn), y + reach * math.sin(angle + turn)))
    pen.polygon(points, fill=255)
    pen.line(
        [(x, y), (x + 1.5 * r * math.cos(turn), y + 1.5 * r * math.sin(turn))], fill=255, width=max(3, int(r / 12))
    )


def picture(shape, rng):
    """One thing on a table: shape, shade, shadow."""
    image, mask = cloth(rng), Image.new("L", (SIZE, SIZE))
    x, y, r = rng.uniform(85, 155), rng.uniform(85, 155), rng.uniform(50, 80)
    shape(ImageDraw.Draw(mask), rng, x, y, r)
    shadow = ImageChops.offset(mask, 8, 10).filter(ImageFilter.GaussianBlur(7))
    image = Image.composite(Image.eval(image, lambda value: value * 6 // 10), image, shadow)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    shade = 1.15 - 0.5 * np.hypot(columns - x + 0.4 * r, rows - y + 0.4 * r) / r + 0.03 * rng.normal(size=(SIZE, SIZE))
    thing = Image.fromarray((rng.uniform(90, 250, 3) * shade[..., None]).clip(0, 255).astype(np.uint8))
    return Image.composite(thing, image, mask).filter(ImageFilter.GaussianBlur(0.8))


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
