import itertools

import numpy as np
import pytest
import torch

from networks import random_pixels, tiny_spec
from squeezenet.codec.rate import RateModel
from squeezenet.compression.rate_distortion import Lessons, compress_rate_distortion
from squeezenet.compression.rate_distortion.activation_scales import choose_ranges
from squeezenet.compression.rate_distortion.batches import augmented_photos, photo_batches
from squeezenet.compression.rate_distortion.distill import DistillSettings, Length, Rate, distill
from squeezenet.compression.rate_distortion.rounding import cholesky_of_inverse, refine_rows, round_rows
from squeezenet.compression.rate_distortion.search import _byte_budget, _Candidate
from squeezenet.compression.rate_distortion.sequential import round_network
from squeezenet.compression.rate_distortion.statistics import collect_statistics
from squeezenet.compression.rate_distortion.units import (
    UnitNet,
    integer_conv,
    quantized_forward,
    run_graph,
    to_network,
)
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import QuantizationError
from squeezenet.fileformat import SqzFile, encode_sqz
from squeezenet.models import SqueezeNet, normalize_pixels
from squeezenet.network import quantized_tensors
from squeezenet.preprocess import Preprocessing
from squeezenet.spec import StemSpec

PREPROCESSING = Preprocessing(crop_size=16, resize_size=16)


def tiny_model(seed=0, **options):
    torch.manual_seed(seed)
    model = SqueezeNet(tiny_spec(**options)).eval()
    model.preprocessing = PREPROCESSING
    for conv in model.convs.values():
        torch.nn.init.normal_(conv.bias, std=0.1)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


def unit_net(model, pixels):
    statistics = collect_statistics(model, pixels)
    ranges = choose_ranges(model.spec, statistics.channel_max)
    return UnitNet.build(model, *ranges), statistics


def rounded(model, pixels, slope):
    net, statistics = unit_net(model, pixels)
    with torch.no_grad():
        integers = round_network(net, statistics.row_grams, pixels, slope)
    return net, integers


def engine_kl(model, net, integers, pixels):
    """KL(float || engine) in nats, mean over the pixels."""
    with torch.no_grad():
        expected = model(normalize_pixels(pixels, PREPROCESSING)).log_softmax(1)
    found = torch.from_numpy(ReferenceEngine(to_network(net, integers)).logits(pixels)).log_softmax(1)
    return (expected.exp() * (expected - found)).sum(1).mean()


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("squeeze_relu", [True, False])
@pytest.mark.parametrize("pools", [(1,), (2,)])  # (2,): what is added was pooled
def test_units_do_not_change_what_a_network_computes(bypass, squeeze_relu, pools):
    model = tiny_model(bypass=bypass, squeeze_relu=squeeze_relu, pools=pools)
    pixels = random_pixels(model.spec, 12)
    net, _ = unit_net(model, pixels)

    with torch.no_grad():
        difference = net.logits(net.pixels(pixels)) - model(normalize_pixels(pixels, PREPROCESSING))

    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("squeeze_relu", [True, False])
@pytest.mark.parametrize("pools", [(1,), (2,)])  # (2,): what is added was pooled
def test_the_simulation_computes_what_the_engine_computes(bypass, squeeze_relu, pools):
    model = tiny_model(bypass=bypass, squeeze_relu=squeeze_relu, pools=pools)
    pixels = random_pixels(model.spec, 12)
    net, integers = rounded(model, pixels, 1e-6)

    engine = ReferenceEngine(to_network(net, integers)).logits(pixels)
    simulated = quantized_forward(net, integers, net.pixels(pixels)).numpy()

    assert np.abs(engine - simulated).max() < 0.02 * np.abs(engine).max()


def test_fine_steps_reproduce_the_float_network():
    model = tiny_model()
    pixels = random_pixels(model.spec, 20)
    net, integers = rounded(model, pixels, 1e-12)

    assert engine_kl(model, net, integers, pixels) < 1e-3


@pytest.mark.parametrize("dead", [slice(0, 1), slice(None)])
def test_pruned_filters_keep_their_biases(dead):
    model = tiny_model()
    with torch.no_grad():
        for conv in model.convs.values():
            conv.weight[dead] = 0
            conv.bias[dead] = 0.5
    pixels = random_pixels(model.spec, 20)
    net, integers = rounded(model, pixels, 1e-9)

    assert engine_kl(model, net, integers, pixels) < 1e-2


def test_compensation_beats_rounding_to_nearest():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 200, generator=generator).cumsum(0)
    moments = (inputs @ inputs.t()).double()
    weight = 3 * torch.randn(8, 30, generator=generator)
    upper, energy = cholesky_of_inverse(moments + 0.01 * moments.diagonal().mean() * torch.eye(30))

    found = round_rows(weight, upper.float(), energy.float(), torch.zeros(8), _rate_of(weight))

    def loss(integers):
        return float(((weight - integers) @ inputs).square().sum())

    assert loss(found) < 0.2 * loss(weight.round())


