"""`squeezenet demo` with a network and a training so small that it takes seconds."""

import functools

import torch
from click.testing import CliRunner

import squeezenet
from networks import tiny_spec
from squeezenet.cli import cli
from squeezenet.fileformat import read_sqz
from squeezenet.models import SqueezeNet
from squeezenet.preprocess import Preprocessing
from training_runs import TINY


def test_demo_ends_with_what_to_open_and_all_of_it_exists(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tiny = SqueezeNet(tiny_spec(num_classes=10, input_size=8, head_relu=False, pools=()))
    tiny.preprocessing = Preprocessing(crop_size=8, resize_size=8)
    recipe = TINY.replace(epochs=1, batch_size=64, pools=(), batch_norm=False)
    monkeypatch.setattr(squeezenet, "train", functools.partial(squeezenet.train, recipe=recipe, init=tiny))
    folder = tmp_path / "demo"
    result = CliRunner().invoke(cli, ["demo", "-o", str(folder)])
    assert result.exit_code == 0, result.output
    end = result.stdout.split("Done in")[1]
    for name in ("digits.html", "digits.sqz", "digit.png", "run/best.safetensors"):
        assert str(folder / name) in end
        assert (folder / name).is_file()
    assert f"squeezenet predict {folder / 'digit.png'} --model {folder / 'digits.sqz'}" in end
    provenance = read_sqz(folder / "digits.sqz").facts["provenance"]
    assert provenance["compressed"] == {"preset": "deep-compression"}
    assert "data" in str(provenance)
