import json

import numpy as np
import pytest

from commands import HOSTILE, SHOWN, run
from networks import random_network, tiny_spec
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing
from squeezenet.text import format_bytes, printable, table

INFO_1_0 = """\
squeezenet1_0: 4.99 MB as float32, bypass none, 48x smaller than AlexNet

layer      filter/stride      output  s1x1  e1x1  e3x3      params         MACs  activation bytes
---------  -------------  ----------  ----  ----  ----  ----------  -----------  ----------------
input                      227x227x3
conv1      7x7/2          111x111x96                        14,208  173,873,952         1,182,816
pool1      3x3/2            55x55x96                                                      290,400
fire2                      55x55x128    16    64    64      11,920   35,622,400           435,600
fire3                      55x55x128    16    64    64      12,432   37,171,200           435,600
fire4                      55x55x256    32   128   128      45,344  136,294,400           871,200
pool4      3x3/2           27x27x256                                                      186,624
fire5                      27x27x256    32   128   128      49,440   35,831,808           209,952
fire6                      27x27x384    48   192   192     104,880   76,142,592           314,928
fire7                      27x27x384    48   192   192     111,024   80,621,568           314,928
fire8                      27x27x512    64   256   256     188,992  137,355,264           419,904
pool8      3x3/2           13x13x512                                                       86,528
fire9                      13x13x512    64   256   256     197,184   33,226,752            97,344
conv10     1x1/1          13x13x1000                       513,000   86,528,000
avgpool10                   1x1x1000
total                                                    1,248,424  832,667,936         4,845,824
AlexNet                                                 60,965,224  724,406,816
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("info") / "tiny.sqz"
    network = random_network(tiny_spec(name="tiny\x1b[31m"), density=0.5)
    contents = SqzFile(
        network=network,
        labels=Labels((*HOSTILE[:4], "fifth")),
        preprocessing=Preprocessing(crop_size=16, resize_size=16),
        facts={"top1": 90.5, "note": HOSTILE[0]},
    )
    write_sqz(path, contents)
    return path


def test_1_0_is_the_paper_s_table():
    result = run("info", "squeezenet1_0")
    assert (result.exit_code, result.stderr, result.stdout) == (0, "", INFO_1_0)


def test_json_has_the_project_s_words():
    facts = json.loads(run("info", "squeezenet1_1", "--json").stdout)
    assert list(facts) == [
        "name", "input_size", "num_classes", "params", "macs", "activation_bytes", "fp32_bytes", "layers", "spec",
        "alexnet",
    ]  # fmt: skip
    assert (facts["params"], facts["macs"], facts["input_size"]) == (1_235_496, 349_151_936, 224)
    assert facts["alexnet"] == {"params": 60_965_224, "macs": 724_406_816, "file_bytes": 240_000_000}
    assert facts["layers"][0] == {
        "name": "conv1", "kind": "conv", "out_channels": 64, "out_size": 111, "params": 1792, "macs": 21_290_688,
        "activation_bytes": 788_544, "kernel": 3, "stride": 2,
    }  # fmt: skip
    assert facts["layers"][2]["squeeze_channels"] == 16
    assert facts["spec"]["pools"] == [1, 3, 5]


def test_size_and_classes_can_be_chosen():
    facts = json.loads(run("info", "squeezenet1_1", "--input-size", "32", "--num-classes", "10", "--json").stdout)
    assert (facts["input_size"], facts["num_classes"], facts["params"]) == (32, 10, 727_626)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input-size", "0"), "expected `input_size` from 1 to 1024, got 0"),
        (("--input-size", "2000"), "expected `input_size` from 1 to 1024, got 2000"),
        (("--num-classes", "0"), "expected `num_classes` from 1 to 65535, got 0"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    result = run("info", "squeezenet1_0", *arguments)
    assert (result.exit_code, result.stderr) == (1, f"Error: {message}\n")


def test_sizes_do_not_go_with_a_file(model):
    for option in ("--input-size", "--num-classes"):
        result = run("info", model, option, "0")
        assert result.exit_code == 2
        assert "--input-size and --num-classes apply only to the NAME of an architecture" in result.stderr


def test_file_is_shown_layer_by_layer(model):
    result = run("info", model)
    assert result.exit_code == 0
    size = model.stat().st_size
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny\\x1b[31m: 4.34 kB as float32, bypass none, 55300x smaller than AlexNet"
    assert (
        f"File: {size:,} bytes, {4340 / size:.1f}x smaller than float32, {240e6 / size:.0f}x smaller" in result.stdout
    )
    assert f"Labels: {', '.join(SHOWN[:4])}, fifth" in lines
    assert lines[-1].split() == ["total", "1,085", f"{size:,}"]
    assert result.stdout.replace("\n", "").isprintable()
    parts = [line.split()[0] for line in lines[lines.index("") :][-14:]]
    assert parts[-4:] == ["ARCH", "META", "container", "total"]


def test_json_of_a_file_adds_what_it_holds(model):
    result = run("info", model, "--json")
    assert result.stdout.rstrip("\n").isprintable()
    facts = json.loads(result.stdout)
    assert facts["file_bytes"] == model.stat().st_size == sum(facts["stream_bytes"].values())
    assert facts["ratio_vs_fp32"] == 4340 / facts["file_bytes"]
    assert facts["ratio_vs_alexnet"] == 240e6 / facts["file_bytes"]
    weights = np.concatenate([p.weight.ravel() for p in random_network(tiny_spec(), density=0.5).convs.values()])
    assert facts["density"] == (weights != 0).mean()
    assert facts["labels"] == [*HOSTILE[:4], "fifth"]
    assert facts["preprocessing"]["crop_size"] == 16
    assert facts["facts"] == {"top1": 90.5, "note": HOSTILE[0]}


def test_float_model_shows_its_layers(tmp_path):
    from squeezenet.models import SqueezeNet, save_safetensors

    save_safetensors(SqueezeNet(tiny_spec()), tmp_path / "m.safetensors")
    facts = json.loads(run("info", tmp_path / "m.safetensors", "--json").stdout)
    assert (facts["name"], facts["params"], "file_bytes" in facts) == ("tiny", 1085, False)


def test_file_of_a_thousand_labels_shows_five(tmp_path):
    labels = Labels(tuple(f"c{number}" for number in range(9)))
    write_sqz(tmp_path / "m.sqz", SqzFile(network=random_network(tiny_spec(num_classes=9)), labels=labels))
    assert "Labels: c0, c1, c2, c3, c4 and 4 more\n" in run("info", tmp_path / "m.sqz").stdout
    write_sqz(tmp_path / "n.sqz", SqzFile(network=random_network(tiny_spec())))
    assert "Labels: none\n" in run("info", tmp_path / "n.sqz").stdout
    facts = json.loads(run("info", tmp_path / "n.sqz", "--json").stdout)
    assert (facts["labels"], facts["preprocessing"], facts["facts"]) == (None, None, {})


def test_program_runs_as_installed(monkeypatch, capsys):
    from squeezenet.cli import main

    monkeypatch.setattr("sys.argv", ["squeezenet", "info", "squeezenet1_0"])
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().out) == (0, INFO_1_0)


def test_missing_and_damaged_files_are_one_line(model, tmp_path):
    result = run("info", tmp_path / "none.sqz")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/none.sqz: no such file or folder; a MODEL is")
    (tmp_path / "cut.sqz").write_bytes(model.read_bytes()[:50])
    result = run("info", tmp_path / "cut.sqz")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {tmp_path}/cut.sqz: chunk 'ARCH' at byte 8 has")
    assert result.stderr.count("\n") == 1


# --- text ---


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345, "12.3 kB"), (470_000, "470 kB"), (4_993_696, "4.99 MB"),
     (240_000_000, "240 MB"), (1_234_000_000, "1234 MB")],
)  # fmt: skip
def test_bytes_are_powers_of_ten(count, shown):
    assert format_bytes(count) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *zip(HOSTILE, SHOWN, strict=True),
        ("caf\u00e9 \u732b", "caf\u00e9 \u732b"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
    ],
)
def test_control_characters_show_as_escapes(text, shown):
    assert printable(text) == shown


def test_table_aligns_its_columns():
    assert table(("name", "n"), [("a", "1"), ("longer", "1,000")]) == (
        "name        n\n------  -----\na           1\nlonger  1,000"
    )