def test_a_price_on_bits_makes_zeros():
    generator = torch.Generator().manual_seed(0)
    weight = 3 * torch.randn(8, 30, generator=generator)
    upper, energy = cholesky_of_inverse(torch.eye(30, dtype=torch.float64))

    free = round_rows(weight, upper.float(), energy.float(), torch.zeros(8), _rate_of(weight))
    dear = round_rows(weight, upper.float(), energy.float(), torch.full((8,), 3.0), _rate_of(weight))

    assert (dear == 0).sum() > 2 * (free == 0).sum()


def test_refinement_leaves_no_single_step_that_pays():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(30, 200, generator=generator).cumsum(0)
    moments = inputs @ inputs.t()
    weight = 3 * torch.randn(8, 30, generator=generator)
    upper, energy = cholesky_of_inverse(moments.double() + 0.01 * moments.diagonal().mean() * torch.eye(30))
    rate, free = _rate_of(weight), torch.zeros(8)
    begun = round_rows(weight, upper.float(), energy.float(), free, rate)

    found = begun
    for _ in range(20):
        found = refine_rows(weight, found, moments, free, rate)

    def losses(integers):
        error = (weight - integers).double()
        return ((error @ moments.double()) * error).sum(1)

    assert (losses(found) <= losses(begun)).all()
    assert losses(found).sum() < 0.95 * losses(begun).sum()
    for column in range(30):
        for step in (-1, 1):
            moved = found.clone()
            moved[:, column] += step
            assert (losses(moved) >= losses(found)).all()


def test_refinement_makes_zeros_where_bits_cost():
    generator = torch.Generator().manual_seed(0)
    weight = 3 * torch.randn(8, 30, generator=generator)

    found = weight.round()
    for _ in range(2):
        found = refine_rows(weight, found, torch.eye(30), torch.full((8,), 3.0), _rate_of(weight))

    assert (found == 0).sum() > 2 * (weight.round() == 0).sum()


def _rate_of(weight):
    return RateModel.fit(weight.round().numpy().astype(np.int64)[:, :, None, None])


def test_a_budget_of_bytes_is_met_by_the_whole_file():
    model = tiny_model()
    photos = random_pixels(model.spec, 40)

    loose = compress_rate_distortion(model, photos, max_bytes=1350)
    tight = compress_rate_distortion(model, photos, max_bytes=1050)

    for result, budget in ((loose, 1350), (tight, 1050)):
        assert result.meets_target
        assert len(encode_sqz(SqzFile(network=result.network, preprocessing=PREPROCESSING))) == result.file_bytes
        assert 0.9 * budget < result.file_bytes <= budget
        larger = [p for p in result.points if result.file_bytes < p.file_bytes <= budget]
        assert all(p.kl > result.held_out_kl for p in larger)
    assert loose.held_out_kl < tight.held_out_kl


def test_a_budget_of_kl_is_met_on_held_out_photos():
    model = tiny_model()

    result = compress_rate_distortion(model, random_pixels(model.spec, 40), max_kl=0.01)

    assert result.meets_target
    assert 0.001 < result.held_out_kl <= 0.01
    assert result.held_out_logits.shape == (8, model.spec.num_classes)


def test_equal_seeds_give_equal_networks():
    model = tiny_model()
    photos = random_pixels(model.spec, 20)

    first, second = (compress_rate_distortion(model, photos, max_bytes=1200, seed=3) for _ in range(2))

    assert first.points == second.points
    assert encode_sqz(SqzFile(network=first.network)) == encode_sqz(SqzFile(network=second.network))


def test_an_impossible_budget_gives_the_nearest_file_and_says_so():
    model = tiny_model()

    result = compress_rate_distortion(model, random_pixels(model.spec, 20), max_bytes=100)

    assert not result.meets_target
    assert result.file_bytes > 100


def kl_on(model, net, photos):
    """How far from the float network's answers integers are on the photos."""

    def kl(candidate):
        with torch.no_grad():
            log_p = model(normalize_pixels(photos, PREPROCESSING)).log_softmax(1)
            found = quantized_forward(net, candidate, net.pixels(photos)).log_softmax(1)
        return float((log_p.exp() * (log_p - found)).sum(1).mean())

    return kl


def test_distillation_lowers_the_kl_and_can_leave_weights_alone():
    model = tiny_model()
    photos = random_pixels(model.spec, 40)
    net, integers = rounded(model, photos, 1e-6)
    integers["conv4"].bias.zero_()

    kl = kl_on(model, net, photos)
    batches = photo_batches(torch.from_numpy(photos), batch=8, seed=0)
    settings = DistillSettings(weight_rate=0.0, bias_rate=1e-2)
    best, best_kl = distill(net, integers, batches, Length(steps=60), settings, kl)

    assert best_kl < 0.9 * kl(integers)
    assert best_kl == kl(best)
    assert all(torch.equal(best[name].weight, integers[name].weight) for name in best)


