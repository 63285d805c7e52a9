"""AlexNet of `benchmarks/alexnet.py`: its published size, and that it trains as a network of the package does."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from squeezenet.accounting import network_cost
from squeezenet.compression.deep.prune import PruningMask
from squeezenet.training.feed.batches import Batch
from squeezenet.training.state import TrainingState
from squeezenet.training.step import train_step

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def alexnet():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("alexnet", BENCHMARKS / "alexnet.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["alexnet"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("alexnet", None)


def test_alexnet_has_61_100_840_parameters_for_1000_classes(alexnet):
    with torch.device("meta"):
        model = alexnet.AlexNet(1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_100_840


def test_alexnet_takes_a_training_step_and_stays_pruned(alexnet):
    torch.manual_seed(0)
    model = alexnet.AlexNet(10)
    mask = PruningMask({name: layer.weight > 0 for name, layer in model.convs.items()})
    mask.on_weights(model)
    recipe = alexnet.RECIPE.replace(ema_decay=0.0)
    state = TrainingState.start(recipe, model, precision="float32", data_id="", device=torch.device("cpu"))
    before = model.head.weight.detach().clone()
    batch = Batch(torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8), torch.tensor([3, 7]), [])
    loss = train_step(state, batch, steps_per_epoch=10, constraint=mask)
    assert loss is not None
    assert not torch.equal(model.head.weight, before)
    assert all((layer.weight[~mask.masks[name]] == 0).all() for name, layer in model.convs.items())


def test_macs_are_counted_as_the_package_counts_them(alexnet):
    model = alexnet.squeezenet(10)
    assert alexnet.count_macs(model) == network_cost(model.spec).macs
