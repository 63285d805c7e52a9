"""Pruning before rounding: weights go step by step, may come back, and the budget decides how many stay."""

import pytest
import torch
from click.testing import CliRunner

from networks import tiny_spec
from squeezenet.cli import cli
from squeezenet.compression.retrain import Retrainer
from squeezenet.compression.sparse import train_sparse
from squeezenet.data import open_data
from squeezenet.models import SqueezeNet, save_safetensors
from squeezenet.preprocess import Preprocessing
from squeezenet.progress import SilentReporter
from squeezenet.training.pruning import GradualPruning, PruningSchedule


def small_model():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(num_classes=10, input_size=8, head_relu=False, pools=()))
    model.preprocessing = Preprocessing(crop_size=8, resize_size=8)
    return model.eval()


@pytest.fixture(scope="module")
def retrainer():
    digits = open_data("digits", split="train").subset(range(0, 1400, 5))
    return Retrainer(digits, small_model(), SilentReporter())


def kept_share(model):
    weights = torch.cat([conv.weight.detach().flatten() for conv in model.convs.values()])
    return float((weights != 0).float().mean())


def test_a_smaller_budget_keeps_fewer_weights(retrainer):
    model = small_model()
    before = {name: conv.weight.detach().clone() for name, conv in model.convs.items()}
    shares = [kept_share(train_sparse(model, retrainer, max_bytes=n, epochs=5, batch_size=64)) for n in (300, 200)]

    assert 0.02 < shares[1] < 0.8 * shares[0] < 0.7
    assert all(torch.equal(conv.weight, before[name]) for name, conv in model.convs.items())


def test_a_budget_that_the_network_keeps_removes_nothing(retrainer):
    assert kept_share(train_sparse(small_model(), retrainer, max_bytes=100_000, epochs=2, batch_size=64)) > 0.95


def steps(rule, model, n, step_of):
    """Take steps by hand: `step_of(name, weight)` is added to each weight."""
    for _ in range(n):
        for conv in model.convs.values():
            conv.weight.grad = torch.ones_like(conv.weight)
        rule.on_gradients(model)
        with torch.no_grad():
            for name, conv in model.convs.items():
                conv.weight += step_of(name, conv.weight)
        rule.on_weights(model)


def test_a_removed_weight_that_training_needs_comes_back_until_the_last_choice():
    model, rule = (
        small_model(),
        GradualPruning(300, 100, PruningSchedule(first=0.06, last=0.55, choices=80, estimate=1.25)),
    )
    name = "fire2.squeeze"
    with torch.no_grad():
        model.convs[name].weight[0, 0] = 1e-6

    def grows(layer, weight):
        step = torch.zeros_like(weight)
        if layer == name:
            step[0, 0] = 0.05
        return step

    steps(rule, model, 20, lambda layer, weight: 0 * weight)
    assert (model.convs[name].weight[0, 0] == 0).all()
    steps(rule, model, 30, grows)
    assert (model.convs[name].weight[0, 0] > 1).all()

    steps(rule, model, 10, lambda layer, weight: 0 * weight)
    removed = {layer: conv.weight == 0 for layer, conv in model.convs.items()}
    steps(rule, model, 40, lambda layer, weight: torch.full_like(weight, 0.05))
    assert all(torch.equal(conv.weight == 0, removed[layer]) for layer, conv in model.convs.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--data", "digits"),
            "--prune-epochs prune to a file size: expected --max-bytes, got none",
        ),
        (("--max-bytes", 1000), "--prune-epochs train on labelled images: expected --data, got none"),
        (
            ("--max-bytes", 1000, "--unlabelled", "digits"),
            "--prune-epochs train on labelled images: expected --data, got none",
        ),
        (("--method", "int8"), "--prune-epochs applies to --method rate-distortion, not to int8"),
    ],
)
def test_pruning_needs_data_and_a_size(tmp_path, options, message):
    save_safetensors(small_model(), tmp_path / "a.safetensors")
    arguments = ("compress", tmp_path / "a.safetensors", "-o", tmp_path / "a.sqz", "--prune-epochs", 2, *options)
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])

    assert result.exit_code == 2
    assert message in result.stderr
