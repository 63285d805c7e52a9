"""What a recipe can ask for besides the plain run: each setting does what it says."""

import io
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from squeezenet.cli import cli
from squeezenet.errors import RecipeError, TrainingError
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, load_model
from squeezenet.progress import PlainReporter
from squeezenet.training import step as step_module
from squeezenet.training.constraints import ZerosStay, prune_smallest
from squeezenet.training.feed.augment import EpochDraw
from squeezenet.training.feed.batches import Batch
from squeezenet.training.lr_finder import find_learning_rate
from squeezenet.training.mixing import mix, trivial_augment
from squeezenet.training.recipe import load_recipe
from squeezenet.training.setup import enough_epochs, with_epochs
from squeezenet.training.state import TrainingState
from squeezenet.training.step import train_step
from squeezenet.training.teacher import Teacher
from training_runs import TINY, digests, train, write_images

PLAIN = TINY.replace(batch_norm=False, dropout=0.0, ema_decay=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "data")


def start(recipe, seed=0):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = SqueezeNet(recipe.spec(3), dropout=recipe.dropout)
    model.labels, model.preprocessing = Labels(("a", "b", "c")), recipe.preprocessing()
    return TrainingState.start(recipe, model, precision="float32", data_id="", device=torch.device("cpu"))


def batch(n_images=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n_images, 8, 8, 3), generator=generator).to(torch.uint8)
    return Batch(pixels, torch.arange(n_images) % 3, [])


