"""The torch modules: torchvision's names, counts and sizes, bypasses, batch norm, new heads."""

import pytest
import torch
from torch import nn

from squeezenet.accounting import network_cost
from squeezenet.architectures import SPEC_NAMES, named_spec
from squeezenet.errors import SpecError, WeightsError
from squeezenet.labels import Labels
from squeezenet.models import (
    SqueezeNet,
    float_network,
    fold_batch_norm,
    model_from_state,
    normalize_pixels,
    state_shapes,
)
from squeezenet.preprocess import TORCHVISION_PREPROCESSING, Preprocessing


def small_model(name="squeezenet1_1", *, seed=0, **options):
    torch.manual_seed(seed)
    return SqueezeNet(named_spec(name, **{"num_classes": 7, "input_size": 32, **options}), dropout=0.0)


def images(size, *, seed=1, n=2):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("squeezenet1_0", 1_248_424),
        ("squeezenet1_0_simple_bypass", 1_248_424),
        ("squeezenet1_0_complex_bypass", 1_589_672),
        ("squeezenet1_1", 1_235_496),
        ("squeezenet1_1_simple_bypass", 1_235_496),
        ("squeezenet1_1_complex_bypass", 1_572_648),
    ],
)
def test_parameter_count(name, params):
    assert sum(p.numel() for p in SqueezeNet(named_spec(name)).parameters()) == params


@pytest.mark.parametrize(("input_size", "batch_norm"), [(16, False), (96, True)])
@pytest.mark.parametrize("name", SPEC_NAMES)
def test_every_spec_trains_and_costs_what_accounting_says(name, input_size, batch_norm):
    model = small_model(name, input_size=input_size, batch_norm=batch_norm)
    logits = model(images(input_size))
    logits.square().sum().backward()
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    folded = fold_batch_norm(model)
    assert sum(p.numel() for p in folded.parameters()) == network_cost(model.spec).params


@pytest.mark.parametrize("name", SPEC_NAMES)
def test_every_tensor_has_the_size_the_spec_says(name):
    model = small_model(name, input_size=97).eval()
    sizes = {}
    for op_name, conv in model.convs.items():
        conv.register_forward_hook(lambda _, args, out, key=op_name: sizes.update({key: (*args[0].shape, *out.shape)}))
    model(images(97, n=1))
    expected = {
        op.name: (1, op.in_channels, op.in_size, op.in_size, 1, op.out_channels, op.out_size, op.out_size)
        for op in model.spec.convs
    }
    assert sizes == expected


def test_keys_of_1_0_are_those_of_torchvision():
    keys = state_shapes(named_spec("squeezenet1_0"))
    fires = [3, 4, 5, 7, 8, 9, 10, 12]
    layers = ["features.0"]
    layers += [f"features.{n}.{part}" for n in fires for part in ("squeeze", "expand1x1", "expand3x3")]
    layers += ["classifier.1"]
    assert list(keys) == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert keys["features.0.weight"] == (96, 3, 7, 7)
    assert keys["features.12.expand3x3.weight"] == (256, 64, 3, 3)
    assert keys["classifier.1.weight"] == (1000, 512, 1, 1)


def test_fires_of_1_1_have_the_numbers_of_torchvision():
    keys = state_shapes(named_spec("squeezenet1_1"))
    fires = {int(key.split(".")[1]) for key in keys if ".squeeze." in key}
    assert fires == {3, 4, 6, 7, 9, 10, 11, 12}
    assert keys["features.0.weight"] == (64, 3, 3, 3)


def test_modules_stand_where_those_of_torchvision_do():
    model = SqueezeNet(named_spec("squeezenet1_0"))
    kinds = "Conv2d ReLU MaxPool2d Fire Fire Fire MaxPool2d Fire Fire Fire Fire MaxPool2d Fire"
    assert [type(module).__name__ for module in model.features] == kinds.split()
    assert [type(module).__name__ for module in model.classifier] == ["Dropout", "Conv2d", "ReLU", "AdaptiveAvgPool2d"]
    assert all(module.ceil_mode for module in model.features if isinstance(module, nn.MaxPool2d))
    assert model.dropout == 0.5


def test_initialization_is_that_of_torchvision():
    torch.manual_seed(0)
    model = SqueezeNet(named_spec("squeezenet1_0"))
    stem, head = model.features[0], model.head
    bound = (6 / (3 * 7 * 7)) ** 0.5  # Kaiming-uniform with gain sqrt(2)
    assert 0.99 * bound < stem.weight.abs().max() <= bound
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert head.weight.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert all(not conv.bias.any() for conv in model.convs.values())


