import dataclasses
import os

import pytest
import torch

from commands import run
from squeezenet.models import create_model, load_safetensors
from squeezenet.preprocess import TORCHVISION_PREPROCESSING


@pytest.fixture(scope="module")
def pth(tmp_path_factory):
    path = tmp_path_factory.mktemp("pth") / "model.pth"
    torch.manual_seed(0)
    torch.save(create_model("squeezenet1_1", num_classes=3).state_dict(), path)
    return path


def test_state_dict_becomes_safetensors(pth, tmp_path):
    output = tmp_path / "model.safetensors"
    result = run("import", pth, "-o", output)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{output}: squeezenet1_1, 3 classes",
        "format: torch, tensor names: torchvision",
        "preprocessing: that of torchvision's networks (resize 256, crop 224,"
        " mean (123.675, 116.28, 103.53), std (58.395, 57.12, 57.375))",
    ]
    assert load_safetensors(output).preprocessing == TORCHVISION_PREPROCESSING
    torch.manual_seed(0)
    expected = create_model("squeezenet1_1", num_classes=3).state_dict()
    for name, tensor in load_safetensors(output).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"x": Bomb()}, tmp_path / "bomb.pth")
    result = run("import", tmp_path / "bomb.pth", "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bomb.pth"]


@pytest.mark.parametrize("name", ["bad.pth", "bad.net", "bad.txt", "bad.sqz"])
def test_failure_is_one_line_and_leaves_nothing(tmp_path, name):
    (tmp_path / name).write_bytes(b"neither")
    result = run("import", tmp_path / name, "-o", tmp_path / "out.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_checkpoint_of_a_run_leads_to_its_folder(pth, tmp_path):
    for name in ("best.safetensors", "checkpoint.pt"):
        (tmp_path / name).write_bytes(pth.read_bytes())
    result = run("import", tmp_path / "checkpoint.pt", "-o", tmp_path / "out.safetensors")
    assert (result.exit_code, result.stderr) == (
        1, f"Error: {tmp_path / 'checkpoint.pt'}: expected a MODEL, got a file of a run folder: use the folder,"
        f" {tmp_path}\n",
    )  # fmt: skip


def test_missing_file_is_one_line(tmp_path):
    result = run("import", tmp_path / "none.pth", "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_output_folder_must_exist(pth, tmp_path):
    output = tmp_path / "none" / "out.safetensors"
    result = run("import", pth, "-o", output)
    assert (result.exit_code, result.stderr) == (1, f"Error: {output}: No such file or directory\n")


def test_output_must_be_named(pth):
    result = run("import", pth)
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr


def test_output_must_be_named_like_its_contents(pth, tmp_path):
    result = run("import", pth, "-o", tmp_path / "out.pth")
    assert result.exit_code == 2
    assert "expected an output named *.safetensors, got" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["m.ckpt", "m.bin", "m.pth.tar", "M.PTH", "m"])
def test_any_name_will_do(tmp_path, name):
    torch.save({"state_dict": create_model("squeezenet1_1", num_classes=3).state_dict()}, tmp_path / name)
    result = run("import", tmp_path / name, "-o", tmp_path / "m.safetensors")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "notes: those under `state_dict`" in result.stdout


def test_preprocessing_and_labels_can_be_given(pth, tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffcat\r\nsmall dog \r\n日本\r\n", encoding="utf-8")
    options = [
        "--labels",
        tmp_path / "names.txt",
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.5, 0.5, 0.5",
        "--resize",
        "224x224",
    ]
    result = run("import", pth, "-o", tmp_path / "m.safetensors", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[2] == (
        "preprocessing: as given (resize 224x224, crop 224, mean (127.5, 127.5, 127.5), std (127.5, 127.5, 127.5))"
    )
    model = load_safetensors(tmp_path / "m.safetensors")
    assert model.labels.names == ("cat", "small dog", "日本")
    assert model.preprocessing == dataclasses.replace(
        TORCHVISION_PREPROCESSING, resize_size=224, resize_mode="squash", mean=(127.5,) * 3, std=(127.5,) * 3
    )


@pytest.mark.parametrize(
    ("options", "mean", "std"),
    [
        (["--mean", "0,0,0", "--std", "1,1,1"], (0, 0, 0), (255, 255, 255)),
        (["--mean", "123.5 116 103", "--std", "1,1,1"], (123.5, 116, 103), (1, 1, 1)),
        (["--mean", "[0.2, 0.4, 1]"], (51, 102, 255), TORCHVISION_PREPROCESSING.std),
        (["--std", "64,64,64"], TORCHVISION_PREPROCESSING.mean, (64, 64, 64)),
    ],
)
def test_units_of_mean_and_std_are_told_apart(pth, tmp_path, options, mean, std):
    assert run("import", pth, "-o", tmp_path / "m.safetensors", *options).exit_code == 0
    how = load_safetensors(tmp_path / "m.safetensors").preprocessing
    assert (how.mean, how.std) == (pytest.approx(mean), pytest.approx(std))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mean", "0.5"], "expected --mean as R,G,B, such as 0.5,0.5,0.5, got 0.5"),
        (["--std", "0,1,1"], "expected --std as R,G,B"),
        (["--mean", "0.5,0.5,nan"], "expected --mean as R,G,B"),
        (["--mean", "0.5,0.5,0.5", "--std", "64,64,64"], "expected --mean and --std both from 0 to 1 or both"),
        (["--resize", "256x224"], "expected --resize as N, or NxN for a square, got 256x224"),
        (["--resize", "100"], "expected `resize_size` of at least `crop_size` (=224), got 100"),
        (["--labels", "two.txt"], "expected 3 labels, got 2"),
        (["--labels", "gap.txt"], "gap.txt: expected class names, one per line, got an empty line"),
        (["--labels", "none.txt"], "none.txt: cannot be read as text"),
        (["--labels", "latin.txt"], "latin.txt: cannot be read as text"),
    ],
)
def test_options_that_cannot_be_are_refused(pth, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\na\nb\n")
    result = run("import", pth, "-o", "m.safetensors", *options)
    assert result.exit_code in (1, 2)
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "m.safetensors").exists()