def test_features_come_nearer_when_they_are_matched():
    model = tiny_model()
    photos = random_pixels(model.spec, 40)
    net, integers = rounded(model, photos, 1e-6)
    x = net.pixels(photos)
    for name in ("fire3.squeeze", "fire3.expand1x1", "fire3.expand3x3"):
        integers[name].bias.zero_()

    def features(convolution):
        kept = {}

        def convolve(op, x):
            kept[op.name] = convolution(op, x)
            return kept[op.name]

        run_graph(net.spec, x, convolve, net.add)
        return torch.cat([kept["fire3.expand1x1"], kept["fire3.expand3x3"]], 1)

    def float_conv(op, x):
        conv = net.convs[op.name]
        y = torch.nn.functional.conv2d(x, conv.weight, conv.bias, op.stride, op.padding)
        return y.relu() if op.relu else y

    def error(weight):
        batches = photo_batches(torch.from_numpy(photos), batch=8, seed=0)
        settings = DistillSettings(features=weight, weight_rate=0.0, bias_rate=0.1)
        age = itertools.count()  # so that the last integers count as the best
        found, _ = distill(net, integers, batches, Length(steps=100), settings, lambda _: -next(age))
        return (features(lambda op, x: integer_conv(net, op, found[op.name], x)) - features(float_conv)).square().mean()

    assert error(100.0) < 0.7 * error(0.0)


def test_distillation_brings_the_bytes_down_to_what_is_allowed():
    model = tiny_model()
    photos = random_pixels(model.spec, 40)
    net, integers = rounded(model, photos, 1e-6)

    def measure(candidate):
        return len(encode_sqz(SqzFile(network=to_network(net, candidate))))

    kl = kl_on(model, net, photos)
    before = measure(integers)
    batches = photo_batches(torch.from_numpy(photos), batch=8, seed=0)
    settings = DistillSettings(weight_rate=0.03)
    rate = Rate(slope=1e-3, max_bytes=before - 60, measure=measure)
    best, best_kl = distill(net, integers, batches, Length(steps=200), settings, kl, rate=rate)

    assert measure(best) <= before - 60
    assert best_kl == kl(best)
    free, _ = distill(net, integers, batches, Length(steps=200), settings, kl)
    assert measure(free) > before - 60


def test_a_data_set_is_distilled_on_within_the_budget_of_bytes():
    model = tiny_model()
    photos = random_pixels(model.spec, 20)

    result = compress_rate_distortion(
        model,
        photos,
        max_bytes=1100,
        lessons=Lessons(epoch=lambda epoch: [torch.from_numpy(photos)], steps=12),
    )

    assert result.file_bytes <= 1100
    assert {point.stage for point in result.points} == {"round", "distil"}


def test_variants_of_photos_begin_with_the_photos_and_depend_on_the_seed():
    photos = torch.from_numpy(random_pixels(tiny_spec(), 3))

    first, again, other = (augmented_photos(photos, seed=seed) for seed in (1, 1, 2))

    assert first.shape == (24, 16, 16, 3)
    assert torch.equal(first[:3], photos)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("photos", "budgets", "message"),
    [
        (np.zeros((20, 16, 16, 3), np.float32), {}, "uint8"),
        (np.zeros((20, 17, 16, 3), np.uint8), {}, "shape"),
        (np.zeros((5, 16, 16, 3), np.uint8), {}, "at least 10"),
        (np.zeros((20, 16, 16, 3), np.uint8), {"max_bytes": 1000, "max_kl": 0.1}, "got max_bytes and max_kl"),
    ],
)
def test_impossible_requests_are_refused(photos, budgets, message):
    with pytest.raises(QuantizationError, match=message):
        compress_rate_distortion(tiny_model(), photos, **budgets)


@pytest.mark.parametrize("mean", [300.0, -1.0, 128.5])
def test_padded_stem_needs_a_mean_that_a_pixel_can_have(mean):
    model = tiny_model(stem=StemSpec(channels=8, kernel=3, stride=1, padding=1))
    model.preprocessing = Preprocessing(crop_size=16, resize_size=16, mean=(mean,) * 3)
    ranges = {name: torch.ones(64) for name in quantized_tensors(model.spec)}
    with pytest.raises(QuantizationError, match="one whole pixel mean for R, G and B, since conv1 pads"):
        UnitNet.build(model, ranges, dict.fromkeys(ranges, 1.0))


@pytest.mark.parametrize(
    ("kl_of_smaller", "best_bytes"),
    [(0.0210, 349_629), (0.0150, 337_364)],  # 4 % of the bytes are worth a fifth of the KL; a third is more than that
)
def test_a_slightly_lower_kl_does_not_leave_a_budget_unused(kl_of_smaller, best_bytes):
    smaller = _Candidate(integers={}, slope=2e-7, weights=b"", file_bytes=337_364, kl=kl_of_smaller)
    larger = _Candidate(integers={}, slope=1e-7, weights=b"", file_bytes=349_629, kl=0.0215)

    best = min(smaller, larger, key=_byte_budget(350_000).rest)

    assert best.file_bytes == best_bytes
