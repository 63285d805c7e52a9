"""Damaged files of every format: read, or refused by the one named error, whatever is hit."""

import contextlib
import random

import pytest
import torch

from imported import random_model, variant
from squeezenet import find_model
from squeezenet.errors import WeightsError
from squeezenet.imports import read_foreign
from test_imports_caffe import caffemodel
from test_imports_keras import keras_model
from test_imports_ncnn import write_ncnn
from test_imports_onnx import exported_by_torch
from test_imports_tflite import float_tflite

N_DAMAGES = 80


@pytest.fixture(scope="module")
def models():
    published = variant(fires=variant().fires * 3, pools=(1, 3, 5), input_size=224)
    return random_model(variant(pool_ceil_mode=False)), random_model(published)


def write(kind, folder, models):
    model, published = models
    path = folder / kind
    if kind.endswith(".pth"):
        torch.save(published.state_dict(), path, _use_new_zipfile_serialization="zip" in kind)
    elif kind.endswith(".onnx"):
        exported_by_torch(model, path)
    elif kind.endswith(".caffemodel"):
        path.write_bytes(caffemodel(model, old="old" in kind))
    elif kind.endswith(".tflite"):
        path.write_bytes(float_tflite(model))
    elif kind.endswith(".param"):
        write_ncnn(folder, model)
    else:
        keras_model(model).save(path)
    return path


def damaged(data, rng):
    """A few bytes changed, more often near either end, where structure is; some files are cut."""
    broken = bytearray(data)
    edge = max(1, len(data) // 20)
    for _ in range(rng.choice((1, 2, 8))):
        place = rng.choice((rng.randrange(len(data)), rng.randrange(edge), len(data) - 1 - rng.randrange(edge)))
        broken[place] = rng.choice((0, 128, 255, rng.randrange(256)))
    return broken[: rng.randrange(len(data))] if rng.random() < 0.1 else broken


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind",
    ["zip.pth", "legacy.pth", "a.onnx", "a.caffemodel", "old.caffemodel", "a.tflite", "net.param", "a.keras", "a.h5"],
)
def test_damage_is_one_named_error_or_none(tmp_path, models, kind):
    path = write(kind, tmp_path, models)
    whole, rng, refused = path.read_bytes(), random.Random(kind), 0
    read_foreign(path)
    for _ in range(N_DAMAGES):
        path.write_bytes(damaged(whole, rng))
        with contextlib.suppress(WeightsError):
            refused += 1
            read_foreign(path)
            refused -= 1
    assert refused >= N_DAMAGES // 5


def test_compressed_file_needs_no_import():
    with pytest.raises(WeightsError, match=r"imagenette\.sqz: expected a network of another program, got a \.sqz file"):
        read_foreign(find_model("imagenette").path)
