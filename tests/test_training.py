import copy
import csv
import io
import json
import math

import numpy as np
import pytest
import torch

from image_files import write_tree
from shared import shared_path
from squeezenet.compression.retrain import Retrainer
from squeezenet.data import open_data
from squeezenet.data.sources import FolderSource
from squeezenet.errors import DataError, RecipeError, SpecError, TrainingError
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, load_model, normalize_pixels
from squeezenet.progress import PlainReporter, SilentReporter
from squeezenet.training import alarms, train_model
from squeezenet.training import step as step_module
from squeezenet.training.constraints import ZerosStay
from squeezenet.training.feed.batches import Batch
from squeezenet.training.run_folder import LOG_COLUMNS
from squeezenet.training.schedule import build_optimizer, learning_rate
from squeezenet.training.state import TrainingState
from squeezenet.training.teacher import Teacher
from training_runs import TINY, digests, train, write_images


class Lines:
    """A reporter that keeps what it was told."""

    def __init__(self):
        self.stream = io.StringIO()
        self.reporter = PlainReporter(self.stream, every_s=0)

    @property
    def text(self):
        return self.stream.getvalue()


def log_of(result):
    with (result.run_dir / "log.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_sixteen_images_are_learnt_by_heart(tmp_path):
    digits = open_data("digits", split="train")
    sixteen = digits.subset(range(0, len(digits), 91))
    recipe = TINY.replace(
        epochs=40, batch_size=16, crop="center", hflip=False, dropout=0.0, label_smoothing=0.0, ema_decay=0.0
    )
    result = train(sixteen, tmp_path / "run", recipe, val=sixteen)
    assert result.n_images == 16
    assert result.top1 == 100
    assert float(log_of(result)[-1]["train_loss"]) < 0.05


def test_same_seed_gives_the_identical_run_and_another_seed_another(tmp_path):
    data = write_images(tmp_path / "data")
    one, same, other = (
        train(data, tmp_path / name, TINY.replace(seed=seed)) for name, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    losses = [[row["train_loss"] for row in log_of(result)] for result in (one, same, other)]
    assert losses[0] == losses[1] != losses[2]
    assert digests(one) == digests(same)


def test_streaming_from_workers_gives_the_same_run_as_memory(tmp_path):
    data = write_images(tmp_path / "data")
    assert digests(train(data, tmp_path / "kept")) == digests(train(data, tmp_path / "streamed", cache_bytes=0))


def test_run_folder_holds_what_it_promises(tmp_path):
    result = train(write_images(tmp_path / "data"), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "best.safetensors",
        "last.safetensors",
        "checkpoint.pt",
        "checkpoint.previous.pt",
        "log.csv",
        "recipe.toml",
        "run.json",
        "report.html",
        "README.md",
    }
    assert tuple(log_of(result)[0]) == LOG_COLUMNS
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert (facts["n_images"], facts["epochs_done"], facts["data"]["n_train"]) == (3, 2, 33)
    assert facts["top1"] == result.top1
    assert facts["versions"]["torch"] == torch.__version__


def test_every_epoch_reaches_the_callback_when_it_is_saved(tmp_path):
    rows, saved = [], []

    def on_epoch(row):
        rows.append(row)
        saved.append(len((tmp_path / "run/log.csv").read_text().splitlines()) - 1)

    result = train(write_images(tmp_path / "data"), tmp_path / "run", on_epoch=on_epoch)
    assert saved == [1, 2]
    assert result.history == tuple(rows)
    assert [row.epoch for row in rows] == [1, 2]
    written = [{name: f"{value:.6g}" for name, value in row.to_dict().items()} for row in rows]
    with result.best.with_name("log.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == written


def test_error_of_the_callback_ends_a_run_that_can_be_resumed(tmp_path):
    data = write_images(tmp_path / "data")
    rows = []

    def on_epoch(row):
        rows.append(row.epoch)
        if len(rows) == 1:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        train(data, tmp_path / "run", on_epoch=on_epoch)
    resumed = train(data, tmp_path / "run", on_epoch=on_epoch, resume=True)
    assert rows == [1, 2]
    assert [row.epoch for row in resumed.history] == [1, 2]
    assert digests(resumed) == digests(train(data, tmp_path / "whole"))


def test_folder_with_both_splits_is_listed_once(tmp_path, monkeypatch):
    real, listed = FolderSource.list_files, []
    monkeypatch.setattr(FolderSource, "list_files", lambda self: listed.append(1) or real(self))
    for split in ("train", "val"):
        write_images(tmp_path / "data" / split)
    assert train(tmp_path / "data", tmp_path / "run").n_images == 36
    assert len(listed) == 1


def test_saved_network_is_folded_named_and_scores_what_the_run_says(tmp_path):
    data = write_images(tmp_path / "data")
    result = train(data, tmp_path / "run", TINY.replace(epochs=8))
    model = load_model(result.best).eval()
    assert not model.spec.batch_norm
    assert model.labels.names == ("dark", "light", "ramp")
    assert model.provenance["top1"] == result.top1
    _, val = open_data(data).split_holdout(0.1)
    pixels = np.stack([model.preprocessing(val.read(i)) for i in range(len(val))])
    with torch.no_grad():
        predicted = model(normalize_pixels(pixels, model.preprocessing)).argmax(1)
    assert 100 * (predicted.numpy() == np.array(val.labels)).mean() == pytest.approx(result.top1)
    assert result.top1 == 100


def test_holdout_and_recipe_are_chosen_and_said(tmp_path):
    lines = Lines()
    result = train(write_images(tmp_path / "data"), tmp_path / "run", None, epochs=1, progress=lines.reporter)
    assert "10% of each class is held out" in lines.text
    assert "recipe cifar10: images are small (short side 10 pixels)" in lines.text
    assert result.n_images == 3


def test_own_val_split_is_used(tmp_path):
    write_images(tmp_path / "data/train", seed=0)
    write_images(tmp_path / "data/val", per_class=2, seed=1)
    assert train(tmp_path / "data", tmp_path / "run").n_images == 6


def test_weights_with_the_same_classes_keep_their_head(tmp_path):
    data = write_images(tmp_path / "data")
    first = train(data, tmp_path / "first", TINY.replace(epochs=8))
    model = load_model(first.best)
    lines = Lines()
    second = train(
        data, tmp_path / "second", TINY.replace(epochs=1, lr=0.0), init=first.run_dir, progress=lines.reporter
    )
    assert "the weights have exactly these 3 classes: their head is kept" in lines.text
    assert second.top1 == first.top1 == 100
    assert load_model(second.best).provenance["init"]["recipe"] == "custom"
    assert load_model(second.best).preprocessing == model.preprocessing


def test_head_kept_from_weights_orders_the_data_as_they_do(tmp_path):
    data = write_images(tmp_path / "data")
    model = load_model(train(data, tmp_path / "first", TINY.replace(epochs=8)).best)
    order = [2, 0, 1]
    model.labels = Labels(tuple(model.labels.names[i] for i in order))
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight[order])
        model.head.bias.copy_(model.head.bias[order])
    assert train(data, tmp_path / "second", TINY.replace(epochs=1, lr=0.0), init=model).top1 == 100


def test_weights_with_other_classes_get_a_new_head(tmp_path):
    first = train(write_images(tmp_path / "data"), tmp_path / "first")
    other = write_images(tmp_path / "other", classes=("x", "y"))
    result = train(other, tmp_path / "second", init=first.best)
    model = load_model(result.last)
    assert (model.spec.num_classes, model.labels.names) == (2, ("x", "y"))


def test_frozen_features_stay_as_they_are(tmp_path):
    data = write_images(tmp_path / "data")
    first = load_model(train(data, tmp_path / "first").last)
    result = train(
        data, tmp_path / "second", TINY.replace(freeze_features_epochs=2), init=tmp_path / "first/last.safetensors"
    )
    second = load_model(result.last)
    before, after = first.state_dict(), second.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("features"))
    assert not torch.equal(before["classifier.1.weight"], after["classifier.1.weight"])


def test_learning_rate_rises_over_the_warm_up_and_falls_to_zero():
    recipe = TINY.replace(epochs=10, warmup_epochs=2, lr=1.0)
    rates = [learning_rate(recipe, step=step, steps_per_epoch=4) for step in range(41)]
    assert rates[:9] == pytest.approx([step / 9 for step in range(1, 10)])
    assert rates[24] == pytest.approx(0.5)
    assert rates[40] == pytest.approx(0.0)
    linear = [learning_rate(recipe.replace(schedule="linear"), step=step, steps_per_epoch=4) for step in range(41)]
    assert linear[8:] == pytest.approx([1 - done / 32 for done in range(33)])


@pytest.mark.parametrize(
    ("epochs", "steps", "warmup_steps"), [(10, 4, 8), (100, 4, 80), (200, 4, 100), (10, 100, 100), (10, 200, 200)]
)
def test_warm_up_of_a_small_set_is_counted_in_steps(epochs, steps, warmup_steps):
    recipe = TINY.replace(epochs=epochs, warmup_epochs=1, lr=1.0)
    rates = [learning_rate(recipe, step=step, steps_per_epoch=steps) for step in range(epochs * steps)]
    assert rates.index(max(rates)) == warmup_steps
    without = recipe.replace(warmup_epochs=0.0)
    assert learning_rate(without, step=0, steps_per_epoch=steps) == 1


def test_weight_decay_spares_biases_and_norms_unless_asked(tmp_path):
    model = SqueezeNet(TINY.spec(3))
    groups = build_optimizer(model, TINY.replace(features_lr_scale=0.1)).param_groups
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [
        (0.1, 5e-4),
        (0.1, 0),
        (1, 5e-4),
        (1, 0),
    ]
    assert all(p.ndim == (4 if group["weight_decay"] else 1) for group in groups for p in group["params"])
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    all_decayed = build_optimizer(model, TINY.replace(decay_biases=True)).param_groups
    assert [group["weight_decay"] for group in all_decayed] == [5e-4, 5e-4]


def test_network_that_learns_nothing_raises_the_alarm_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "train_step", lambda *args, **kwargs: 1.09)
    lines = Lines()
    recipe = TINY.replace(epochs=13, batch_norm=False)  # of 4 steps, half an epoch to warm up
    result = train(write_images(tmp_path / "data"), tmp_path / "run", recipe, progress=lines.reporter)
    assert len(result.alarms) == 1
    assert "after epoch 13 the loss is ln(classes) = 1.099" in result.alarms[0]
    assert "batch_norm = true" in lines.text


