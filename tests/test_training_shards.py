"""Tar shards in WebDataset's layout: packing, streaming, sharing among processes, damage."""

import dataclasses
import functools
import http.server
import io
import json
import tarfile
import threading
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from commands import run
from squeezenet.data import open_data
from squeezenet.data.shards import open_shards, write_shards
from squeezenet.errors import DataError
from squeezenet.exploration import explore
from squeezenet.preprocess import Preprocessing
from squeezenet.training import step as step_module
from squeezenet.training.feed import shards as shards_module
from squeezenet.training.feed.augment import Augmentation, EpochDraw
from squeezenet.training.feed.batches import view_for
from squeezenet.training.feed.shards import ShardBatches
from training_runs import TINY, digests, train, write_images

pytest.importorskip("webdataset")

CENTER = Augmentation(size=8, crop="center")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "data")


@pytest.fixture(scope="module")
def index(folder, tmp_path_factory):
    return write_shards(open_data(folder), tmp_path_factory.mktemp("shards"), images_per_shard=5).index


def batches_of(index):
    images = open_shards(index)
    view = view_for(CENTER, Preprocessing(crop_size=8, resize_size=8))
    return ShardBatches(images, CENTER, view)


def epoch_of(batches, epoch=0, share=(0, 1), first_step=0, batch_size=6):
    draw = EpochDraw(batches.n_images, seed=1, epoch=epoch)
    n_steps = batches.n_images // batch_size
    return list(batches.epoch(draw, batch_size=batch_size, first_step=first_step, n_steps=n_steps, share=share))


def contents(some):
    return sorted(
        (int(label), pixels.numpy().tobytes())
        for batch in some
        for pixels, label in zip(batch.pixels, batch.labels, strict=True)
    )


def test_index_counts_what_the_shards_hold(index):
    table = json.loads(index.read_text())
    assert table["classes"] == {"dark": 12, "light": 12, "ramp": 12}
    assert list(table["shards"].values()) == [5] * 7 + [1]
    with tarfile.open(index.parent / "00000.tar") as tar:
        assert len(tar.getnames()) == 10


def test_epoch_holds_every_image_once_with_its_label(folder, index):
    images = open_data(folder)
    view = Preprocessing(crop_size=8, resize_size=8)
    expected = sorted((label, view(images.read(i)).tobytes()) for i, label in enumerate(images.labels))
    assert contents(epoch_of(batches_of(index))) == expected


def test_order_depends_on_seed_and_epoch_alone(index):
    one, same, other = (epoch_of(batches_of(index), epoch=epoch) for epoch in (0, 0, 1))
    assert [b.labels.tolist() for b in one] == [b.labels.tolist() for b in same] != [b.labels.tolist() for b in other]


def test_steps_already_taken_are_passed_over(index):
    whole, rest = epoch_of(batches_of(index)), epoch_of(batches_of(index), first_step=4)
    assert len(rest) == 2
    for one, other in zip(whole[4:], rest, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_processes_read_different_shards(index):
    batches = batches_of(index)
    shares = [contents(epoch_of(batches, share=(rank, 2))) for rank in range(2)]
    assert [len(share) for share in shares] == [18, 18]
    assert len({pixels for share in shares for _, pixels in share}) >= 30  # shards of one repeat where they are shorter


def test_damaged_shard_is_named_and_the_rest_is_read(index, tmp_path):
    for path in index.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "00002.tar").write_bytes(b"no tar at all")
    (tmp_path / "00003.tar").unlink()
    some = epoch_of(batches_of(tmp_path / "index.json"))
    assert sum(len(batch.labels) for batch in some) == 36
    reasons = {entry.reason for batch in some for entry in batch.unreadable}
    assert len(reasons) >= 2
    assert all("a shard cannot be read" in reason for reason in reasons)


def test_shards_that_are_all_gone_are_one_error(index, tmp_path):
    (tmp_path / "index.json").write_bytes(index.read_bytes())
    with pytest.raises(DataError, match="none of 8 shards can be read"):
        epoch_of(batches_of(tmp_path / "index.json"))


@pytest.mark.parametrize(
    "table",
    [
        "[]",
        "{",
        '{"format": 2, "classes": {"a": 1}, "shards": {"0.tar": 1}}',
        '{"format": 1, "classes": {"a": 1}, "shards": {"0.tar": 2}}',
        '{"format": 1, "classes": {"a": -1}, "shards": {"0.tar": -1}}',
        '{"format": 1, "classes": {"a": 1}, "shards": {"../0.tar": 1}}',
        '{"format": 1, "classes": {"a": 1}, "shards": {"pipe:rm x.tar": 1}}',
        '{"format": 1, "classes": {"a": 1e400}, "shards": {"0.tar": 1}}',
    ],
)
def test_index_that_is_none_is_refused(tmp_path, table):
    (tmp_path / "index.json").write_text(table)
    with pytest.raises(DataError, match="expected the index of shards"):
        open_shards(tmp_path / "index.json")


@pytest.mark.parametrize("claimed", [1_281_167, 1 << 28])
def test_index_that_claims_more_than_shards_hold_costs_nothing_and_is_refused(folder, index, tmp_path, claimed):
    table = {"format": 1, "classes": {"dark": 1, "light": 1, "ramp": claimed - 2}, "shards": {"00000.tar": claimed}}
    (tmp_path / "index.json").write_text(json.dumps(table))
    (tmp_path / "00000.tar").write_bytes((index.parent / "00000.tar").read_bytes())
    train(index, tmp_path / "first", TINY.replace(epochs=1, warmup_epochs=0.0), val=folder)  # imports everything
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"expected {claimed} images in 1 shards, got 5: pack the shards again"):
            train(tmp_path / "index.json", tmp_path / "run", val=folder)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000  # the first checkpoint is 3 MB
    finally:
        tracemalloc.stop()


