"""Activation ranges of published weights: found by what the weights are, and as good as photos."""

import dataclasses
import hashlib
import io

import pytest
import torch

from shared import shared_path
from squeezenet import Classifier, open_model, zoo
from squeezenet.data import open_data
from squeezenet.evaluation.comparison import AccuracyComparer
from squeezenet.evaluation.metrics import kl_divergence
from squeezenet.evaluation.predictor import FloatPredictor
from squeezenet.fileformat import read_sqz
from squeezenet.models import WEIGHTS, load_model
from squeezenet.network import quantized_tensors
from squeezenet.quantization.photos import choose_calibration
from squeezenet.quantization.published_ranges import published_ranges
from weights_server import serve_weights

FILES = ["squeezenet1_1-imagenet-fp16.safetensors", "compressed_SqueezeNet.net"]


def published_model(name=FILES[0]):
    return load_model(shared_path(f"weights/{name}")).eval()


@pytest.mark.parametrize("name", FILES)
def test_published_weights_have_ranges_for_every_tensor(name):
    model = published_model(name)
    ranges = published_ranges(model)
    assert ["input", *ranges] == quantized_tensors(model.spec)
    assert all(low == 0 < high for low, high in ranges.values())  # every tensor comes from a ReLU
    assert choose_calibration(model, None).source == "published activation ranges"
    assert choose_calibration(model, None, takes_ranges=False).source == "synthetic pictures"


def test_rounding_to_float16_does_not_hide_the_weights():
    model = published_model()
    with torch.no_grad():
        for conv in model.convs.values():
            conv.weight.mul_(1 + 1e-5)
    assert published_ranges(model) is not None


def fine_tune(model):
    with torch.no_grad():
        model.convs["fire5.squeeze"].weight[3, 7] += 0.01


def use_new_head(model):
    model.reset_classifier(10)


def scale_differently(model):
    model.preprocessing = dataclasses.replace(model.preprocessing, std=(64, 64, 64))


@pytest.mark.parametrize("change", [fine_tune, use_new_head, scale_differently])
def test_other_networks_have_none(change):
    model = published_model()
    change(model)
    assert published_ranges(model) is None
    assert choose_calibration(model, None).source == "synthetic pictures"


def test_imagenet_is_as_good_as_the_float_network_on_photos(tmp_path, monkeypatch):
    photos = shared_path("data/imagenet-500.zip")
    model = published_model()
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    served = dataclasses.replace(
        WEIGHTS["squeezenet1_1"]["IMAGENET1K_V1"], file=f"half-{digest[:8]}.pth", sha256=digest
    )
    monkeypatch.setitem(WEIGHTS["squeezenet1_1"], "IMAGENET1K_V1", served)
    with serve_weights({served.file: buffer.getvalue()}, tmp_path, monkeypatch):
        open_model("imagenet")
    file = zoo.imagenet_path()
    how = read_sqz(file).facts["provenance"]["compressed"]
    assert how == {"preset": "int8", "calibration": "published activation ranges"}
    found = AccuracyComparer(FloatPredictor(model), open_data([photos], split="val"))(Classifier(file))
    assert len(found.labels) == 500
    assert abs(found.points_lost) <= 0.6  # 3 photos
    assert kl_divergence(found.reference_logits, found.compressed_logits) <= 0.015
