import numpy as np
import pytest
import torch

from image_files import encode, photo, write_tree
from squeezenet.data import check_data, open_data
from squeezenet.errors import DataError
from squeezenet.preprocess import Preprocessing
from squeezenet.training.feed.augment import Augmentation, EpochDraw, augment
from squeezenet.training.feed.batches import TrainBatches, ValBatches

RAMP = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)


def numbers(*rows):
    return np.array(rows, dtype=np.float32)


def test_epoch_is_a_permutation_that_seed_and_epoch_decide():
    draw = EpochDraw(100, seed=1, epoch=2)
    assert sorted(draw.order) == list(range(100))
    assert draw.numbers.min() >= 0
    assert draw.numbers.max() < 1
    assert np.array_equal(draw.order, EpochDraw(100, seed=1, epoch=2).order)
    for seed, epoch in ((1, 3), (2, 2)):
        assert not np.array_equal(draw.order, EpochDraw(100, seed=seed, epoch=epoch).order)


def test_batches_cut_the_epoch_into_consecutive_pieces():
    draw = EpochDraw(10, seed=0, epoch=0)
    indices, rows = draw.batch(2, 3)
    assert indices.tolist() == draw.order[6:9].tolist()
    assert np.array_equal(rows, draw.numbers[6:9])


def test_random_crop_takes_the_place_the_numbers_say():
    crops = augment([RAMP, RAMP], numbers([0, 0, 0, 0, 1], [0, 0, 0.99, 0.99, 1]), Augmentation(size=2, crop="random"))
    assert torch.equal(crops[0], torch.from_numpy(RAMP[:2, :2]))
    assert torch.equal(crops[1], torch.from_numpy(RAMP[4:, 2:]))


def test_padding_is_black_and_lies_outside():
    augmentation = Augmentation(size=4, crop="random", crop_pad=1)
    (crop,) = augment([RAMP[:4] + 1], numbers([0, 0, 0, 0, 1]), augmentation)
    assert crop[0].max() == crop[:, 0].max() == 0
    assert torch.equal(crop[1:, 1:], torch.from_numpy(RAMP[:3, :3] + 1))


def test_mirror_reverses_columns_below_one_half():
    augmentation = Augmentation(size=4, crop="center", hflip=True)
    square = RAMP[:4]
    mirrored, same = augment([square, square], numbers([0, 0, 0, 0, 0.49], [0, 0, 0, 0, 0.5]), augmentation)
    assert torch.equal(mirrored, torch.from_numpy(square[:, ::-1].copy()))
    assert torch.equal(same, torch.from_numpy(square))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (1, 1), (1, 50), (8, 8)])
def test_random_resized_crops_of_any_shape_fill_the_result(shape):
    image = np.full((*shape, 3), 77, dtype=np.uint8)
    augmentation = Augmentation(size=8, crop="random_resized", crop_scale=(0.01, 1.0), crop_ratio=(0.5, 2.0))
    crops = augment([image] * 50, EpochDraw(50, seed=0, epoch=0).numbers, augmentation)
    assert crops.shape == (50, 8, 8, 3)
    assert crops.unique().tolist() == [77]


def test_random_resized_crop_has_the_area_and_shape_asked_for():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[:50, :50] = 200
    augmentation = Augmentation(size=10, crop="random_resized", crop_scale=(0.25, 0.25))
    corner, opposite = augment([image] * 2, numbers([0.5, 0.5, 0, 0, 1], [0.5, 0.5, 0.99, 0.99, 1]), augmentation)
    assert corner.unique().tolist() == [200]
    assert opposite.unique().tolist() == [0]


def open_batches(root, *, cache_bytes, n_workers=0):
    check = check_data(open_data(root))
    augmentation = Augmentation(
        size=16, crop="random_resized", crop_scale=(0.3, 1.0), crop_ratio=(0.75, 1.3), hflip=True
    )
    preprocessing = Preprocessing(crop_size=16, resize_size=20)
    return TrainBatches.open(
        check.train, check.train_sizes, augmentation, preprocessing, cache_bytes=cache_bytes, n_workers=n_workers
    )


@pytest.fixture
def photos(tmp_path):
    for number in range(12):
        path = tmp_path / f"{'ab'[number % 2]}/{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(photo(48 + number, 32), "JPEG"))
    return tmp_path


@pytest.mark.parametrize("n_workers", [0, 2])
def test_streamed_batches_are_those_from_memory(photos, n_workers):
    kept = open_batches(photos, cache_bytes=10**9)
    streamed = open_batches(photos, cache_bytes=0, n_workers=n_workers)
    assert (kept.make.arrays is None, streamed.make.arrays is None) == (False, True)
    draw = EpochDraw(12, seed=0, epoch=0)
    pairs = [list(batches.epoch(draw, batch_size=5, first_step=1, n_steps=2)) for batches in (kept, streamed)]
    assert len(pairs[0]) == len(pairs[1]) == 1
    assert torch.equal(pairs[0][0].pixels, pairs[1][0].pixels)
    assert pairs[0][0].labels.tolist() == pairs[1][0].labels.tolist() == [int(i >= 6) for i in draw.order[5:10]]


def test_memory_is_estimated_from_sizes_alone(photos):
    exact = sum(array.nbytes for array in open_batches(photos, cache_bytes=10**9).make.arrays)
    assert open_batches(photos, cache_bytes=int(exact * 1.1)).make.arrays is not None
    assert open_batches(photos, cache_bytes=int(exact * 0.9)).make.arrays is None


def test_image_that_fails_to_decode_is_left_out_of_a_streamed_batch(photos):
    broken = photos / "a/02.jpg"
    broken.write_bytes(broken.read_bytes()[:-60])
    batches = open_batches(photos, cache_bytes=0)
    (batch,) = batches.epoch(EpochDraw(12, seed=0, epoch=0), batch_size=12, first_step=0, n_steps=1)
    assert len(batch.labels) == len(batch.pixels) == 11
    assert [entry.name for entry in batch.unreadable] == [str(broken)]


def test_too_many_images_that_fail_to_decode_stop_the_run(photos):
    for name in ("a/02.jpg", "a/04.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:-60])
    with pytest.raises(DataError, match="at most 10% unreadable images, got 2 of 12"):
        open_batches(photos, cache_bytes=10**9)


@pytest.mark.parametrize("cache_bytes", [0, 10**9])
def test_validation_sees_exactly_the_contract(photos, cache_bytes):
    images = open_data(photos)
    preprocessing = Preprocessing(crop_size=16, resize_size=20)
    batches = ValBatches(images, preprocessing, cache_bytes=cache_bytes)
    for _ in range(2):
        pixels = torch.cat([batch.pixels for batch in batches])
        expected = np.stack([preprocessing(images.read(index)) for index in range(len(images))])
        assert torch.equal(pixels, torch.from_numpy(expected))
    assert batches.n_images == 12


def test_large_sets_of_thin_strips_do_not_fill_the_memory(tmp_path):
    write_tree(tmp_path, ["a/0.png"])
    (tmp_path / "a/strip.png").write_bytes(encode(photo(30_000, 1)))
    images = open_data(tmp_path)
    augmentation = Augmentation(size=16, crop="random", crop_pad=0)
    check = check_data(images)
    batches = TrainBatches.open(
        check.train, check.train_sizes, augmentation, Preprocessing(crop_size=16, resize_size=64), cache_bytes=10**9
    )
    assert [array.shape for array in batches.make.arrays] == [(64, 64, 3), (64, 512, 3)]
