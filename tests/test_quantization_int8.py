"""From float networks to integers: folding, scales, rounding, and two implementations of the same integers."""

import numpy as np
import pytest
import torch

from networks import random_network, random_pixels, tiny_spec
from squeezenet.codec.weights import round_multiplier
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import QuantizationError
from squeezenet.fileformat import SqzFile
from squeezenet.models import SqueezeNet, fold_batch_norm, normalize_pixels
from squeezenet.models.integer import dequantize, integer_logits
from squeezenet.network import FloatConv
from squeezenet.preprocess import Preprocessing
from squeezenet.progress import SilentReporter
from squeezenet.quantization.int8 import compress_int8, quantize_int8
from squeezenet.quantization.photos import (
    CalibrationPhotos,
    calibration_without_photos,
    choose_calibration,
    leaf_pictures,
    noise_pictures,
)
from squeezenet.quantization.quantize import (
    activation_ranges,
    float_convs,
    input_quant,
    quantize_conv,
    run_graph,
)
from squeezenet.spec import StemSpec

PADDED_STEM = StemSpec(channels=8, kernel=3, stride=1, padding=1)
VARIANTS = [
    {},
    {"bypass": "simple"},
    {"bypass": "complex"},
    {"squeeze_relu": False},
    {"head_relu": False},
    {"head_padding": 1},
    {"stem": PADDED_STEM, "pools": (1, 2)},
    {"pool_ceil_mode": False},
]


def float_model(**options):
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(**options)).eval()
    with torch.no_grad():
        model.head.weight.mul_(20)
        for conv in model.convs.values():
            if conv.bias is not None:
                conv.bias.normal_(std=0.1)
    model.preprocessing = Preprocessing(crop_size=16, resize_size=16)
    return model


