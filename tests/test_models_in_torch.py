"""What users of torchvision's SqueezeNet do: notebooks run once the import is changed; Fire in other networks."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from image_files import encode, photo
from networks import random_pixels, tiny_spec
from squeezenet import Fire, Int8, SqueezeNet, compress, load_image, load_model, named_spec, squeezenet1_1
from squeezenet.engine.reference import ReferenceEngine
from squeezenet.errors import ImageError, SpecError, WeightsError
from squeezenet.labels import Labels, imagenet_labels
from squeezenet.models import load_safetensors, normalize_pixels, save_safetensors
from squeezenet.preprocess import TORCHVISION_PREPROCESSING, Preprocessing
from squeezenet.quantization.int8 import compress_int8
from squeezenet.spec import StemSpec


def seeded(value=0):
    return torch.Generator().manual_seed(value)


def fine_tuned(n_classes=5, *, steps=2):
    """The steps of the usual fine-tuning notebook, on noise."""
    torch.manual_seed(0)
    model = squeezenet1_1(weights=None)
    model.labels, model.preprocessing = imagenet_labels(), TORCHVISION_PREPROCESSING  # as published weights have them
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    model.classifier[1] = nn.Conv2d(512, n_classes, kernel_size=(1, 1), stride=(1, 1))
    model.num_classes = n_classes
    frozen = model.features[0].weight.clone()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    x, y = torch.randn(2, 3, 64, 64, generator=seeded()), torch.tensor([0, n_classes - 1])
    before = model.classifier[1].weight.clone()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert not torch.equal(model.classifier[1].weight, before)
    assert torch.equal(model.features[0].weight, frozen)
    return model.eval()


def test_constructor_takes_torchvision_s_arguments():
    assert SqueezeNet().spec == named_spec("squeezenet1_0")
    model = SqueezeNet("1_1", 7, 0.25)
    assert (model.spec, model.dropout, model.num_classes) == (named_spec("squeezenet1_1", num_classes=7), 0.25, 7)
    assert SqueezeNet(version="1_0_simple_bypass", num_classes=3).spec.bypass == "simple"
    assert SqueezeNet(tiny_spec(num_classes=4)).num_classes == 4
    assert SqueezeNet(tiny_spec(num_classes=4), num_classes=9).spec == tiny_spec(num_classes=9)
    for version in ("1_2", "squeezenet1_0", "", 1.1, None):
        with pytest.raises(SpecError, match="expected an ArchSpec or one of 1_0, .* for `version`, got"):
            SqueezeNet(version)


def test_spec_and_labels_follow_a_head_put_in_by_hand():
    model = fine_tuned(5)
    assert model.spec == named_spec("squeezenet1_1", num_classes=5)
    assert (model.num_classes, model.labels) == (5, None)
    assert (model.head, model.convs["conv10"]) == (model.classifier[1], model.classifier[1])
    model.labels = Labels(tuple("abcde"))
    assert model.labels.names == tuple("abcde")
    model.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(512, 3, 1), nn.Identity(), nn.AdaptiveAvgPool2d(1))
    assert model.spec == named_spec("squeezenet1_1", num_classes=3, head_relu=False)
    assert (model.labels, model.dropout) == (None, 0.1)


def test_head_with_as_many_classes_keeps_the_labels():
    model = squeezenet1_1()
    model.labels = imagenet_labels()
    model.classifier[1] = nn.Conv2d(512, 1000, 1)
    assert model.labels == imagenet_labels()


def test_num_classes_may_be_set_before_the_head_but_must_agree_with_it():
    model = squeezenet1_1()
    model.num_classes = 5
    model.classifier[1] = nn.Conv2d(512, 5, 1)
    assert model.spec.num_classes == 5

    model = squeezenet1_1()
    model.num_classes = 5
    with pytest.raises(SpecError, match=r"set to 5, but the head has 1000 outputs: replace `classifier\[1\]`, or call"):
        model.spec  # noqa: B018
    model.reset_classifier(6)
    assert model.spec.num_classes == 6


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_fine_tuned_network_is_saved_and_read_again(tmp_path, suffix):
    model = fine_tuned(5)
    x = torch.randn(2, 3, 64, 64, generator=seeded(1))
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), path)
        again = squeezenet1_1(num_classes=5)
        again.load_state_dict(torch.load(path))
    else:
        save_safetensors(model, path)
        again = load_model(path)
        assert (again.spec, again.labels, again.preprocessing) == (model.spec, None, TORCHVISION_PREPROCESSING)
    with torch.inference_mode():
        assert torch.equal(again.eval()(x), model(x))


def test_whole_model_is_pickled_and_copied():
    model = fine_tuned(4)
    x = torch.randn(1, 3, 64, 64, generator=seeded(1))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for again in (torch.load(buffer, weights_only=False), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (again.spec, again.preprocessing) == (model.spec, model.preprocessing)
        with torch.inference_mode():
            assert torch.equal(again(x), model(x))


def test_fine_tuned_network_is_compressed():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(head_relu=True)).eval()
    model.preprocessing = Preprocessing(crop_size=16, resize_size=16)
    width = model.head.in_channels
    model.classifier[1] = nn.Conv2d(width, 3, kernel_size=(1, 1))
    nn.init.constant_(model.classifier[1].bias, 0.1)
    pixels = random_pixels(model.spec, 8)
    network = compress_int8(model, [pixels])
    assert network.spec == tiny_spec(num_classes=3, head_relu=True)
    assert compress(model, method=Int8(), progress=False).file.network.spec == network.spec
    with torch.inference_mode():
        expected = model(normalize_pixels(pixels, model.preprocessing)).numpy()
    assert np.abs(ReferenceEngine(network).logits(pixels) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "head",
    [
        nn.Linear(512, 5),
        nn.Conv2d(512, 5, 3),
        nn.Conv2d(512, 5, 1, bias=False),
        nn.Conv2d(512, 5, 1, stride=2),
        nn.Conv2d(256, 5, 1),
        nn.Sequential(nn.Conv2d(512, 5, 1)),
    ],
    ids=str,
)
def test_heads_that_no_spec_describes_are_refused_when_the_spec_is_asked_for(tmp_path, head):
    model = squeezenet1_1()
    model.classifier[1] = head
    for use in (lambda: model.spec, lambda: save_safetensors(model, tmp_path / "a.safetensors")):
        with pytest.raises(SpecError, match=r"expected a `classifier` of Dropout, Conv2d\(512, classes") as caught:
            use()
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.add_module("extra", nn.Linear(1, 1)),
        lambda model: nn.init.constant_(model.features[0].bias, float("nan")),
    ],
    ids=["another module", "not finite"],
)
def test_tensors_that_could_not_be_read_back_are_not_written(tmp_path, change):
    model = squeezenet1_1()
    change(model)
    with pytest.raises(WeightsError, match=r"a\.safetensors: .*(expected only|expected finite)"):
        save_safetensors(model, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("index", "layer"),
    [
        (0, nn.Conv2d(1, 64, 3, 2)),
        (0, nn.Conv2d(3, 32, 3, 2)),
        (0, nn.Conv2d(3, 64, 3, 2, bias=False)),
        (0, nn.Identity()),
        (1, nn.Identity()),
        (2, nn.Identity()),
        (2, nn.MaxPool2d(3, 2)),
        (3, Fire(64, 16, 32, 32)),
        (4, Fire(128, 16, 64, 64, bypass="simple")),
        (13, nn.Conv2d(512, 512, 1)),
    ],
    ids=str,
)
def test_layers_that_no_spec_describes_are_refused(tmp_path, index, layer):
    model = squeezenet1_1()
    model.preprocessing = TORCHVISION_PREPROCESSING
    if index < len(model.features):
        model.features[index] = layer
    else:
        model.features.append(layer)
    uses = [
        lambda: save_safetensors(model, tmp_path / "a.safetensors"),
        lambda: compress_int8(model, [random_pixels(model.spec, 1)]),
    ]
    for use in uses:
        with pytest.raises(SpecError, match="in `features`, got .*: a spec cannot describe that") as caught:
            use()
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


def test_spec_follows_a_stem_put_in_by_hand(tmp_path):
    model = squeezenet1_1(num_classes=2).eval()
    model.features[0] = nn.Conv2d(3, 64, kernel_size=5, stride=1, padding=1)  # as for small images
    model.features[1] = nn.ReLU()
    assert model.spec.stem == StemSpec(channels=64, kernel=5, stride=1, padding=1)
    save_safetensors(model, tmp_path / "a.safetensors")
    x = torch.randn(1, 3, 40, 40, generator=seeded())
    with torch.inference_mode():
        assert torch.equal(load_safetensors(tmp_path / "a.safetensors").eval()(x), model(x))
    model.features[0] = nn.Conv2d(3, 64, kernel_size=3, padding=2)
    with pytest.raises(SpecError, match=r"`stem\.padding` from 0 to 1, got 2"):
        model.spec  # noqa: B018


def test_features_are_torchvision_s_sequence():
    model = squeezenet1_1(num_classes=2).eval()
    assert isinstance(model.features[3], Fire)
    assert isinstance(model.features[:5], nn.Sequential)
    x = torch.randn(1, 3, 64, 64, generator=seeded())
    with torch.inference_mode():
        features = model.features(x)
        assert torch.equal(model.classifier(features).flatten(1), model(x))
        assert torch.equal(nn.Sequential(*model.features.children())(x), features)


def test_transform_makes_what_the_network_was_trained_on(tmp_path):
    model = squeezenet1_1(num_classes=2).eval()
    model.preprocessing = Preprocessing(crop_size=24, resize_size=28, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    (tmp_path / "a.png").write_bytes(encode(photo()))
    expected = normalize_pixels(np.stack([model.preprocessing(tmp_path / "a.png")]), model.preprocessing)
    path, data = tmp_path / "a.png", encode(photo())
    for source in (path, str(path), data, io.BytesIO(data), load_image(path)):
        x = model.transform(source)
        assert (x.dtype, x.shape) == (torch.float32, (1, 3, 24, 24))
        assert torch.equal(x, expected)
    many = model.transform([path, data, load_image(path)])
    assert torch.equal(many, expected.expand(3, -1, -1, -1))
    assert model(many).shape == (3, 2)


def test_transform_refuses_what_it_cannot_do(tmp_path):
    model = squeezenet1_1(num_classes=2)
    with pytest.raises(ImageError, match="set `model.preprocessing`"):
        model.transform(encode(photo()))
    model.preprocessing = TORCHVISION_PREPROCESSING
    with pytest.raises(ImageError, match="at least one image"):
        model.transform([])
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        model.transform([encode(photo()), tmp_path / "none.png"])


def foreign_network(**options):
    """Fire modules in a network that is not ours."""
    torch.manual_seed(0)
    first, second = Fire(8, 4, 6, 10, **options), Fire(16, 4, 8, 8, **options)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second.out_channels, 3)
    ).eval()


FIRES = [{}, {"bypass": "simple"}, {"bypass": "complex", "squeeze_relu": False}, {"batch_norm": True}]
X = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(9))


def test_fire_is_what_the_paper_says():
    torch.manual_seed(0)
    fire = Fire(8, 4, 6, 10)
    x = torch.randn(2, 8, 5, 5, generator=seeded())
    squeezed = fire.squeeze(x).relu()
    expected = torch.cat([fire.expand1x1(squeezed).relu(), fire.expand3x3(squeezed).relu()], 1)
    assert torch.equal(fire(x), expected)
    assert fire.out_channels == expected.shape[1] == 16
    names = [f"{conv}.{part}" for conv in ("squeeze", "expand1x1", "expand3x3") for part in ("weight", "bias")]
    assert list(fire.state_dict()) == names


@pytest.mark.parametrize("widths", [(0, 4, 6, 10), (8, 0, 6, 10), (8, 4, 6, 5000), (8, 4, 6, 1.5)])
def test_fire_refuses_impossible_widths(widths):
    with pytest.raises(SpecError, match=r"`fire\."):
        Fire(*widths)


@pytest.mark.parametrize("options", FIRES, ids=str)
def test_fire_in_another_network_is_copied_pickled_and_trained(options):
    network = foreign_network(**options)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), nn.DataParallel(network)):
        assert torch.equal(again(X), network(X))
    network(X).sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("options", FIRES, ids=str)
def test_fire_in_another_network_is_compiled_by_torch(options):
    network = foreign_network(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is on its way out, and still used
        scripted, traced = torch.jit.script(network), torch.jit.trace(network, X)
    exported = torch.export.export(network, (X,)).module()
    for again in (scripted, traced, exported):
        torch.testing.assert_close(again(X), network(X))


@pytest.mark.parametrize("options", FIRES, ids=str)
def test_fire_in_another_network_is_exported_to_onnx(options, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = foreign_network(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the new exporter needs one more package
        torch.onnx.export(network, (X,), tmp_path / "a.onnx", dynamo=False, input_names=["x"])
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    expected = network(X).detach().numpy()
    np.testing.assert_allclose(session.run(None, {"x": X.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


def test_whole_network_is_compiled_by_torch():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(bypass="complex")).eval()
    x = torch.randn(2, 3, 16, 16, generator=seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted, traced = torch.jit.script(model), torch.jit.trace(model, x)
    for again in (scripted, traced, torch.export.export(model, (x,)).module(), nn.DataParallel(model)):
        torch.testing.assert_close(again(x), model(x))
