"""Distillation on photos without labels: how they are read, when it ends, and what the report says about it."""

import io
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from image_files import encode, photo
from networks import random_pixels, tiny_spec
from squeezenet.cli import cli
from squeezenet.compression.rate_distortion.activation_scales import choose_ranges
from squeezenet.compression.rate_distortion.batches import photo_batches
from squeezenet.compression.rate_distortion.distill import DistillSettings, Length, distill
from squeezenet.compression.rate_distortion.sequential import round_network
from squeezenet.compression.rate_distortion.statistics import collect_statistics
from squeezenet.compression.rate_distortion.units import UnitNet
from squeezenet.compression.stream import PhotoStream
from squeezenet.data import open_data
from squeezenet.errors import DataError
from squeezenet.models import SqueezeNet, save_safetensors
from squeezenet.preprocess import Preprocessing
from squeezenet.progress import PlainReporter, SilentReporter

N_PHOTOS = 40


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec()).eval()
    model.preprocessing = Preprocessing(crop_size=16, resize_size=18)
    for conv in model.convs.values():
        torch.nn.init.normal_(conv.bias, std=0.1)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    return model


@pytest.fixture
def folder(tmp_path):
    """Photos in a flat folder, each of one colour."""
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(N_PHOTOS):
        image = photo(24, 20).point(lambda _, value=6 * number: value)
        (root / f"{number:02}.png").write_bytes(encode(image))
    return root


def stream(folder, model, reporter=None):
    return PhotoStream(open_data(folder, unlabelled=True), model, reporter or SilentReporter())


def colours(batches):
    return [int(image[0, 0, 0]) // 6 for batch in batches for image in batch]


def test_photos_set_aside_are_in_no_epoch(folder, model):
    photos = stream(folder, model)
    aside = colours([photos.held_out])
    seen = colours(photos.epoch(0, batch_size=6))

    assert len(aside) == 4
    assert photos.n_images == N_PHOTOS - 4
    assert sorted(aside + seen) == list(range(N_PHOTOS))


def test_epochs_differ_in_order_and_repeat_by_seed(folder, model):
    photos = stream(folder, model)
    first, again, other = (colours(photos.epoch(number, batch_size=8)) for number in (0, 0, 1))

    assert first == again
    assert first != other


def test_photos_are_read_again_in_each_epoch(folder, model, monkeypatch):
    images = open_data(folder, unlabelled=True)
    photos = PhotoStream(images, model, SilentReporter())
    read, real = [], type(images).read
    monkeypatch.setattr(type(images), "read", lambda self, index, *rest: read.append(index) or real(self, index, *rest))
    for number in (0, 1):
        next(photos.epoch(number, batch_size=6))

    assert len(read) == 2 * 12  # a batch and the one after it, nothing more


def test_unreadable_photo_is_named_once_and_left_out(folder, model):
    (folder / "07.png").write_bytes(b"no picture")
    lines = io.StringIO()
    photos = stream(folder, model, PlainReporter(lines))
    seen = [colours(photos.epoch(number, batch_size=6)) for number in (0, 1)]

    assert 7 not in seen[0] + seen[1]
    assert lines.getvalue().count("07.png") == 1


def test_folder_of_something_else_is_refused(folder, model):
    for path in sorted(folder.iterdir())[1::2]:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"unreadable images, got \d+ of 40"):
        list(stream(folder, model).epoch(0, batch_size=6))


def rounded(model, pixels):
    statistics = collect_statistics(model, pixels)
    net = UnitNet.build(model, *choose_ranges(model.spec, statistics.channel_max))
    with torch.no_grad():
        return net, round_network(net, statistics.row_grams, pixels, 1e-6)


