"""The paper's printed sizes and counts against the package's; results against the scripts that compute them."""

import importlib
import json
from pathlib import Path

import pytest

from squeezenet.accounting import peak_activation_bytes
from squeezenet.architectures import metaparameter_spec, named_spec
from squeezenet.spec import ArchSpec, FireSpec, StemSpec

ROOT = Path(__file__).parents[1]
RESULTS = json.loads((ROOT / "results" / "paper_counts.json").read_text())
MIB = 1 << 20


def sizes(preset):
    return {row["value"]: row["fp32_bytes"] for row in RESULTS[preset]}


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def test_results_are_what_the_package_counts(benchmark):
    assert json.loads(json.dumps(benchmark("paper_counts").measure())) == RESULTS


def test_predictions_follow_from_the_parts(benchmark):
    results = json.loads((ROOT / "results" / "scale.json").read_text())
    predicted = json.loads(json.dumps(benchmark("scale_model").predictions(results["parts"])))
    assert predicted == results["predicted"]


# As the paper prints them (figure 3 and table 3), each to its own digits and in the unit in which it is exact.
def test_squeezenet_has_4_8_megabytes_of_2_20():
    assert round(sizes("paper-sr")[0.125] / MIB, 1) == 4.8


def test_squeeze_ratio_0_75_has_19_megabytes_of_10_6():
    assert round(sizes("paper-sr")[0.75] / 1e6) == 19
    assert round(sizes("paper-sr")[0.75] / MIB) == 18  # which the paper's other sizes are given in


def test_half_3x3_has_13_megabytes_of_2_20():
    assert round(sizes("paper-pct3x3")[0.5] / MIB) == 13


def test_simple_bypass_is_free_and_complex_bypass_is_not_7_7_megabytes():
    assert sizes("paper-bypass")["simple"] == sizes("paper-bypass")["none"]
    assert round(sizes("paper-bypass")["complex"] / 1e6, 1) == 6.4
    assert round(sizes("paper-bypass")["complex"] / MIB, 1) == 6.1


def test_table_1_agrees_but_for_fire8_s_kept_parameters():
    for row in RESULTS["table_1"]:
        assert row["params"] == row["printed_params"]
        assert (abs(row["kept"] - row["printed_kept"]) <= 1) == (row["layer"] != "fire8")
    assert sum(row["printed_params"] for row in RESULTS["table_1"]) == 1_248_424
    assert sum(row["printed_kept"] for row in RESULTS["table_1"]) == 421_098


def test_every_point_of_the_exploration_is_there():
    assert list(sizes("paper-sr")) == [0.125, 0.25, 0.5, 0.75, 1.0]
    assert list(sizes("paper-pct3x3")) == [0.01, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 0.99]
    assert list(sizes("paper-bypass")) == ["none", "simple", "complex"]


# Worked out by hand from e_i = 128 + 128 floor(i / 2), s_i = e_i, and half of e_i 3x3: squeeze, expand, biases.
def test_squeeze_ratio_1_by_hand():
    widths = [128, 128, 256, 256, 384, 384, 512, 512]
    total, channels = 96 * (3 * 49 + 1), 96
    for e in widths:
        total += (channels * e + e) + (e * e // 2 + e // 2) + (9 * e * e // 2 + e // 2)
        channels = e
    total += 1000 * (channels + 1)
    assert next(row for row in RESULTS["paper-sr"] if row["value"] == 1.0)["params"] == total


def test_later_pools_cost_work_and_no_weights():
    rows = RESULTS["late-downsampling"]
    assert {row["params"] for row in rows} == {1_248_424}
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)


# 8x8 maps: input 3 channels, conv1 4, squeeze 2, expand 4; with a bypass the sum is a tensor of its own.
@pytest.mark.parametrize(("bypass", "channels"), [("none", 3 + 4), ("simple", 4 + 4 + 4)])
def test_peak_of_activations_by_hand(bypass, channels):
    spec = ArchSpec(
        stem=StemSpec(channels=4, kernel=3, stride=1, padding=1),
        fires=(FireSpec(squeeze_channels=2, expand1x1_channels=2, expand3x3_channels=2),),
        pools=(), input_size=8, num_classes=2, bypass=bypass,
    )  # fmt: skip
    assert peak_activation_bytes(spec) == channels * 64


def test_peak_holds_for_published_networks():
    assert peak_activation_bytes(named_spec("squeezenet1_1")) == 64 * 111**2 + 64 * 55**2
    assert peak_activation_bytes(metaparameter_spec(input_size=227)) == 96 * 111**2 + 96 * 55**2
