"""Published weights on real photos: right only if weights, layers and preprocessing all are."""

import io
import zipfile

import numpy as np
import pytest
import torch

from shared import shared_path
from squeezenet.models import load_model, normalize_pixels

BATCH_SIZE = 50


@torch.inference_mode()
def count_correct(model, path, *, k=5):
    """Photos whose class is the first, and among the first k, of a zip of folders named by class id."""
    model = model.eval().to(memory_format=torch.channels_last)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        targets = torch.tensor([model.labels.ids.index(name.split("/")[0]) for name in names])
        ranked = []
        for start in range(0, len(names), BATCH_SIZE):
            photos = [io.BytesIO(archive.read(name)) for name in names[start : start + BATCH_SIZE]]
            pixels = np.stack([model.preprocessing(photo) for photo in photos])
            ranked.append(model(normalize_pixels(pixels, model.preprocessing)).topk(k).indices)
    is_hit = torch.cat(ranked) == targets[:, None]
    return int(is_hit[:, 0].sum()), int(is_hit.sum()), len(names)


@pytest.mark.parametrize(
    ("weights", "top1", "top5"),
    [("squeezenet1_1-imagenet-fp16.safetensors", 320, 429), ("compressed_SqueezeNet.net", 317, 423)],
)
def test_published_weights_classify_photos(weights, top1, top5):
    path = shared_path("data/imagenet-500.zip")
    correct_top1, correct_top5, n_images = count_correct(load_model(shared_path(f"weights/{weights}")), path)
    assert n_images == 500
    assert abs(correct_top1 - top1) <= 3, (correct_top1, correct_top5)
    assert abs(correct_top5 - top5) <= 3, (correct_top1, correct_top5)