def test_classes_of_shards_are_numbered_as_the_network_s(index):
    images = open_shards(index)
    renumbered = images.relabel({"dark": 3, "light": 0, "ramp": 1}, ("light", "ramp", "other", "dark"))
    assert len(renumbered) == 36
    assert renumbered.class_counts() == {"light": 12, "ramp": 12, "other": 0, "dark": 12}
    batches = dataclasses.replace(batches_of(index), images=renumbered)
    assert sorted(torch.cat([batch.labels for batch in epoch_of(batches)]).tolist()) == [0] * 12 + [1] * 12 + [3] * 12


def test_images_that_cannot_be_read_are_left_out_of_shards_and_named(tmp_path):
    images = open_data(write_images(tmp_path / "data"))
    gone = tmp_path / "data/light/03.png"
    gone.unlink()
    packed = write_shards(images, tmp_path / "out", images_per_shard=10)
    assert (packed.n_images, packed.n_shards) == (35, 4)
    assert [(name, reason) for name, reason in packed.unreadable] == [
        (str(gone), "cannot be read (No such file or directory)")
    ]
    assert open_shards(packed.index).class_counts() == {"dark": 12, "light": 11, "ramp": 12}


def test_exploring_needs_images_in_any_order(folder, index, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(DataError, match="got shards: unpack them first"):
        explore(index, folder, study_dir=tmp_path / "study", recipe=TINY, progress=False)


def test_training_from_shards_resumes_to_the_same_bytes(folder, index, tmp_path, monkeypatch):
    whole = train(index, tmp_path / "whole", val=folder)
    assert whole.n_images == 36
    real_step, calls = step_module.train_step, []

    def step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(index, tmp_path / "run", val=folder, checkpoint_every_s=0)
    assert digests(train(index, tmp_path / "run", val=folder, resume=True)) == digests(whole)


def test_shards_behind_http_are_the_same_run(folder, index, tmp_path):
    handler = functools.partial(_Quiet, directory=str(index.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/index.json"
        recipe = TINY.replace(epochs=1, warmup_epochs=0.0)
        there = train(url, tmp_path / "there", recipe, val=folder)
        server.shutdown()
    here = train(index, tmp_path / "here", recipe, val=folder)
    weights, same = load_file(there.last), load_file(here.last)  # the files differ in where the images came from
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_shards_need_images_to_validate_on(index, tmp_path):
    with pytest.raises(DataError, match="expected --val with shards"):
        train(index, tmp_path / "run")


def test_balanced_sampling_needs_images_in_any_order(folder, index, tmp_path):
    with pytest.raises(DataError, match="use `class_weights` instead"):
        train(index, tmp_path / "run", TINY.replace(sampling="balanced"), val=folder)


def test_command_packs_a_folder(folder, tmp_path):
    done = run("shards", folder, "-o", tmp_path / "out", "--images-per-shard", 10)
    assert done.exit_code == 0, done.output
    assert "36 images in 4 shards" in done.output
    assert len(open_shards(tmp_path / "out/index.json")) == 36


def test_folder_whose_name_is_a_command_is_a_folder(folder, index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:touch ${IFS}PWNED; cat good", "a:b", "file:x", "s3:y"):
        there = tmp_path / name
        there.mkdir()
        for path in index.parent.iterdir():
            (there / path.name).write_bytes(path.read_bytes())
        batches = batches_of(f"{name}/index.json")
        assert contents(epoch_of(batches)) == contents(epoch_of(batches_of(index)))
    assert not (tmp_path / "PWNED").exists()


def test_folder_of_shards_leads_to_its_index(folder, index, tmp_path):
    with pytest.raises(DataError, match=rf"got shards: give their index, {index}"):
        train(index.parent, tmp_path / "run", val=folder)


def write_tar(path, members, **options):
    with tarfile.open(path, **{"mode": "w", **options}) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def hostile_set(index, tmp_path):
    """A copy of a set whose shard 00002 may be replaced."""
    for path in index.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return batches_of(tmp_path / "index.json")


def reasons_of(batches):
    return {entry.reason for batch in epoch_of(batches) for entry in batch.unreadable}


def test_compressed_shard_is_not_unpacked(index, tmp_path):
    batches = hostile_set(index, tmp_path)
    write_tar(tmp_path / "00002.tar", [("0.png", bytes(50_000_000)), ("0.cls", b"0")], mode="w:gz")
    tracemalloc.start()
    try:
        assert any("a shard cannot be read" in reason for reason in reasons_of(batches))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_members_larger_than_images_are_end_of_their_shard(index, tmp_path, monkeypatch):
    batches = hostile_set(index, tmp_path)
    monkeypatch.setattr(shards_module, "MAX_FILE_BYTES", 10_000)
    write_tar(tmp_path / "00002.tar", [("0.png", bytes(10_001)), ("0.cls", b"0")])
    assert any("0.png: expected at most 10000 bytes, got 10001" in reason for reason in reasons_of(batches))


@pytest.mark.parametrize("text", [b"9" * 5000, b"1" * 70_000, b"-1", "\u0663".encode(), b""])
def test_number_of_a_class_is_a_short_number(index, tmp_path, text):
    batches = hostile_set(index, tmp_path)
    write_tar(tmp_path / "00002.tar", [("0.png", b"x"), ("0.cls", text)])
    assert any("number of a class" in reason or "expected at most" in reason for reason in reasons_of(batches))


def test_names_larger_than_names_are_end_of_their_shard(index, tmp_path):
    batches = hostile_set(index, tmp_path)
    write_tar(tmp_path / "00002.tar", [("a" * 100_000 + ".png", b"x")])
    assert any("bytes of names" in reason for reason in reasons_of(batches))