def test_network_that_learns_raises_no_alarm(tmp_path, monkeypatch):
    monkeypatch.setattr(alarms, "_DEAD_AFTER_STEPS", 0)
    monkeypatch.setattr(step_module, "train_step", lambda *args, **kwargs: 1.05)
    assert train(write_images(tmp_path / "data"), tmp_path / "run").alarms == ()


def test_loss_of_guessing_knows_unequal_classes(tmp_path):
    images = open_data(write_tree(tmp_path, ["a/1.png", "b/1.png", "b/2.png", "b/3.png"]))
    assert alarms.guessing_loss(images, 0.0) == pytest.approx((0.5623, 0.6931), abs=1e-4)
    assert alarms.guessing_loss(images, 0.9) == pytest.approx((0.6919, 0.6931), abs=1e-4)


def test_step_without_a_finite_loss_leaves_no_trace(monkeypatch):
    model = SqueezeNet(TINY.spec(3))
    model.labels, model.preprocessing = Labels(("a", "b", "c")), TINY.preprocessing()
    state = TrainingState.start(TINY, model, precision="float32", data_id="", device=torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = Batch(torch.full((8, 8, 8, 3), 200, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), [])
    monkeypatch.setattr(step_module, "normalize_pixels", lambda pixels, _: normalize_pixels(pixels, _) * math.inf)
    assert step_module.train_step(state, batch, steps_per_epoch=4) is None
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    monkeypatch.undo()
    assert step_module.train_step(state, batch, steps_per_epoch=4) > 0
    assert not torch.equal(before["features.0.weight"], model.state_dict()["features.0.weight"])


def test_distillation_takes_its_share_of_the_loss_from_the_teacher():
    model = SqueezeNet(TINY.spec(3), dropout=0.0)
    model.labels, model.preprocessing = Labels(("a", "b", "c")), TINY.preprocessing()
    teacher = SqueezeNet(TINY.spec(3)).eval()
    teacher.preprocessing = TINY.preprocessing()
    with torch.no_grad():
        teacher.head.weight.zero_()
        teacher.head.bias.copy_(torch.tensor([9.0, 0.0, 0.0]).log_softmax(0))
    pixels = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(pixels, torch.full((8,), 2), [])

    def loss(share):
        recipe = TINY.replace(distillation=share, label_smoothing=0.0, dropout=0.0)
        state = TrainingState.start(
            recipe, copy.deepcopy(model), precision="float32", data_id="", device=torch.device("cpu")
        )
        return step_module.train_step(state, batch, steps_per_epoch=4, teacher=Teacher(teacher))

    log_p = model(normalize_pixels(pixels, model.preprocessing)).log_softmax(1)
    soft = teacher.head.bias.softmax(0)
    assert loss(0.0) == pytest.approx(-log_p[:, 2].mean().item(), rel=1e-4)
    assert loss(1.0) == pytest.approx(-(log_p @ soft).mean().item(), rel=1e-4)
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * loss(1.0), rel=1e-4)


