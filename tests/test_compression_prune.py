"""Pruning and sharing by cost: better than by magnitude, and within what was asked for."""

import copy

import numpy as np
import pytest
import torch

from networks import random_pixels, tiny_spec
from squeezenet.compression.deep.prune import PruningMask, output_sensitivities
from squeezenet.compression.deep.refit import refit_kept_weights
from squeezenet.compression.deep.share import SharedWeights, share_in_turn
from squeezenet.models import SqueezeNet, normalize_pixels
from squeezenet.preprocess import Preprocessing


@pytest.fixture(scope="module")
def float_net():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(num_classes=10, input_size=8, head_relu=False, pools=())).eval()
    model.preprocessing = Preprocessing(crop_size=8, resize_size=8)
    return model


@pytest.fixture(scope="module")
def photos(float_net):
    return list(random_pixels(float_net.spec, 60).reshape(3, 20, 8, 8, 3))


@pytest.fixture(scope="module")
def sensitivities(float_net, photos):
    return output_sensitivities(float_net, photos)


def kl(model, float_net):
    x = normalize_pixels(torch.from_numpy(random_pixels(float_net.spec, 100, seed=1)), float_net.preprocessing)
    with torch.no_grad():
        log_p, log_q = float_net(x).log_softmax(1), model(x).log_softmax(1)
    return torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean").item()


def pruned(float_net, photos, mask):
    model = copy.deepcopy(float_net)
    mask.on_weights(model)
    refit_kept_weights(model, float_net, mask.masks, photos)
    return model


def test_sensitivities_are_the_fisher_information(float_net, sensitivities, photos):
    # The head's, in closed form: E (1{y = c} - p_c)^2 = p_c (1 - p_c), spread evenly over P positions.
    with torch.no_grad():
        x = normalize_pixels(torch.from_numpy(np.concatenate(photos)), float_net.preprocessing)
        p = float_net(x).softmax(1)
        n_positions = float_net.activation_map(x).shape[2:].numel()
    expected = (p * (1 - p)).sum(1).mean() / n_positions
    found = sensitivities[float_net.spec.convs[-1].name].sum()  # over classes, where drawing labels hardly matters
    assert found == pytest.approx(expected.item(), rel=0.1)


def test_cost_prunes_better_than_magnitude(float_net, photos, sensitivities):
    by_cost = PruningMask.by_cost(float_net, photos, sensitivities, 0.4)
    by_magnitude = PruningMask.by_magnitude(float_net, 0.4)
    assert kl(pruned(float_net, photos, by_cost), float_net) < 0.7 * kl(
        pruned(float_net, photos, by_magnitude), float_net
    )


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_mask_keeps_the_wanted_share_and_all_of_conv1(float_net, photos, sensitivities, density):
    masks = PruningMask.by_cost(float_net, photos, sensitivities, density).masks
    kept, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    assert kept / total == pytest.approx(density, abs=0.01)
    assert masks["conv1"].all()


def test_removed_weights_stay_removed_in_a_second_round(float_net, photos, sensitivities):
    first = PruningMask.by_cost(float_net, photos, sensitivities, 0.6)
    second = PruningMask.by_cost(pruned(float_net, photos, first), photos, sensitivities, 0.4)
    assert not any((second.masks[name] & ~first.masks[name]).any() for name in first.masks)


def test_sharing_in_turn_beats_plain_k_means(float_net, photos, sensitivities):
    mask = PruningMask.by_cost(float_net, photos, sensitivities, 0.5)
    in_turn, plain = (pruned(float_net, photos, mask) for _ in range(2))
    shared = share_in_turn(in_turn, float_net, mask.masks, photos, sensitivities, index_bits=3)
    SharedWeights.by_k_means(plain, index_bits=3).on_weights(plain)
    assert kl(in_turn, float_net) < 0.7 * kl(plain, float_net)
    for name, conv in in_turn.convs.items():
        assert len(conv.weight[mask.masks[name]].unique()) <= 7
        assert (conv.weight[~mask.masks[name]] == 0).all()
        assert torch.equal(shared.codes[name] == 0, ~mask.masks[name])


def test_a_price_of_bits_lowers_the_entropy_of_codes(float_net, photos, sensitivities):
    """At a small loss: weights move to values that many have."""
    mask = PruningMask.by_cost(float_net, photos, sensitivities, 0.5)

    def shared_at(nats_per_bit):
        model = pruned(float_net, photos, mask)
        options = {"index_bits": 5, "nats_per_bit": nats_per_bit}
        codes = share_in_turn(model, float_net, mask.masks, photos, sensitivities, **options).codes
        bits = 0.0
        for code in codes.values():
            p = torch.bincount(code[code > 0]).double()
            p = p[p > 0] / p.sum()
            bits -= float((code > 0).sum() * (p * p.log2()).sum())
        return bits, kl(model, float_net)

    assert mask.threshold > 0
    (free_bits, free_kl), (bits, priced_kl) = shared_at(0.0), shared_at(mask.threshold / 4)
    assert bits < 0.97 * free_bits
    assert priced_kl < 2 * free_kl


def test_a_layer_of_which_nothing_is_kept_can_be_shared(float_net, photos, sensitivities):
    mask = PruningMask.by_cost(float_net, photos, sensitivities, 0.5)
    mask.masks["fire2.squeeze"][:] = False
    model = pruned(float_net, photos, mask)
    shared = share_in_turn(model, float_net, mask.masks, photos, sensitivities, index_bits=3, nats_per_bit=1e-6)
    assert not shared.codes["fire2.squeeze"].any()
    assert all(conv.weight.isfinite().all() for conv in model.convs.values())


def test_channels_that_nothing_feels_can_be_shared(float_net, photos, sensitivities):
    mask = PruningMask.by_cost(float_net, photos, sensitivities, 0.5)
    unfelt = {name: torch.zeros_like(values) for name, values in sensitivities.items()}
    model, felt = (pruned(float_net, photos, mask) for _ in range(2))
    share_in_turn(model, float_net, mask.masks, photos, unfelt, index_bits=3)
    assert all(conv.weight.isfinite().all() for conv in model.convs.values())
    # Weights still take the nearest value, so little is lost by not knowing what is felt.
    share_in_turn(felt, float_net, mask.masks, photos, sensitivities, index_bits=3)
    assert kl(model, float_net) < 2 * kl(felt, float_net)