@pytest.mark.parametrize(("name", "size"), [("squeezenet1_0", 21), ("squeezenet1_1", 17)])
def test_smallest_input_of_the_published_networks(name, size):
    model = SqueezeNet(named_spec(name)).eval()
    assert model(images(size, n=1)).shape == (1, 1000)
    with pytest.raises(RuntimeError):
        model(images(size - 1, n=1))


def test_bypass_adds_the_input_after_the_relu():
    model = small_model("squeezenet1_0_complex_bypass")
    complex_fire, simple_fire = model.features[3], model.features[4]
    x = torch.full((2, 96, 8, 8), -1.0)
    for conv in (complex_fire.expand1x1, complex_fire.expand3x3):
        nn.init.zeros_(conv.weight)
    torch.testing.assert_close(complex_fire(x), complex_fire.bypass(x))
    assert complex_fire(x).min() < 0  # no ReLU after the addition

    x = torch.full((2, 128, 8, 8), -3.0)
    for conv in (simple_fire.expand1x1, simple_fire.expand3x3):
        nn.init.zeros_(conv.weight)
    assert torch.equal(simple_fire(x), x)


def test_bypass_keys():
    assert set(state_shapes(named_spec("squeezenet1_0_simple_bypass"))) == set(
        state_shapes(named_spec("squeezenet1_0"))
    )
    complex_keys = state_shapes(named_spec("squeezenet1_0_complex_bypass"))
    bypass = {key: shape for key, shape in complex_keys.items() if key.endswith("bypass.weight")}
    assert bypass == {
        "features.3.bypass.weight": (128, 96, 1, 1),
        "features.5.bypass.weight": (256, 128, 1, 1),
        "features.8.bypass.weight": (384, 256, 1, 1),
        "features.10.bypass.weight": (512, 384, 1, 1),
    }


def test_squeeze_relu_off_lets_negative_values_into_the_expand_layers():
    seen = {}
    for squeeze_relu in (True, False):
        model = small_model(squeeze_relu=squeeze_relu)
        expand = model.convs["fire2.expand1x1"]
        expand.register_forward_pre_hook(lambda _, args, key=squeeze_relu: seen.update({key: args[0].min().item()}))
        model(images(32))
    assert seen[True] == 0.0
    assert seen[False] < 0.0


def test_head_relu_off_lets_negative_logits_out():
    x = images(32)
    assert small_model(head_relu=True)(x).min() >= 0.0
    assert small_model(head_relu=False)(x).min() < 0.0


def test_head_padding_grows_the_activation_map():
    maps = [small_model(input_size=96, head_padding=padding).activation_map(images(96)) for padding in (0, 1)]
    assert [tuple(m.shape) for m in maps] == [(2, 7, 5, 5), (2, 7, 7, 7)]


def test_logits_are_the_average_of_the_activation_map():
    model, x = small_model().eval(), images(32)
    torch.testing.assert_close(model.activation_map(x).mean((2, 3)), model(x))
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))


def test_pre_logits_are_the_averaged_features():
    model, x = small_model().eval(), images(32)
    features = model.forward_features(x)
    assert torch.equal(model.forward_head(features, pre_logits=True), features.mean((2, 3)))


def trained_norms(model, *, seed=3):
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 2.0),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -1.0, 1.0),
                (module.running_var, 0.1, 4.0),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return model


@pytest.mark.parametrize("name", ["squeezenet1_1", "squeezenet1_0_complex_bypass"])
def test_folded_batch_norm_computes_the_same_in_float64(name):
    model = trained_norms(small_model(name, batch_norm=True, head_relu=False)).double().eval()
    folded = fold_batch_norm(model)
    x = images(32).double()
    assert folded.spec == model.spec.replace(batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), model(x), rtol=1e-11, atol=1e-11)


def test_folded_batch_norm_computes_the_same_in_float32():
    model = trained_norms(small_model(batch_norm=True, head_relu=False)).eval()
    model.labels = Labels(tuple("abcdefg"))
    folded = fold_batch_norm(model)
    x = images(32)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4 * model(x).abs().max().item())
    assert folded.labels == model.labels
    assert not folded.training


def test_folding_a_network_without_batch_norm_changes_nothing():
    model = small_model()
    assert fold_batch_norm(model) is model


def test_a_folded_network_shares_no_tensor_with_the_one_before():
    model = small_model(batch_norm="squeeze")
    folded = fold_batch_norm(model).state_dict()
    for key, tensor in model.state_dict().items():
        assert key not in folded or folded[key].data_ptr() != tensor.data_ptr()


