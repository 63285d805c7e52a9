"""Exported C on emulated microcontrollers: the same bits, in no more memory than stated."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from exported import bytes_of, contents_of, need, pixels_for
from squeezenet.accounting import network_cost
from squeezenet.engine import ReferenceEngine, native_kernels
from squeezenet.errors import DataError
from squeezenet.exports import build_c_source
from squeezenet.exports.chips import CHIPS, compile_for_chip, missing_for, run_on_chip


@pytest.fixture(autouse=True)
def engine():
    if not native_kernels():
        pytest.skip("needs the native engine")


def compiled(chip, folder, name, weights="flash"):
    if missing := missing_for(CHIPS[chip]):
        pytest.skip(missing)
    source = build_c_source(bytes_of(name), "model", weights=weights)
    compile_for_chip(CHIPS[chip], source, folder)
    return CHIPS[chip], source.memory


# With an integer unit only, with SIMD in its registers, with Helium, and not by Arm; benchmarks/chips.py has them all.
# Multiplications in plain C took 3.0 to 5.6 instructions.
@pytest.mark.parametrize(
    ("chip", "name", "most"),
    [("Cortex-M3", "odd", 9), ("Cortex-M4", "cifar", 1.6), ("Cortex-M55", "odd", 9), ("RISC-V 32", "odd", 9)],
)
def test_cores_give_equal_bits(chip, name, most, tmp_path):
    network, pixels = contents_of(name).network, pixels_for(contents_of(name), 2)
    core, memory = compiled(chip, tmp_path, name)
    done = run_on_chip(core, pixels, tmp_path)
    assert np.array_equal(done.logits, ReferenceEngine(network).logits(pixels))
    assert np.array_equal(done.features, ReferenceEngine(network).features(pixels))
    assert done.stack_bytes <= memory.stack_bytes
    assert 0 < done.run_instructions / network_cost(network.spec).macs <= most


@pytest.mark.parametrize("chip", ["Cortex-M4", "RISC-V 32"])
def test_coded_weights_give_equal_bits(chip, tmp_path):
    network, pixels = contents_of("odd").network, pixels_for(contents_of("odd"), 2)
    core, memory = compiled(chip, tmp_path, "odd", "coded")
    stack = {"ram_bytes": memory.ram_bytes + 4 * network.spec.num_features + 16, "stack_bytes": memory.stack_bytes}
    done = run_on_chip(core, pixels, tmp_path, **stack)  # in no more than the header states
    assert np.array_equal(done.logits, ReferenceEngine(network).logits(pixels))
    assert np.array_equal(done.features, ReferenceEngine(network).features(pixels))
    assert done.stack_bytes <= memory.stack_bytes


def test_a_chip_one_byte_too_small_is_refused(tmp_path):
    (chip, memory), pixels = compiled("Cortex-M4", tmp_path, "plain"), pixels_for(contents_of("plain"), 1)
    done = run_on_chip(chip, pixels, tmp_path)
    vector = 4 * contents_of("plain").network.spec.num_features
    assert done.ram_bytes <= memory.arena_bytes + memory.logit_bytes + vector + 16  # to whole words
    stack = -(-done.stack_bytes // 8) * 8
    enough = {"flash_bytes": done.flash_bytes, "ram_bytes": done.ram_bytes + stack, "stack_bytes": stack}
    same = run_on_chip(chip, pixels, tmp_path, **enough)
    assert np.array_equal(same.logits, done.logits)
    for memory in ("flash_bytes", "ram_bytes"):
        with pytest.raises(DataError, match="Cortex-M4: expected a program of .*overflowed by 1 byte"):
            run_on_chip(chip, pixels, tmp_path, **{**enough, memory: enough[memory] - 1})


@pytest.mark.parametrize("flags", [["-O2"], ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]])
def test_scaling_in_integers_equals_floats(flags, tmp_path):
    need("gcc")
    program = tmp_path / "small_scale"
    source = Path(__file__).with_name("native") / "small_scale.c"
    subprocess.run(["gcc", "-std=c99", *flags, "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", source,
                    "-o", program], check=True)  # fmt: skip
    assert int(subprocess.run([program], check=True, capture_output=True).stdout) > 10_000_000
