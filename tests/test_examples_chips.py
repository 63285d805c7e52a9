"""The examples for microcontrollers: the program for a Cortex-M runs in QEMU, Arduino's sketch on this computer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import squeezenet
from exported import bytes_of, contents_of, need
from squeezenet.engine import ReferenceEngine, native_kernels

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def engine():
    if not native_kernels():
        pytest.skip("needs the native engine")


def test_program_for_a_cortex_m_names_the_photo(tmp_path):
    need("make", "arm-none-eabi-gcc", "qemu-system-arm")
    folder = shutil.copytree(EXAMPLES / "cortex-m", tmp_path / "cortex-m")
    command = ["make", "-s", "run", f"PYTHON={sys.executable}", f"PHOTO={EXAMPLES / 'photo.jpg'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    (answer,) = squeezenet.Classifier("imagenette").predict([EXAMPLES / "photo.jpg"])
    assert done.stdout.splitlines()[-1] == answer[0].label


def test_arduino_sketch_compiles_and_names_what_it_sees(tmp_path):
    """As Arduino does it: the sketch as C++ after `#include <Arduino.h>`, the network as C, hardly any exceptions."""
    need("gcc", "g++")
    (tmp_path / "network.sqz").write_bytes(bytes_of("plain"))
    squeezenet.export(tmp_path / "network.sqz", tmp_path / "network.c")
    shutil.copy(EXAMPLES / "arduino/classify/classify.ino", tmp_path)
    flags = ["-Os", "-Wall", "-Wextra", "-Werror", "-I."]
    subprocess.run(["gcc", "-std=gnu11", *flags, "-c", "network.c"], cwd=tmp_path, check=True)
    subprocess.run(["g++", "-std=gnu++11", "-fno-exceptions", "-fno-rtti", *flags,
                    f"-I{ROOT / 'tests/native/arduino'}", "-include", "Arduino.h", "-x", "c++", "classify.ino", "-x",
                    "none", "network.o", "-o", "sketch"], cwd=tmp_path, check=True)  # fmt: skip
    printed = subprocess.run([tmp_path / "sketch"], capture_output=True, text=True, check=True).stdout
    contents = contents_of("plain")
    size = contents.network.spec.input_size
    ramp = np.arange(size) * 255 // (size - 1)
    pixels = np.stack([*np.meshgrid(ramp, ramp), np.full((size, size), 128)], axis=2).astype(np.uint8)
    best = int(ReferenceEngine(contents.network).logits(pixels[None])[0].argmax())
    assert printed == f"{contents.class_names[best]}, ms: 0\n"