def test_float_network_holds_the_folded_arrays():
    model = trained_norms(small_model(batch_norm=True)).eval()
    network = float_network(model)
    folded = fold_batch_norm(model)
    assert network.spec == folded.spec == model.spec.replace(batch_norm=False)
    assert (network.labels, network.preprocessing) == (None, Preprocessing(crop_size=32, resize_size=32))
    assert list(network.convs) == list(folded.convs)
    for name, conv in folded.convs.items():
        assert network.convs[name].weight.dtype == network.convs[name].bias.dtype == "float32"
        assert (network.convs[name].weight == conv.weight.detach().numpy()).all()
        assert (network.convs[name].bias == conv.bias.detach().numpy()).all()


def test_batch_norm_follows_every_convolution_but_the_head():
    model = small_model("squeezenet1_0_complex_bypass", batch_norm=True)
    without = [name for name, conv in model.convs.items() if not hasattr(conv, "norm")]
    assert without == ["conv10"]
    assert "features.0.norm.running_var" in model.state_dict()
    assert "features.3.bypass.norm.weight" in model.state_dict()
    assert "features.0.bias" not in model.state_dict()


def test_batch_norm_of_squeeze_layers_alone_folds_as_well():
    model = trained_norms(small_model("squeezenet1_1_complex_bypass", batch_norm="squeeze", head_relu=False)).eval()
    assert {name.partition(".")[2] for name, conv in model.convs.items() if hasattr(conv, "norm")} == {"squeeze"}
    folded = fold_batch_norm(model)
    x = images(32)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4 * model(x).abs().max().item())


def test_reset_classifier_makes_a_new_head():
    model = SqueezeNet(named_spec("squeezenet1_1"))
    model.labels = Labels(tuple(map(str, range(1000))))
    torch.manual_seed(5)
    model.reset_classifier(10)
    assert model.spec == named_spec("squeezenet1_1", num_classes=10, head_relu=False)
    assert model.labels is None
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.head.bias.any()
    assert isinstance(model.classifier[2], nn.Identity)
    model.reset_classifier(3, head_relu=True)
    assert isinstance(model.classifier[2], nn.ReLU)
    assert model(images(64)).shape == (2, 3)


def test_reset_classifier_refuses_no_classes_and_keeps_the_head():
    model = small_model()
    with pytest.raises(SpecError, match="num_classes"):
        model.reset_classifier(0)
    assert model(images(32)).shape == (2, 7)


def test_state_goes_both_ways_and_draws_no_random_number():
    model = small_model("squeezenet1_0", batch_norm=True)
    before = torch.get_rng_state()
    copy = model_from_state(model.spec, model.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    assert list(copy.state_dict()) == list(model.state_dict())
    assert torch.equal(copy.eval()(images(32)), model.eval()(images(32)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.0.weight": None}, "features.0.weight is missing"),
        ({"classifier.2.weight": torch.zeros(1)}, "classifier.2.weight is not of it"),
        ({"features.0.bias": torch.zeros(65)}, r"features.0.bias: expected shape \(64,\), got \(65,\)"),
        (
            {"features.0.bias": torch.zeros(64, dtype=torch.int32)},
            "expected values like torch.float32, got torch.int32",
        ),
        ({"features.0.bias": torch.full((64,), float("nan"))}, "features.0.bias: expected finite numbers"),
        ({"features.0.bias": torch.zeros(64).to_sparse()}, "features.0.bias: expected"),
        ({"features.0.bias": torch.zeros(1).expand(1 << 40)}, "features.0.bias: expected shape"),
    ],
)
def test_state_that_does_not_fit_is_refused(change, message):
    model = small_model()
    state = {**model.state_dict(), **change}
    state = {key: tensor for key, tensor in state.items() if tensor is not None}
    with pytest.raises(WeightsError, match=message):
        model_from_state(model.spec, state)


def test_half_precision_state_becomes_float32():
    model = small_model()
    half = {key: tensor.bfloat16() for key, tensor in model.state_dict().items()}
    assert {p.dtype for p in model_from_state(model.spec, half).parameters()} == {torch.float32}


def test_pixels_are_normalized_in_pixel_units():
    pixels = torch.tensor([[[[255, 0, 128]]]], dtype=torch.uint8)
    x = normalize_pixels(pixels.numpy(), TORCHVISION_PREPROCESSING)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(x, expected)
    assert normalize_pixels(pixels.expand(2, 4, 5, 3), TORCHVISION_PREPROCESSING).is_contiguous(
        memory_format=torch.channels_last
    )
