"""The entry points of `torch.hub`."""

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from squeezenet.errors import WeightsError
from squeezenet.models import SqueezeNet

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _sys_path_stays(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_hub_offers_both_networks_and_nothing_else():
    names = runpy.run_path(str(ROOT / "hubconf.py"))
    assert {name for name, value in names.items() if callable(value)} == {"squeezenet1_0", "squeezenet1_1"}
    assert all(find_spec(package) for package in names["dependencies"])


def test_hub_builds_a_network():
    model = torch.hub.load(str(ROOT), "squeezenet1_1", source="local", num_classes=5)
    assert isinstance(model, SqueezeNet)
    assert model.spec.num_classes == 5


def test_hub_takes_torchvision_s_arguments():
    for arguments, options in (((False, False), {}), ((), {"weights": None, "progress": False})):
        model = torch.hub.load(str(ROOT), "squeezenet1_0", *arguments, source="local", dropout=0.2, **options)
        assert model.spec.name == "squeezenet1_0"
        assert model.dropout == 0.2
    with pytest.raises(WeightsError, match="IMAGENET1K_V1, DEFAULT or None"):
        torch.hub.load(str(ROOT), "squeezenet1_1", source="local", weights="IMAGENET1K_V9")
