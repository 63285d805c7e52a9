"""Refitting a pruned network to what it was: exact where it can be, and never on pruned weights."""

import copy

import numpy as np
import torch

from networks import random_pixels, tiny_spec
from squeezenet.compression.deep.prune import PruningMask
from squeezenet.compression.deep.refit import kept_systems, refit_kept_weights
from squeezenet.models import SqueezeNet, normalize_pixels
from squeezenet.preprocess import Preprocessing


def teacher():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(num_classes=10, input_size=8, head_relu=False, pools=())).eval()
    model.preprocessing = Preprocessing(crop_size=8, resize_size=8)
    return model


def distance(model, other, pixels):
    with torch.no_grad():
        one, two = (net(normalize_pixels(torch.from_numpy(pixels), other.preprocessing)) for net in (model, other))
    return ((one - two).square().mean() / two.square().mean()).item()


def test_refit_brings_a_pruned_network_back_towards_the_float_one():
    float_net = teacher()
    pixels = random_pixels(float_net.spec, 40)
    pruned = copy.deepcopy(float_net)
    mask = PruningMask.by_magnitude(pruned, 0.5)
    mask.on_weights(pruned)
    refitted = copy.deepcopy(pruned)
    refit_kept_weights(refitted, float_net, mask.masks, [pixels[:20], pixels[20:]])
    unseen = random_pixels(float_net.spec, 20, seed=1)
    assert distance(refitted, float_net, unseen) < 0.5 * distance(pruned, float_net, unseen)
    for name, conv in refitted.convs.items():
        assert (conv.weight[~mask.masks[name]] == 0).all()


def test_weights_that_were_only_scaled_are_found_again():
    float_net = teacher()
    spoilt = copy.deepcopy(float_net)
    conv = spoilt.convs["fire2.squeeze"]
    masks = {name: torch.ones_like(conv.weight, dtype=torch.bool) for name, conv in spoilt.convs.items()}
    with torch.no_grad():
        silent = conv.weight[0].abs().argmin()
        masks["fire2.squeeze"][0].view(-1)[silent] = False
        conv.weight[0].view(-1)[silent] = 0
        conv.weight.mul_(0.9)
    refit_kept_weights(spoilt, float_net, masks, [random_pixels(float_net.spec, 60)])
    np.testing.assert_allclose(
        conv.weight[1:].detach(), float_net.convs["fire2.squeeze"].weight[1:].detach(), atol=0.01
    )


def test_kept_systems_are_those_of_each_channel_alone():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 9, dtype=torch.float64, generator=generator)
    gram = x.T @ x
    mask = torch.rand(30, 8, generator=generator) < torch.linspace(0, 1.2, 30)[:, None]  # of every size, none and all
    seen = []
    for kept in kept_systems(gram, mask):
        for place, row in enumerate(kept.rows[:, 0]):
            columns = kept.columns[place][kept.is_kept[place]]
            assert columns.tolist() == [8, *mask[row].nonzero()[:, 0].flip(0).tolist()]
            factor = kept.factor[place if len(kept.factor) > 1 else 0][: len(columns), : len(columns)]
            torch.testing.assert_close(factor @ factor.T, gram[columns][:, columns])
            seen.append(int(row))
    assert sorted(seen) == list(range(30))