def test_batch_in_parts_is_the_same_step():
    whole, parts = start(PLAIN), start(PLAIN.replace(accumulate=3))
    losses = [train_step(state, batch(), steps_per_epoch=4) for state in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_few_images_are_passed_over_until_there_are_enough_steps():
    recipe = load_recipe("finetune")
    assert enough_epochs(recipe, 9_469) is recipe  # 1,475 steps
    longer = enough_epochs(recipe, 54)  # a step for each epoch
    assert (longer.epochs, longer.freeze_features_epochs, longer.warmup_epochs) == (100, 20, 10.0)
    assert enough_epochs(longer, 54) is longer
    assert with_epochs(recipe, 5) == recipe.replace(min_steps=0)
    sparse = PLAIN.replace(epochs=9, min_steps=25, sparse_epochs=(4, 6), early_stop_epochs=2)
    longer = enough_epochs(sparse, 8)
    assert (longer.epochs, longer.sparse_epochs, longer.early_stop_epochs) == (27, (10, 18), 6)


def test_run_with_a_least_number_of_steps_says_so_and_resumes(data, tmp_path):
    recipe, said = PLAIN.replace(epochs=1, warmup_epochs=0.0, min_steps=10), io.StringIO()
    first = train(data, tmp_path / "run", recipe, progress=PlainReporter(said))
    assert (first.epochs_done, first.is_finished) == (3, True)
    assert "33 images: 3 epochs instead of 1, to take 10 steps; --epochs sets another number" in said.getvalue()
    for options in ({}, {"recipe": None}, {"recipe": None, "epochs": 3}):
        assert train(data, tmp_path / "run", **{"recipe": recipe, **options}, resume=True).epochs_done == 3
    with pytest.raises(TrainingError, match="another epochs"):
        train(data, tmp_path / "run", recipe, epochs=2, resume=True)
    assert train(data, tmp_path / "other", recipe, epochs=1).epochs_done == 1


def test_balanced_sampling_draws_every_class_equally_often():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    draw = EpochDraw(100, seed=0, epoch=0, balance=labels)
    assert sorted(np.bincount(labels[draw.order]).tolist()) == [33, 33, 34]
    assert len(set(draw.order[labels[draw.order] == 0].tolist())) >= 33
    assert draw.order.tolist() == EpochDraw(100, seed=0, epoch=0, balance=labels).order.tolist()
    assert draw.order.tolist() != EpochDraw(100, seed=0, epoch=1, balance=labels).order.tolist()


def test_class_weights_make_rare_classes_count(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "data", classes=("a", "b"))
    for path in sorted((folder / "a").iterdir())[:8]:
        path.unlink()
    seen = []
    real_step = step_module.train_step

    def step(*args, **kwargs):
        seen.append(kwargs["class_weights"])
        return real_step(*args, **kwargs)

    monkeypatch.setattr(step_module, "train_step", step)
    train(folder, tmp_path / "run", PLAIN.replace(class_weights="balanced", batch_size=4))
    assert seen[0].tolist() == pytest.approx([14 / 2 / 3, 14 / 2 / 11])


def test_run_ends_early_where_nothing_gets_better(data, tmp_path):
    stream = io.StringIO()
    recipe = TINY.replace(epochs=30, early_stop_epochs=2, lr=0.0)
    result = train(data, tmp_path / "run", recipe, progress=PlainReporter(stream))
    assert (result.epochs_done, result.is_finished) == (3, True)
    assert "no better top-1 in 2 epochs: ended early" in stream.getvalue()
    assert train(data, tmp_path / "run", None, resume=True).epochs_done == 3


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_targets(kind):
    torch.manual_seed(0)
    pixels = torch.zeros(6, 8, 8, 3)
    pixels[3:] = 255.0
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    for _ in range(5):
        mixed, targets = mix(pixels, labels, TINY.replace(**{kind: 1.0}), 2)
        assert targets.sum(1).tolist() == pytest.approx([1] * 6)
        # White pixels are of class 1, so their share is that class's share.
        torch.testing.assert_close(mixed.mean((1, 2, 3)) / 255, targets[:, 1], rtol=1e-4, atol=1e-4)
    assert pixels[:3].max() == 0


def test_trivial_augment_changes_images_within_their_range():
    pixels = torch.randint(0, 256, (64, 16, 16, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    torch.manual_seed(5)
    changed = trivial_augment(pixels)
    torch.manual_seed(5)
    assert torch.equal(changed, trivial_augment(pixels))
    assert changed.shape == pixels.shape
    assert (changed.min() >= 0, changed.max() <= 255) == (True, True)
    is_same = (changed - pixels.float()).abs().amax((1, 2, 3)) < 0.01
    assert 2 <= int(is_same.sum()) <= 16


@pytest.mark.parametrize("pruning", [{"sparse_epochs": (2, 2), "sparsity": 0.3}, {"prune_to": 8_000}])
def test_everything_at_once_trains_and_resumes_to_the_same_bytes(data, tmp_path, monkeypatch, pruning):
    recipe = TINY.replace(
        mixup=0.2, cutmix=0.5, trivial_augment=True, accumulate=2, sampling="balanced", class_weights="balanced",
        epochs=3, **pruning,
    )  # fmt: skip
    whole = train(data, tmp_path / "whole", recipe, checkpoint_every_s=0)
    real_step, calls = step_module.train_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", recipe, checkpoint_every_s=0)
    assert digests(train(data, tmp_path / "run", None, resume=True)) == digests(whole)


def kept_share(path):
    weights = torch.cat([conv.weight.detach().flatten() for conv in load_model(path).convs.values()])
    return float((weights != 0).float().mean())


def test_run_prunes_for_a_file_and_only_pruned_networks_are_the_best(data, tmp_path):
    recipe = TINY.replace(epochs=5, ema_decay=0.9, early_stop_epochs=1)
    shares = {}
    for size in (1_000_000, 30_000, 12_000):
        result = train(data, tmp_path / f"{size}", recipe.replace(prune_to=size))
        assert result.epochs_done >= 4  # the choice is final in the fourth epoch
        shares[size] = kept_share(result.best)
        assert shares[size] == pytest.approx(kept_share(result.last), abs=0.02)
    assert 0.01 < shares[12_000] < 0.8 * shares[30_000] < 0.8 * shares[1_000_000]
    assert shares[1_000_000] > 0.9


def test_gradient_that_is_not_finite_leaves_pruning_as_it_was():
    state = start(PLAIN.replace(prune_to=300))
    state.begin_pruning(10)
    train_step(state, batch(), steps_per_epoch=4, constraint=state.pruning)
    broken = batch()._replace(pixels=torch.full((8, 8, 8, 3), math.nan))
    assert train_step(state, broken, steps_per_epoch=4, constraint=state.pruning) is None
    layers = state.pruning.state_dict()["layers"].values()
    assert all(torch.isfinite(layer["rows"]).all() and (layer["rows"] > 0).any() for layer in layers)


def test_smallest_weights_are_pruned_and_stay_zero():
    state = start(PLAIN.replace(sparsity=0.5))
    prune_smallest(state.model, 0.5)
    zeros = {name: conv.weight == 0 for name, conv in state.model.convs.items()}
    assert all(mask.float().mean().item() == pytest.approx(0.5, abs=0.02) for mask in zeros.values())
    for _ in range(3):
        train_step(state, batch(), steps_per_epoch=4, constraint=ZerosStay())
    for name, conv in state.model.convs.items():
        assert (conv.weight[zeros[name]] == 0).all()
    train_step(state, batch(), steps_per_epoch=4)
    assert any((conv.weight[zeros[name]] != 0).any() for name, conv in state.model.convs.items())


def test_teacher_that_agrees_moves_nothing_and_another_does():
    recipe = PLAIN.replace(distillation=1.0, weight_decay=0.0, distill_temperature=2.0)
    own = Teacher(start(recipe).model, [0, 1, 2], temperature=2.0)
    for seed, moves in ((0, False), (9, True)):
        state = start(recipe, seed)
        before = state.model.head.bias.detach().clone()
        train_step(state, batch(), steps_per_epoch=4, teacher=own)
        assert bool((state.model.head.bias - before).abs().max() > 1e-6) == moves


def test_teacher_s_classes_are_found_by_name(data, tmp_path):
    teacher = train(data, tmp_path / "teacher", TINY.replace(epochs=6)).best
    model = load_model(teacher)
    assert model.labels is not None
    stream = io.StringIO()
    result = train(data, tmp_path / "run", TINY, teacher=teacher, progress=PlainReporter(stream))
    assert result.is_finished
    assert "distillation = 0.5" in (tmp_path / "run/recipe.toml").read_text()
    with pytest.raises(TrainingError, match="teacher that has all classes"):
        train(write_images(tmp_path / "other", classes=("x", "y")), tmp_path / "other_run", TINY, teacher=teacher)


def test_run_goes_on_only_with_its_own_teacher(data, tmp_path):
    one = train(data, tmp_path / "one", TINY).best
    two = train(data, tmp_path / "two", TINY.replace(seed=5)).best
    train(data, tmp_path / "run", TINY, teacher=one)
    one.write_bytes(two.read_bytes())
    with pytest.raises(TrainingError, match="expected the teacher that this run began with"):
        train(data, tmp_path / "run", None, resume=True)


def test_learning_rate_finder_stops_where_the_loss_bursts(data):
    torch.set_num_threads(1)
    found = find_learning_rate(data, recipe=TINY, n_steps=60, high=1000.0, progress=False)
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[-1] < 1000
    assert 1e-5 < found.suggested <= found.lowest < 100
    assert all(map(math.isfinite, found.losses))
    assert (found.data, found.weights, found.recipe) == (str(data), "none", "custom")
    assert f"<dd>{data}</dd>" in found.page()


def test_lr_find_prints_a_suggestion_and_draws_the_curve(data, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY.to_toml())
    arguments = [data, "--recipe", tmp_path / "tiny.toml", "--steps", 20, "-o", tmp_path / "lr.html"]
    done = CliRunner().invoke(cli, ["lr-find", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    assert "suggested: lr = " in done.output
    assert "<svg" in (tmp_path / "lr.html").read_text()


def test_log_for_tensorboard_has_every_epoch(data, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(data, tmp_path / "run", tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert [event.step for event in events.Scalars("top1")] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accumulate": 9}, "at most `batch_size`"),
        ({"sparse_epochs": (3, 2)}, "first and last"),
        ({"sparse_epochs": (2, 3), "prune_to": 1000}, "either `sparse_epochs` or `prune_to`, got both"),
        ({"mixup": -1}, "mixup"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        TINY.replace(**changes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_compiled_network_trains_as_the_plain_one(data, tmp_path):
    recipe = TINY.replace(n_fires=1, pools=(1,), dropout=0.0)
    plain = train(data, tmp_path / "plain", recipe)
    compiled = train(data, tmp_path / "compiled", recipe, compile=True)
    for one, other in zip(load_model(plain.last).parameters(), load_model(compiled.last).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
