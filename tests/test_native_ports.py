"""The C engine built for other machines gives the same bits: ARM under qemu, WebAssembly in Node, other x86 sets."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from squeezenet import FireSpec, SqzFile, StemSpec, write_sqz
from squeezenet.engine import ReferenceEngine

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "tests" / "native" / "run_model.c"
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]
ODD_FIRES = (
    FireSpec(squeeze_channels=5, expand1x1_channels=13, expand3x3_channels=18),
    FireSpec(squeeze_channels=17, expand1x1_channels=3, expand3x3_channels=28),
)
NETWORKS = {
    "plain": {},
    "odd": {
        "stem": StemSpec(channels=21, kernel=5, stride=3, padding=2),
        "input_size": 45,
        "fires": ODD_FIRES,
        "bypass": "complex",
        "head_relu": False,
    },
    "pooled": {
        "stem": StemSpec(channels=7, kernel=7, stride=2),
        "input_size": 37,
        "pools": (1, 2, 3),
        "head_padding": 1,
        "squeeze_relu": False,
    },
}


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


def build(folder: Path, compiler: str, *flags: str) -> Path:
    program = folder / "run_model"
    sources = [DRIVER, *sorted((ROOT / "csrc").glob("*.c"))]
    subprocess.run([compiler, *FLAGS, *flags, *sources, "-o", program], check=True)
    return program


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory) -> Path:
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    return build(tmp_path_factory.mktemp("arm"), "aarch64-linux-gnu-gcc", "-static")


@pytest.fixture(scope="module")
def x86_program(tmp_path_factory) -> Path:
    need("gcc")
    return build(tmp_path_factory.mktemp("x86"), "gcc", "-DSQZ_AVXVNNI_AS_AVX512VL")


@pytest.fixture(scope="module")
def portable_program(tmp_path_factory) -> Path:
    need("gcc")
    return build(tmp_path_factory.mktemp("portable"), "gcc", "-DSQZ_PORTABLE_ONLY", "-DSQZ_NO_THREADS", "-pedantic")


@pytest.fixture(scope="module")
def web_engine(tmp_path_factory) -> Path:
    need("clang", "wasm-ld", "node")
    engine = tmp_path_factory.mktemp("web") / "engine.wasm"
    subprocess.run([ROOT / "csrc" / "web" / "build.sh", engine], check=True)
    return engine


@pytest.fixture(params=NETWORKS)
def case(request, tmp_path) -> tuple[list[Path], bytes]:
    """Paths of a model and of three images, and the bytes of their logits and activation maps."""
    network = random_network(tiny_spec(**NETWORKS[request.param]), seed=4)
    pixels = random_pixels(network.spec, 3, seed=4)
    reference = ReferenceEngine(network)
    expected = np.concatenate([reference.logits(pixels).ravel(), reference.activation_map(pixels).ravel()]).tobytes()
    model, images = tmp_path / "model.sqz", tmp_path / "pixels.raw"
    write_sqz(model, SqzFile(network=network))
    images.write_bytes(pixels.tobytes())
    return [model, images], expected


def run(*command: object) -> bytes:
    return subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("kernels", ["neon_dotprod", "neon", "scalar"])
@pytest.mark.parametrize("threads", [1, 3])
def test_arm_gives_equal_bits(arm_program, case, kernels, threads):
    paths, expected = case
    assert run("qemu-aarch64", arm_program, *paths, kernels, threads) == expected


def test_web_assembly_gives_equal_bits(web_engine, case):
    paths, expected = case
    assert run("node", DRIVER.with_suffix(".mjs"), web_engine, *paths) == expected


def test_portable_build_gives_equal_bits(portable_program, case):
    paths, expected = case
    assert run(portable_program, *paths, "scalar", 1) == expected


@pytest.mark.parametrize("kernels", ["avxvnni", "avx512vnni", "avx2"])
def test_x86_sets_give_equal_bits(x86_program, case, kernels):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    needed = "avx2" if kernels == "avx2" else "avx512_vnni"
    if needed not in flags:
        pytest.skip(f"needs a processor with {needed}")
    paths, expected = case
    assert run(x86_program, *paths, kernels, 2) == expected


def test_web_engine_is_small(web_engine):
    assert web_engine.stat().st_size < 40_000


def test_c_sources_are_short():
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "csrc").rglob("*.[ch]"))
    assert lines <= 4000


def test_installation_goes_on_without_a_compiler(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "CC": "false"}, capture_output=True)
    assert not list(tmp_path.rglob("_squeezenet*"))
