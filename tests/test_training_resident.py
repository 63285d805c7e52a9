"""Batches cut out on the device against those that are made in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from squeezenet.data import check_data, open_data
from squeezenet.preprocess import Preprocessing
from squeezenet.training.feed.augment import Augmentation, EpochDraw
from squeezenet.training.feed.batches import TrainBatches
from squeezenet.training.feed.resident import move_to_device


def opened(folder: Path, augmentation: Augmentation, *, sizes: tuple[int, ...]) -> TrainBatches:
    noise = np.random.default_rng(0)
    for number in range(12):
        side = sizes[number % len(sizes)]
        path = folder / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    check = check_data(open_data(folder), None)
    size = augmentation.size
    return TrainBatches.open(
        check.train, check.train_sizes, augmentation, Preprocessing(crop_size=size, resize_size=size)
    )


@pytest.mark.parametrize("crop", ["random", "center"])
@pytest.mark.parametrize("hflip", [False, True])
def test_pixels_are_those_made_in_memory(tmp_path: Path, crop: str, hflip: bool) -> None:
    augmentation = Augmentation(size=10, crop=crop, crop_pad=3, hflip=hflip)  # type: ignore[arg-type]
    plain = opened(tmp_path, augmentation, sizes=(10,))
    resident = move_to_device(plain, torch.device("cpu"))
    assert resident is not None
    draw = EpochDraw(12, seed=1, epoch=2)
    settings = {"batch_size": 4, "first_step": 1, "n_steps": 3}
    for made, expected in zip(resident.epoch(draw, **settings), plain.epoch(draw, **settings), strict=True):
        assert made.pixels.dtype == torch.uint8
        assert torch.equal(made.pixels, expected.pixels)
        assert torch.equal(made.labels, expected.labels)
        assert len(expected.labels) == 4


def test_images_of_other_sizes_stay_where_they_are(tmp_path: Path) -> None:
    augmentation = Augmentation(size=8, crop="random_resized")
    assert move_to_device(opened(tmp_path, augmentation, sizes=(9, 12)), torch.device("cpu")) is None


def test_workers_make_the_same_batches_of_kept_images(tmp_path: Path) -> None:
    augmentation = Augmentation(size=8, crop="random_resized", crop_scale=(0.3, 1.0), hflip=True)
    plain = opened(tmp_path, augmentation, sizes=(9, 12))
    check = check_data(open_data(tmp_path), None)
    fed = TrainBatches.open(
        check.train, check.train_sizes, augmentation, Preprocessing(crop_size=8, resize_size=8), feeds_gpu=True
    )
    assert fed.n_workers > 0
    draw = EpochDraw(12, seed=1, epoch=0)
    settings = {"batch_size": 4, "first_step": 0, "n_steps": 3}
    for made, expected in zip(fed.epoch(draw, **settings), plain.epoch(draw, **settings), strict=True):
        assert torch.equal(made.pixels, expected.pixels)
