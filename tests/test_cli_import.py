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
        "preprocessing: taken to be that of torchvision (resize 256, crop 224,"
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