def test_distillation_that_does_not_help_ends_early_and_changes_nothing(model):
    pixels = random_pixels(model.spec, 20)
    net, integers = rounded(model, pixels)
    batches, looks = photo_batches(torch.from_numpy(pixels), seed=0, batch=4), []

    def worse_each_time(candidate):
        looks.append(candidate)
        return float(len(looks))

    settings = DistillSettings(weight_rate=0.1, patience=3)
    best, kl = distill(net, integers, batches, Length(steps=64), settings, worse_each_time)

    assert len(looks) == 1 + 3
    assert kl == 1
    assert all(torch.equal(best[name].weight, conv.weight) for name, conv in integers.items())


def test_head_can_be_left_as_it_is(model):
    pixels = random_pixels(model.spec, 20)
    net, integers = rounded(model, pixels)
    batches = photo_batches(torch.from_numpy(pixels), seed=0, batch=4)
    settings = DistillSettings(weight_rate=0.3, bias_rate=0.3, averaging=0.0, trains_head=False)
    better = iter(range(0, -99, -1))
    best, _ = distill(net, integers, batches, Length(steps=20), settings, lambda candidate: next(better))

    head = next(op.name for op in net.spec.convs if op.is_head)
    moved = {name for name, conv in integers.items() if not torch.equal(best[name].weight, conv.weight)}
    assert moved == set(integers) - {head}
    assert torch.equal(best[head].bias, integers[head].bias)


def compressed(tmp_path, *options):
    arguments = ("compress", tmp_path / "tiny.safetensors", "-o", tmp_path / "a.sqz", *options)
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.parametrize("own", [(), ("--calibration", "digits", "--photos", 60)])
def test_unlabelled_photos_are_distilled_on_within_the_budget(model, folder, tmp_path, own):
    save_safetensors(model, tmp_path / "tiny.safetensors")
    options = (*own, "--unlabelled", folder, "--epochs", 3, "--max-bytes", 1100)
    result = compressed(tmp_path, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "a.sqz.report.json").read_text())
    distilled = report["distilled"]

    assert report["file_bytes"] <= 1100
    assert {point["stage"] for point in report["points"]} == {"round", "distil"}
    assert distilled["kl_after"] <= distilled["kl_before"]
    assert report["fidelity"]["kl"] == pytest.approx(distilled["kl_after"], rel=0.02)
    assert (
        f"KL {distilled['kl_before']:.4f} -> {distilled['kl_after']:.4f} on held-out calibration photos"
        in result.stdout
    )
    own = f"{distilled['own_kl_before']:.4f} -> {distilled['own_kl_after']:.4f}"
    assert f"{own} on held-out unlabelled photos" in result.stdout


def test_photos_that_judge_are_not_distilled_on(model, folder, tmp_path, monkeypatch):
    """Without --calibration the unlabelled photos calibrate, and a fifth of those is set aside."""
    given = []
    monkeypatch.setattr(PhotoStream, "__init__", lambda self, images, *rest: given.append(images) or 1 / 0)
    save_safetensors(model, tmp_path / "tiny.safetensors")
    compressed(tmp_path, "--unlabelled", folder, "--photos", 20, "--max-bytes", 1100)
    names = {item.name.rsplit("/", 1)[1] for item in given[0].items}
    calibrated = np.linspace(0, N_PHOTOS - 1, 20).astype(int)

    assert len(names) == N_PHOTOS - 4
    assert names.isdisjoint(f"{number:02}.png" for number in calibrated[4::5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "digits"), "expected either --data or --unlabelled to distil on, got both"),
        (("--polish", 1), "--polish cannot be combined with --data or --unlabelled"),
        (("--method", "int8"), "int8 does not train: expected no --data or --unlabelled"),
        (("--method", "deep-compression", "--data", "digits"), "deep-compression retrains on labelled images"),
    ],
)
def test_options_that_do_not_go_with_unlabelled_photos(model, folder, tmp_path, options, message):
    save_safetensors(model, tmp_path / "tiny.safetensors")
    result = compressed(tmp_path, "--unlabelled", folder, *options)

    assert result.exit_code == 2
    assert message in result.stderr
