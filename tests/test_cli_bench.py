"""`squeezenet bench`."""

import json

import pytest
from click.testing import CliRunner

from networks import random_network, tiny_spec
from squeezenet import SqzFile, write_sqz
from squeezenet.cli import cli
from squeezenet.engine import native_kernels

if not native_kernels():
    pytest.skip("needs the native engine: no C compiler was found at installation", allow_module_level=True)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny.sqz"
    write_sqz(path, SqzFile(network=random_network(tiny_spec())))
    return str(path)


def test_figures_come_as_json(file):
    result = CliRunner().invoke(cli, ["bench", file, "--threads", "2", "--seconds", "0.1", "--json"])
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    assert figures["kernels"] == native_kernels()[0]
    assert [run["threads"] for run in figures["runs"]] == [1, 2]
    assert all(0 < run["latency_ms"] <= run["p95_ms"] for run in figures["runs"])
    assert figures["macs"] == 17_928
    assert 0 < figures["load_ms"] < 1000


def test_figures_come_as_a_table(file):
    result = CliRunner().invoke(cli, ["bench", file, "--threads", "1", "--seconds", "0.1"])
    assert result.exit_code == 0
    assert "load and decode" in result.stdout
    assert "images/s" in result.stdout


def test_other_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    result = CliRunner().invoke(cli, ["bench", str(path)])
    assert result.exit_code == 1
    assert "expected a MODEL, got another kind of file: a MODEL is a .sqz" in result.stderr