def float_logits(model, pixels):
    with torch.inference_mode():
        return model(normalize_pixels(pixels, model.preprocessing)).numpy()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_int8_network_is_close_to_the_float_network(options):
    model = float_model(**options)
    pixels = random_pixels(model.spec, 16)
    expected = float_logits(model, pixels)
    actual = ReferenceEngine(compress_int8(model, [pixels])).logits(pixels)
    assert np.abs(actual - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_torch_computes_the_same_integers(options):
    network = random_network(tiny_spec(**options), seed=3)
    pixels = random_pixels(network.spec, 4)
    np.testing.assert_array_equal(integer_logits(network, pixels), ReferenceEngine(network).logits(pixels))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_graph_run_equals_forward(options):
    model = float_model(**options)
    x = normalize_pixels(random_pixels(model.spec, 3), model.preprocessing)
    with torch.inference_mode():
        torch.testing.assert_close(run_graph(model, x).mean((2, 3)), model(x))


def test_dequantised_network_reads_the_same_images_as_the_original():
    model = float_model(stem=PADDED_STEM)
    pixels = random_pixels(model.spec, 8)
    network = compress_int8(model, [pixels])
    again = dequantize(SqzFile(network=network, preprocessing=model.preprocessing))
    expected = float_logits(model, pixels)
    assert np.abs(float_logits(again, pixels) - expected).max() < 0.02 * np.abs(expected).max()


def test_normalisation_is_folded_into_conv1():
    model = float_model()
    model.preprocessing = Preprocessing(
        crop_size=16, resize_size=16, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    )
    pixels = random_pixels(model.spec, 2)
    conv = float_convs(model)["conv1"]
    raw = torch.from_numpy(pixels).double().permute(0, 3, 1, 2)
    folded = torch.conv2d(raw, torch.from_numpy(conv.weight), torch.from_numpy(conv.bias), stride=2)
    with torch.inference_mode():
        expected = model.convs["conv1"](normalize_pixels(pixels, model.preprocessing))
    torch.testing.assert_close(folded.float(), expected, rtol=1e-4, atol=1e-4)


def test_padded_stem_needs_one_whole_mean():
    model = float_model(stem=PADDED_STEM)
    model.preprocessing = Preprocessing(crop_size=16, resize_size=16, mean=(123.675, 116.28, 103.53))
    with pytest.raises(QuantizationError, match="one whole pixel mean for R, G and B, since conv1 pads"):
        input_quant(model)


def test_model_without_preprocessing_is_refused():
    model = float_model()
    model.preprocessing = None
    with pytest.raises(QuantizationError, match="a model with its preprocessing, got one without"):
        compress_int8(model, [random_pixels(model.spec, 1)])


def test_batch_norm_must_be_folded():
    model = SqueezeNet(tiny_spec(batch_norm=True)).eval()
    model.preprocessing = Preprocessing(crop_size=16, resize_size=16)
    with pytest.raises(QuantizationError, match="fold_batch_norm"):
        float_convs(model)
    assert set(float_convs(fold_batch_norm(model))) == {op.name for op in model.spec.convs}


def test_ranges_cover_every_batch():
    model = float_model()
    pixels = random_pixels(model.spec, 6)
    whole = activation_ranges(model, [pixels])
    parts = activation_ranges(model, [pixels[:2], pixels[2:]])
    for name, bounds in whole.items():
        assert parts[name] == pytest.approx(bounds, rel=1e-5)


def test_default_step_reaches_the_largest_weight():
    op = tiny_spec().convs[1]
    weight = np.random.default_rng(0).normal(size=(op.out_channels, op.in_channels, 1, 1))
    params = quantize_conv(op, FloatConv(weight, np.zeros(op.out_channels)), in_scale=0.05, out_scale=0.1)
    largest = np.abs(params.weight.astype(int)).max(axis=(1, 2, 3))
    assert largest.min() >= 126  # steps are rounded up by less than 1 %
    assert largest.max() <= 127


def test_wanted_step_is_used_rounded_up():
    op = tiny_spec().convs[1]
    wanted = np.full(op.out_channels, 0.013)
    conv = FloatConv(np.full((op.out_channels, op.in_channels, 1, 1), 0.5), np.zeros(op.out_channels))
    params = quantize_conv(op, conv, in_scale=1.0, out_scale=1.0, step=wanted)
    assert (params.multiplier == round_multiplier(wanted)).all()
    assert (params.multiplier >= wanted).all()


def test_bias_beyond_int32_is_refused():
    op = tiny_spec().convs[1]
    conv = FloatConv(np.full((op.out_channels, op.in_channels, 1, 1), 1e-6), np.full(op.out_channels, 1e9))
    with pytest.raises(QuantizationError, match="does not fit int32"):
        quantize_conv(op, conv, in_scale=1.0, out_scale=1.0)


def test_layer_of_zeros_keeps_its_bias():
    op = tiny_spec().convs[1]
    conv = FloatConv(np.zeros((op.out_channels, op.in_channels, 1, 1)), np.full(op.out_channels, 0.7))
    params = quantize_conv(op, conv, in_scale=0.1, out_scale=0.1)
    real = params.bias * params.multiplier.astype(float) * 0.1
    assert real == pytest.approx(np.full(op.out_channels, 0.7), rel=0.01)


def test_every_fifth_photo_is_set_aside():
    pixels = np.arange(12, dtype=np.uint8)[:, None, None, None]
    calibration = CalibrationPhotos(pixels)
    assert calibration.held_out.ravel().tolist() == [4, 9]
    assert calibration.pixels.ravel().tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]


@pytest.mark.parametrize("size", [8, 37])
def test_synthetic_pictures_differ_and_are_the_same_again(size):
    for make in (noise_pictures, leaf_pictures):
        pictures = make(size)
        assert pictures.shape == (64, size, size, 3)
        assert len(np.unique(pictures, axis=0)) == 64
        assert (make(size) == pictures).all()


def test_noise_fills_the_range():
    pictures = noise_pictures(32)
    assert pictures.shape == (64, 32, 32, 3)
    assert (pictures.min(axis=(1, 2, 3)) == 0).all()
    assert (pictures.max(axis=(1, 2, 3)) == 255).all()


def test_without_photos_ranges_are_twice_what_synthetic_pictures_show():
    model = float_model(squeeze_relu=False)
    calibration = choose_calibration(model, None)
    shown = activation_ranges(model, [noise_pictures(16)])
    assert calibration.ranges["fire2.squeeze"] == pytest.approx([2 * bound for bound in shown["fire2.squeeze"]])
    assert calibration.ranges["fire2.squeeze"][0] < 0
    assert (calibration.source, len(calibration.held_out)) == ("synthetic pictures", 0)


def test_given_ranges_are_used_instead_of_those_that_pixels_show():
    model = float_model()
    calibration = calibration_without_photos(model)
    network = quantize_int8(model, calibration, SilentReporter())
    assert network.tensor("fire3").scale == pytest.approx(calibration.ranges["fire3"][1] / 255)
