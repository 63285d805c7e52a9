"""`squeezenet export` and `squeezenet verify` as commands."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from exported import bytes_of, need, need_browser
from image_files import encode, photo
from squeezenet.cli import cli
from squeezenet.engine import ReferenceEngine, native_kernels


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.sqz"
    path.write_bytes(bytes_of("plain"))
    return path


def test_page_is_written_and_measured(model):
    page = model.with_suffix(".html")
    result = run("export", model, "-o", page)
    assert result.exit_code == 0, result.output
    assert f"{page}: {page.stat().st_size:,} bytes: model " in result.output
    assert page.read_bytes().startswith(b"<!doctype html>")


def test_c_comes_with_its_header_and_peak_memory(model):
    if not native_kernels():
        pytest.skip("needs the native engine")
    result = run("export", model, "--to", "c", "-o", model.with_name("net.c"))
    assert result.exit_code == 0, result.output
    header = model.with_name("net.h").read_text()
    arena = int(header.split("#define NET_ARENA_BYTES ")[1].split()[0])
    assert re.search(rf"^RAM at 16x16 pixels: [0-9,]+ bytes: {arena:,} in one arena ", result.output, re.MULTILINE)


@pytest.mark.parametrize(
    "arguments", [["-o", "m.onnx"], ["-o", "m.onnx", "--precision", "int8"], ["-o", "m.safetensors"]]
)
def test_targets_follow_from_the_suffix(model, arguments, monkeypatch):
    monkeypatch.chdir(model.parent)
    result = run("export", model, *arguments)
    assert result.exit_code == 0, result.output
    assert f"{arguments[1]}: {(model.parent / arguments[1]).stat().st_size:,} bytes" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-o", "x.txt"],
            "expected --to, or an output named *.c, *.html, *.js, *.onnx, *.safetensors, *.tflite, got 'x.txt'",
        ),
        (["-o", "x.html", "--precision", "int8"], "--precision applies to onnx, not to web: leave it out"),
        (["-o", "x.onnx", "--name", "net"], "--name applies to c, not to onnx: leave it out (got 'net')"),
        (["-o", "x.c", "--name", "2"], "expected a C identifier for --name, got '2': choose one with --name"),
    ],
)
def test_contradicting_options_are_refused(model, arguments, message, monkeypatch):
    monkeypatch.chdir(model.parent)
    result = run("export", model, *arguments)
    assert result.exit_code != 0
    assert message in result.output
    assert sorted(path.name for path in model.parent.iterdir()) == ["m.sqz"]


def test_header_of_another_source_is_kept(model):
    for _ in range(2):
        assert run("export", model, "-o", model.with_name("a-b.c")).exit_code == 0
    header = model.with_name("a_b.h").read_bytes()
    result = run("export", model, "-o", model.with_name('a"b.c'))
    message = f'{model.with_name("a_b.h")} exists and is of another source than a"b.c: choose a name with --name'
    assert (result.exit_code, result.output.splitlines()[-1]) == (2, f"Error: {message}")
    assert sorted(path.name for path in model.parent.iterdir()) == ["a-b.c", "a_b.h", "m.sqz"]
    assert model.with_name("a_b.h").read_bytes() == header


def test_damaged_file_is_one_line_and_leaves_nothing(model):
    model.write_bytes(model.read_bytes()[:-1])
    result = run("export", model, "-o", model.with_suffix(".html"))
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {model}: ")
    assert len(result.output.splitlines()) == 1
    assert not model.with_suffix(".html").exists()


def test_verify_finds_all_engines_equal(model):
    need("node", "gcc")
    need_browser()
    for index in range(3):
        (model.parent / f"{index}.png").write_bytes(encode(photo(40 + index, 30)))
    result = run("verify", model, "--images", model.parent, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    engines = {pair["first"] for pair in facts["pairs"]} | {pair["second"] for pair in facts["pairs"]}
    assert engines >= {"torch", "numpy", "native scalar", "C flash", "C ram", "C coded"} | {
        f"web in {where}, {kernels}" for where in ("Node", "Chromium") for kernels in ("plain", "relaxed")
    }
    for pair in facts["pairs"]:
        assert (pair["top1_equal"], pair["n_images"]) == (3, 3)
        assert (pair["largest_difference"], pair["largest_feature_difference"]) == (0, 0)


def test_verify_draws_its_own_pictures(model, monkeypatch):
    monkeypatch.setenv("PATH", "")
    result = run("verify", model, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["images"] == "drawn pictures"
    assert {pair["n_images"] for pair in facts["pairs"]} == {8}


def test_verify_finds_one_wrong_feature(model, monkeypatch):
    (model.parent / "a.png").write_bytes(encode(photo()))
    monkeypatch.setenv("PATH", "")
    features = ReferenceEngine.features
    monkeypatch.setattr(
        ReferenceEngine, "features", lambda engine, pixels: features(engine, pixels) + np.eye(1, 16, 3, int)
    )
    result = run("verify", model, "--images", model.parent)
    assert result.exit_code == 1
    assert re.search(r"torch +numpy +1 of 1 +0 \(same bits\) +1$", result.output, re.MULTILINE)


def test_verify_names_what_cannot_run(model, monkeypatch):
    (model.parent / "a.png").write_bytes(encode(photo()))
    monkeypatch.setenv("PATH", "")
    (model.parent / "b.png").write_bytes(encode(photo())[:-50])
    (model.parent / "notes.txt").write_text("no image")
    result = run("verify", model, "--images", model.parent)
    assert result.exit_code == 0, result.output
    assert f"skipped {model.parent / 'b.png'}: cannot be decoded" in result.stderr
    assert "notes.txt" in result.stderr
    assert "not run: web in Node, plain: needs node" in result.output
    assert "0 (same bits)" in result.output
