"""Estimated bits against coded bytes."""

import numpy as np
import pytest

from codec_checks import check_round_trip, conv_params, laplacian
from squeezenet.codec.rate import RateModel, layer_bits


def smooth_layer() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1, (64, 24, 3, 3))
    return np.rint(1.5 * (noise + 3 * noise.mean(axis=(2, 3), keepdims=True))).astype(np.int8)


@pytest.mark.parametrize(
    "weight",
    [laplacian((96, 128, 1, 1), 0.6, seed=0), laplacian((96, 128, 1, 1), 20.0, seed=0), smooth_layer()],
    ids=["sparse", "dense", "smooth"],
)
def test_estimate_is_near_the_coded_size(weight):
    assert layer_bits(weight) / 8 == pytest.approx(len(check_round_trip(conv_params(weight))[0]), rel=0.05)


def test_zero_is_cheapest_in_a_sparse_layer():
    weight = laplacian((64, 64, 1, 1), 0.4, seed=0)
    columns = RateModel.fit(weight).start()
    bits = columns.bits(weight[:, 0, 0, 0], np.tile([-2, -1, 0, 1, 2], (64, 1)))
    assert bits.shape == (64, 5)
    assert (bits.argmin(axis=1) == 2).all()


def test_a_busy_row_makes_large_weights_cheaper():
    weight = laplacian((64, 64, 1, 1), 2.0, seed=0)
    weight[::2] = np.sign(weight[::2])
    columns = RateModel.fit(weight).start()
    for column in weight.reshape(64, -1).T[:40]:
        columns.append(column)
    guess = weight[:, 40, 0, 0]
    cost_of_four = columns.bits(guess, np.full((64, 1), 4))[:, 0]
    assert cost_of_four[1::2].mean() + 2 < cost_of_four[::2].mean()


def test_the_sign_of_smooth_filters_is_expected():
    weight = smooth_layer()
    columns = RateModel.fit(weight).start()
    rows = weight.reshape(64, -1)
    for column in rows.T[:4]:
        columns.append(column)
    positive = rows[:, :4].sum(axis=1) > 8
    bits = columns.bits(rows[:, 4], np.tile([-2, 2], (64, 1)))
    assert (bits[positive, 1] < bits[positive, 0]).all()


def test_an_all_zero_layer_costs_next_to_nothing():
    assert layer_bits(np.zeros((16, 16, 1, 1), np.int8)) < 20
