"""Draw `examples/photo.jpg`: a golf ball on grass, so that the first command has a photo to classify.

python tools/draw_photo.py OUT.jpg
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 640, 480
CENTRE_X, CENTRE_Y, RADIUS = 330, 235, 150
DIMPLES, DIMPLE_RADIUS = 360, 0.082  # radians
LIGHT = np.array([-0.45, -0.65, 0.62]) / np.linalg.norm([-0.45, -0.65, 0.62])

Array = NDArray[np.float64]


def smooth_noise(rng: np.random.Generator, height: int, radius: float) -> Array:
    """Blurred noise of mean 0 and deviation 1; fewer rows than the picture make vertical streaks."""
    noise = rng.normal(size=(height, WIDTH))
    scaled = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    image = Image.fromarray(scaled).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), float)
    return (blurred - blurred.mean()) / blurred.std()


def grass(rng: np.random.Generator, x: Array, y: Array) -> Array:
    """Lawn with the ball's shadow, (H, W, 3)."""
    texture = 0.6 * smooth_noise(rng, HEIGHT, 1.2) + 0.6 * smooth_noise(rng, HEIGHT // 2, 0.8)
    depth = y / HEIGHT
    lawn = np.stack(
        [62 + 22 * depth + 14 * texture, 112 + 40 * depth + 20 * texture, 38 + 10 * depth + 9 * texture], -1
    )
    across, down = (x - CENTRE_X - 50) / (1.15 * RADIUS), (y - CENTRE_Y - 0.92 * RADIUS) / (0.30 * RADIUS)
    return lawn * (1 - 0.6 * np.exp(-((across**2 + down**2) ** 2)))[..., None]


def shade_ball(points: Array) -> Array:
    """Grey of points of the unit sphere, (N, 3): dimples tilt the normal, light comes from the upper left."""
    k = np.arange(DIMPLES) + 0.5
    phi, theta = np.arccos(1 - 2 * k / DIMPLES), np.pi * (1 + 5**0.5) * k  # a Fibonacci sphere
    dimples = np.stack([np.cos(theta) * np.sin(phi), np.sin(theta) * np.sin(phi), np.cos(phi)], -1)
    angles = np.arccos(np.clip(points @ dimples.T, -1, 1))
    nearest, angle = dimples[angles.argmin(1)], angles.min(1)
    outwards = points - nearest * (points * nearest).sum(1, keepdims=True)
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True) + 1e-9
    tilt = np.where(angle < DIMPLE_RADIUS, 0.55 * np.sin(angle / DIMPLE_RADIUS * np.pi), 0)
    normals = points - outwards * tilt[:, None]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    half_way = (LIGHT + [0, 0, 1]) / np.linalg.norm(LIGHT + [0, 0, 1])
    return 70 + 165 * np.clip(normals @ LIGHT, 0, 1) + 45 * np.clip(normals @ half_way, 0, 1) ** 40


def draw() -> Image.Image:
    """The whole picture."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    picture = grass(rng, x, y)
    dx, dy = (x - CENTRE_X) / RADIUS, (y - CENTRE_Y) / RADIUS
    distance = dx**2 + dy**2
    inside = distance < 1
    points = np.stack([dx, dy, np.sqrt(np.clip(1 - distance, 0, 1))], -1)[inside]
    grey = shade_ball(points)
    edge = np.clip((1 - np.sqrt(distance[inside])) * RADIUS, 0, 1)[:, None]
    picture[inside] = np.stack([grey, grey, 0.985 * grey], -1) * edge + picture[inside] * (1 - edge)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(700):  # blades of grass in front of the ball
        left, foot = rng.uniform(0, WIDTH), rng.uniform(CENTRE_Y + 0.78 * RADIUS, HEIGHT + 30)
        length, light = rng.uniform(14, 42) * foot / HEIGHT, rng.uniform(0.7, 1.15)
        colour = (int(66 * light), int(128 * light), int(40 * light))
        pen.line([(left, foot), (left + rng.normal(0, 7), foot - length)], fill=colour, width=2)
    return image.filter(ImageFilter.GaussianBlur(0.6))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    draw().save(sys.argv[1], quality=82)
