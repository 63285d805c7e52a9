"""The C engine built for other machines gives the same bits: ARM under qemu, WebAssembly in Node, other x86 sets."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from squeezenet import FireSpec, SqzFile, StemSpec, write_sqz
from squeezenet.engine import ReferenceEngine
from squeezenet.exports.browser import find_node
from squeezenet.exports.web_page import PARTS
from sqz_bytes import join

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "tests" / "native" / "run_model.c"
FLAGS = ["-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pthread"]
SHARED = "-DSQZ_MACS_PER_THREAD=1"  # threads share even these small images
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
    subprocess.run([compiler, *FLAGS, *flags, *sources, "-o", program, "-lm"], check=True)
    return program


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory) -> Path:
    need("aarch64-linux-gnu-gcc", "qemu-aarch64")
    return build(tmp_path_factory.mktemp("arm"), "aarch64-linux-gnu-gcc", "-static", SHARED)


@pytest.fixture(scope="module")
def x86_program(tmp_path_factory) -> Path:
    need("gcc")
    return build(tmp_path_factory.mktemp("x86"), "gcc", "-DSQZ_AVXVNNI_AS_AVX512VL", SHARED)


@pytest.fixture(scope="module")
def race_program(tmp_path_factory) -> Path:
    need("gcc")
    flags = ("-g", "-fsanitize=thread", "-fno-sanitize-recover=all", "-O1", SHARED)
    return build(tmp_path_factory.mktemp("race"), "gcc", *flags)


@pytest.fixture(scope="module")
def windows_program(tmp_path_factory) -> Path:
    need("x86_64-w64-mingw32-gcc")
    program = build(tmp_path_factory.mktemp("windows"), "x86_64-w64-mingw32-gcc", "-static", SHARED)
    return program.with_suffix(".exe")  # the linker's doing


@pytest.fixture(scope="module")
def portable_program(tmp_path_factory) -> Path:
    need("gcc")
    return build(tmp_path_factory.mktemp("portable"), "gcc", "-DSQZ_PORTABLE_ONLY", "-DSQZ_NO_THREADS", "-pedantic")


@pytest.fixture(scope="module")
def web_engine(tmp_path_factory) -> Path:
    """A folder of the page's parts, built from what csrc holds now."""
    need("clang-19", "wasm-ld-19", "node")
    folder = tmp_path_factory.mktemp("web")
    subprocess.run([ROOT / "csrc/web/build.sh", folder / "engine.wasm", folder / "relaxed.wasm"], check=True)
    shutil.copy(PARTS / "engine.js", folder)
    return folder


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


def test_windows_has_threads_and_equal_bits(windows_program, case):
    """Compiling is checked everywhere; running needs Wine, which CI does not install (600 MB)."""
    paths, expected = case
    assert windows_program.read_bytes()[:2] == b"MZ"
    wine = next(filter(None, map(shutil.which, ("wine64", "wine", "/usr/lib/wine/wine64"))), None)
    for threads in (1, 3) if wine else ():
        assert run(wine, windows_program, *paths, "scalar", threads) == expected


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_race_for_nothing(race_program, case, threads):
    paths, expected = case
    for _ in range(10):
        assert run(race_program, *paths, "scalar", threads) == expected


@pytest.mark.parametrize("kernels", ["plain", "pairs"])
def test_web_assembly_gives_equal_bits(web_engine, case, kernels):
    paths, expected = case
    node = find_node(relaxed=kernels != "plain")
    assert run(*node, DRIVER.with_suffix(".mjs"), web_engine, kernels, *paths) == expected


@pytest.mark.parametrize("max_weight", [1, 7, 15, 31, 63, 90, 127])
def test_bytes_of_any_size_give_equal_bits_in_web_assembly(web_engine, tmp_path, max_weight):
    """Sums in 16 bits over four groups, two, one, and panels whose weights lie too far apart for bytes."""
    network = random_network(tiny_spec(**NETWORKS["odd"]), seed=max_weight, max_weight=max_weight)
    pixels = np.concatenate([random_pixels(network.spec, 2, seed=1), np.full_like(random_pixels(network.spec, 1), 255)])
    reference = ReferenceEngine(network)
    expected = np.concatenate([reference.logits(pixels).ravel(), reference.activation_map(pixels).ravel()]).tobytes()
    write_sqz(tmp_path / "model.sqz", SqzFile(network=network))
    (tmp_path / "pixels.raw").write_bytes(pixels.tobytes())
    command = (DRIVER.with_suffix(".mjs"), web_engine, "pairs", tmp_path / "model.sqz", tmp_path / "pixels.raw")
    assert run(*find_node(relaxed=True), *command) == expected


def test_weights_whose_number_leaves_32_bits_are_refused(web_engine, tmp_path):
    """Where memory is counted in 32 bits, their number would look small."""
    fires = [(4096, 1, 4095)] * 25 + [(2877, 1, 4095)]
    channels = [64] + [4096] * 25
    weights = sum((c + 1) * s + (s + 1) * e1 + (9 * s + 1) * e3 for c, (s, e1, e3) in zip(channels, fires, strict=True))
    assert 0 < weights - 2**32 < 2**16
    arch = struct.pack("<BHHBHBBBB", 1, 1, 1, 0, channels[0], 1, 1, 0, len(fires))
    arch += b"".join(struct.pack("<HHH", *fire) for fire in fires) + bytes(2)
    arch += struct.pack("<fB", 1.0, 0) * (2 + 2 * len(fires))
    model, images = tmp_path / "model.sqz", tmp_path / "pixels.raw"
    model.write_bytes(join([(b"ARCH", arch), (b"WGHT", b"")]))
    images.write_bytes(b"")
    command = ["node", DRIVER.with_suffix(".mjs"), web_engine, "plain", model, images]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Error: status 6" in result.stderr  # SQZ_BAD_TABLE


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
    assert (web_engine / "engine.wasm").stat().st_size < 72_000
    assert (web_engine / "relaxed.wasm").stat().st_size < 20_000


def test_c_sources_are_short():
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "csrc").rglob("*.[ch]"))
    assert lines <= 7250


def test_installation_goes_on_without_a_compiler(tmp_path):
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "CC": "false"}, capture_output=True)
    assert not list(tmp_path.rglob("_squeezenet*"))