def test_loss_that_stays_infinite_ends_the_run_with_advice(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "train_step", lambda *args, **kwargs: None)
    with pytest.raises(TrainingError, match=r"none in 10 steps in a row: use a smaller `lr` \(=0.05\)"):
        train(write_images(tmp_path / "data"), tmp_path / "run", TINY.replace(epochs=5))


def test_retraining_gives_up_by_the_same_rule(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(step_module, "train_step", lambda *_, **__: calls.append(1))
    images = open_data(write_images(tmp_path / "data"))
    model = SqueezeNet(TINY.spec(3)).eval()
    model.labels, model.preprocessing = Labels(images.classes), TINY.preprocessing()
    retrainer = Retrainer(images, model, SilentReporter())
    with pytest.raises(TrainingError, match=r"none in 10 steps in a row: use a smaller `lr` \(=0.05\)"):
        retrainer.run(model, TINY.replace(epochs=5), ZerosStay(), title="retraining")
    assert len(calls) == 10


def test_image_deleted_in_mid_run_is_skipped_and_named(tmp_path, monkeypatch):
    data = write_images(tmp_path / "data")
    lines = Lines()
    gone = data / "dark/05.png"
    real_step = step_module.train_step

    def step_and_delete(*args, **kwargs):
        gone.unlink(missing_ok=True)
        return real_step(*args, **kwargs)

    monkeypatch.setattr(step_module, "train_step", step_and_delete)
    result = train(data, tmp_path / "run", TINY.replace(epochs=3), progress=lines.reporter, cache_bytes=0)
    assert lines.text.count(f"skipped {gone}: cannot be read (No such file or directory)") == 1
    assert result.is_finished
    assert json.loads((tmp_path / "run/run.json").read_text())["unreadable_while_training"][0][0] == str(gone)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.png", "a/2.png"], "at least two classes to tell apart, got only 'a'"),
        (["a/1.png", "b/1.png"], "one each"),
    ],
)
def test_data_that_cannot_be_learnt_is_refused(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        train(write_tree(tmp_path / "data", names), tmp_path / "run")


def test_classes_that_differ_by_case_alone_are_two(tmp_path):
    data = write_images(tmp_path / "data", classes=("cat", "Cat"))
    run = train(data, tmp_path / "run", TINY.replace(epochs=1, warmup_epochs=0.0))
    assert load_model(run.best).labels.names == ("Cat", "cat")


def test_impossible_input_size_is_refused_before_training(tmp_path):
    with pytest.raises((RecipeError, SpecError), match="too small"):
        train(write_images(tmp_path / "data"), tmp_path / "run", TINY.replace(input_size=8, pools=(1, 2, 3, 4, 5)))


def test_folder_with_another_run_is_not_overwritten(tmp_path):
    data = write_images(tmp_path / "data")
    train(data, tmp_path / "run", TINY.replace(epochs=1, warmup_epochs=0))
    with pytest.raises(TrainingError, match="continue it with --resume, or choose another folder"):
        train(data, tmp_path / "run")


def test_unwritable_run_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be made a run folder"):
        train(write_images(tmp_path / "data"), tmp_path / "file/run")


def test_digits_train_to_97_percent_by_default(tmp_path):
    torch.set_num_threads(1)
    assert train_model("digits", run_dir=tmp_path / "run", progress=False).top1 >= 97


def test_classes_that_published_weights_know_start_from_their_part_of_the_head(tmp_path):
    few = open_data(shared_path("data/imagenette-val.zip")).subset(range(0, 1000, 25))
    weights = shared_path("weights/squeezenet1_1-imagenet-fp16.safetensors")
    recipe = TINY.replace(
        input_size=None, batch_norm=False, pools=None, epochs=1, warmup_epochs=0, crop="random_resized", crop_pad=0,
        lr=0.0, ema_decay=0.0,
    )  # fmt: skip
    lines = Lines()
    result = train(few, tmp_path / "run", recipe, val=few, init=weights, progress=lines.reporter)
    assert "the weights have all 10 classes and others" in lines.text
    assert result.top1 >= 85  # 94.5 % on all 1,000
    model = load_model(result.best)
    assert model.labels.ids[0] == "n02979186"
    assert model.labels.names[0] == "cassette player"
    assert model.preprocessing.mean == (123.675, 116.28, 103.53)
    assert not model.spec.head_relu


def test_image_that_fails_only_when_decoded_is_named_and_skipped(tmp_path):
    data = write_images(tmp_path / "data")
    path = data / "dark/05.png"
    path.write_bytes(path.read_bytes()[:-40])
    lines = Lines()
    assert train(data, tmp_path / "run", progress=lines.reporter).is_finished
    assert lines.text.count(f"skipped {path}: ") == 1
