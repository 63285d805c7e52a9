"""The native engine gives the reference's bits: every kernel set, any number of threads, the whole spec space."""

import ctypes
import dataclasses
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest

from networks import random_network, random_pixels, random_spec, tiny_spec
from squeezenet import Classifier, FireSpec, SqzFile, StemSpec, named_spec, native_library
from squeezenet.classifier import _warn_of_slow_engine
from squeezenet.engine import NativeEngine, ReferenceEngine, measure_memory, native_kernels
from squeezenet.errors import SqueezeNetError
from squeezenet.native_library import RowSource, load_library
from squeezenet.network import ConvParams, IntegerNetwork
from squeezenet.process import usable_cores

if not native_kernels():
    pytest.skip("needs the native engine: no C compiler was found at installation", allow_module_level=True)

N_SPECS = 60


def check_equal(network: IntegerNetwork, pixels: np.ndarray, *, threads: int, kernels: str) -> None:
    engine, reference = NativeEngine(network, threads=threads, kernels=kernels), ReferenceEngine(network)
    np.testing.assert_array_equal(engine.logits(pixels), reference.logits(pixels))
    np.testing.assert_array_equal(engine.activation_map(pixels), reference.activation_map(pixels))
    np.testing.assert_array_equal(engine.features(pixels), reference.features(pixels))


@pytest.mark.parametrize("kernels", native_kernels())
@pytest.mark.parametrize("part", range(4))
def test_random_networks_give_equal_bits(kernels, part):
    for seed in range(part, N_SPECS, 4):
        rng = np.random.default_rng(seed)
        spec = random_spec(rng)
        network = random_network(spec, seed=seed, max_weight=int(rng.choice([1, 15, 31, 63, 64, 100, 127])))
        check_equal(network, random_pixels(spec, 1 + seed % 3, seed=seed), threads=1 + seed % 4, kernels=kernels)


@pytest.mark.parametrize("kernels", native_kernels())
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["squeezenet1_0_complex_bypass", "squeezenet1_1"])
def test_published_architectures_give_equal_bits(name, kernels, threads):
    spec = named_spec(name, input_size=67, num_classes=21)
    check_equal(random_network(spec, seed=7), random_pixels(spec, 1, seed=7), threads=threads, kernels=kernels)


@pytest.mark.parametrize("kernels", native_kernels())
def test_sums_beyond_float32s_integers_are_rounded_alike(kernels):
    wide = FireSpec(squeeze_channels=70, expand1x1_channels=300, expand3x3_channels=300)
    network = random_network(tiny_spec(fires=(wide, wide)), seed=3)
    convs = dict(network.convs)
    for name, conv in convs.items():  # all weights at one end, so that sums are as large as they get
        convs[name] = dataclasses.replace(conv, weight=np.full_like(conv.weight, 127))
    network = dataclasses.replace(network, convs=convs)
    check_equal(network, random_pixels(network.spec, 2), threads=1, kernels=kernels)


@pytest.mark.parametrize("kernels", native_kernels())
@pytest.mark.parametrize("multiplier", [2.0**-40, 0.5, 2.0**20])
def test_products_beyond_int32_are_clamped_alike(kernels, multiplier):
    network = random_network(tiny_spec(squeeze_relu=False, bypass="complex"), seed=5)
    convs = {}
    for name, conv in network.convs.items():
        bias = np.where(np.arange(len(conv.bias)) % 2, 2**31 - 2**26, -(2**31) + 2**26).astype(np.int32)
        convs[name] = ConvParams(conv.weight, bias, np.full_like(conv.multiplier, multiplier))
    network = dataclasses.replace(network, convs=convs)
    check_equal(network, random_pixels(network.spec, 2), threads=2, kernels=kernels)


@pytest.mark.parametrize("kernels", native_kernels())
def test_halves_are_rounded_to_even(kernels):
    network = random_network(tiny_spec(), seed=9, max_weight=2)
    convs = {
        name: ConvParams(conv.weight, conv.bias // 64, np.full_like(conv.multiplier, 0.5))
        for name, conv in network.convs.items()
    }
    network = dataclasses.replace(network, convs=convs)
    check_equal(network, random_pixels(network.spec, 2) // 16, threads=1, kernels=kernels)


def test_batches_of_any_length_equal_single_images():
    network = random_network(tiny_spec(), seed=1)
    pixels = random_pixels(network.spec, 7)
    single = np.concatenate([NativeEngine(network, threads=1).logits(pixels[i : i + 1]) for i in range(7)])
    for threads in (1, 2, 3, 4):
        np.testing.assert_array_equal(NativeEngine(network, threads=threads).logits(pixels), single)
    assert NativeEngine(network).logits(pixels[:0]).shape == (0, 5)


@pytest.mark.parametrize("options", [{}, {"bypass": "complex", "head_padding": 1, "pools": (1, 2, 3)}])
def test_images_that_are_worth_several_threads_are_shared_to_the_bit(options):
    fires = (FireSpec(squeeze_channels=60, expand1x1_channels=100, expand3x3_channels=140),) * 2
    stem = StemSpec(channels=40, kernel=5, stride=1, padding=2)
    spec = tiny_spec(**{"fires": fires, "stem": stem, "input_size": 90, "pools": (), "num_classes": 77, **options})
    network, pixels = random_network(spec, seed=3), random_pixels(spec, 5, seed=3)
    reference = ReferenceEngine(network)
    expected, maps = reference.logits(pixels), reference.activation_map(pixels)
    for threads in (2, 3, 7):
        engine = NativeEngine(network, threads=threads)
        for count in (1, 2, 3, 5):
            np.testing.assert_array_equal(engine.logits(pixels[:count]), expected[:count])
        np.testing.assert_array_equal(engine.activation_map(pixels), maps)
        np.testing.assert_array_equal(engine.features(pixels), reference.features(pixels))


@pytest.fixture
def busy_cores():
    """As many processes that compute without pause as there are cores."""
    command = [sys.executable, "-c", "while True: sum(range(10**6))"]
    others = [subprocess.Popen(command) for _ in range(usable_cores())]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.parametrize("input_size", [32, 224])
def test_on_a_busy_machine_two_threads_are_not_slower_than_one(busy_cores, input_size):
    """One photo at a time, of a network that gets one thread and of one that gets two; by turns, since load varies."""
    spec = named_spec("squeezenet1_1", input_size=input_size, num_classes=10)
    network, pixels = random_network(spec), random_pixels(spec, 1)
    engines = {threads: NativeEngine(network, threads=threads) for threads in (1, 2)}
    for _ in range(4):  # one that the machine leaves alone is enough
        times = {threads: [] for threads in engines}
        for turn in range(2000 if input_size < 100 else 300):
            start = time.perf_counter()
            engines[1 + turn % 2].logits(pixels)
            times[1 + turn % 2].append(time.perf_counter() - start)
        ratio = np.percentile(times[2], 95) / np.percentile(times[1], 95)
        if ratio <= 3:
            return
    pytest.fail(f"the 95th percentile on two threads is {ratio:.1f} times that on one")


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's numbers of the rounding modes")
@pytest.mark.parametrize("threads", [1, 2])
def test_another_library_may_change_the_rounding_of_floats(threads):
    network = random_network(tiny_spec(bypass="simple"), seed=2)
    pixels = random_pixels(network.spec, 200)
    expected = ReferenceEngine(network).logits(pixels)
    math = ctypes.CDLL("libm.so.6")
    upwards = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    assert math.fesetround(upwards) == 0
    try:
        found = NativeEngine(network, threads=threads).logits(pixels)
        assert math.fegetround() == upwards, "the caller's mode is kept"
    finally:
        math.fesetround(0)
    np.testing.assert_array_equal(found, expected)


def test_pixels_that_are_not_contiguous_are_read_right():
    network = random_network(tiny_spec(), seed=1)
    pixels = random_pixels(network.spec, 4)
    mirrored = pixels[:, :, ::-1]
    np.testing.assert_array_equal(NativeEngine(network).logits(mirrored), NativeEngine(network).logits(mirrored.copy()))


@pytest.mark.parametrize("pixels", [np.zeros((1, 17, 16, 3), np.uint8), ["photo.jpg"], "photo.jpg", None])
@pytest.mark.parametrize("method", ["logits", "features", "outputs", "activation_map"])
def test_pixels_of_a_wrong_shape_or_kind_are_refused(pixels, method):
    engine = NativeEngine(random_network(tiny_spec()))
    with pytest.raises(ValueError, match=r"expected `pixels` of shape \(N, 16, 16, 3\) .* got .*: photos and paths"):
        getattr(engine, method)(pixels)


def test_unknown_kernels_and_threads_are_refused(monkeypatch):
    network = random_network(tiny_spec())
    with pytest.raises(ValueError, match="expected `kernels` to be one of"):
        NativeEngine(network, kernels="mmx")
    with pytest.raises(ValueError, match="expected `threads` from 1 to 256, got -1"):
        NativeEngine(network, threads=-1)
    monkeypatch.setenv("SQUEEZENET_KERNEL", "scalar")
    assert NativeEngine(network).kernels == "scalar"
    monkeypatch.setenv("SQUEEZENET_KERNEL", "foo")
    with pytest.raises(SqueezeNetError, match="^SQUEEZENET_KERNEL: expected one of .*scalar, small, got 'foo'$"):
        NativeEngine(network)
    assert NativeEngine(network, kernels="scalar").kernels == "scalar"


def test_classifier_takes_the_native_engine_and_agrees_with_the_other():
    network = random_network(tiny_spec())
    pixels = random_pixels(network.spec, 3)
    native = Classifier(SqzFile(network=network), threads=2)
    assert isinstance(native.engine, NativeEngine)
    assert native.engine.threads == 2
    reference = Classifier(SqzFile(network=network), engine="reference")
    np.testing.assert_array_equal(native.logits(pixels), reference.logits(pixels))


def check_only_numpy_works(problem: str) -> None:
    contents = SqzFile(network=random_network(tiny_spec()))
    _warn_of_slow_engine.cache_clear()
    with pytest.warns(UserWarning, match=problem):
        classifier = Classifier(contents)
    assert isinstance(classifier.engine, ReferenceEngine)
    Classifier(contents)  # warnings are errors here: a second one would fail
    with pytest.raises(ImportError, match=problem):
        Classifier(contents, engine="native")


@pytest.fixture
def library_folder(tmp_path, monkeypatch):
    """An empty folder where the library is looked for."""
    monkeypatch.setattr(native_library, "_FOLDER", tmp_path)
    native_library._load.cache_clear()
    yield tmp_path
    native_library._load.cache_clear()


def test_classifier_without_the_library_warns_once_and_serves(library_folder):
    check_only_numpy_works("was not built: install a C compiler .* and reinstall squeezenet")


@pytest.mark.parametrize("change", ["another order", "another version", "no number", "no library"])
def test_library_from_other_sources_is_refused_like_a_missing_one(library_folder, change):
    sources = Path(__file__).parents[1] / "csrc"
    built = library_folder / ("_squeezenet" + EXTENSION_SUFFIXES[-1])
    if change == "no library":
        built.write_bytes(b"not for this machine")
    else:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        header = (sources / "squeezenet.h").read_text()
        if change == "another order":  # of two fields of equal size
            header = header.replace("uint8_t n_fires;", "").replace("uint8_t bypass;", "uint8_t n_fires, bypass;")
        if change == "another version":
            header = re.sub("(SQZ_ABI_VERSION) [0-9]+", r"\1 99", header)
        for path in sources.glob("*.[ch]"):
            (library_folder / path.name).write_text(header if path.name == "squeezenet.h" else path.read_text())
        parts = [path for path in library_folder.glob("*.c") if change != "no number" or path.name != "sqz_abi.c"]
        flags = ["-std=c99", "-O0", "-shared", "-fPIC", "-DSQZ_PORTABLE_ONLY"]
        subprocess.run(["gcc", *flags, *parts, "-o", built], check=True)
    check_only_numpy_works(f"{re.escape(str(built))}.*: reinstall squeezenet")


def test_library_is_small():
    assert Path(load_library()._name).stat().st_size <= 225_000


def run_by_rows(engine: NativeEngine, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits and map of one image whose rows come from a function, and which rows it was asked for."""
    side, classes = engine._sizes.map_size, engine.network.spec.num_classes
    logits, maps, asked = np.empty((1, classes)), np.empty((1, side, side, classes)), []

    def source(context, row, rgb):
        asked.append(row)
        ctypes.memmove(rgb, np.ascontiguousarray(pixels[row]).ctypes.data, pixels[row].nbytes)
        return 0

    status = load_library().sqz_run_rows(
        engine._model, engine._arena.ctypes.data, engine._arena.nbytes, RowSource(source), None, logits.ctypes.data,
        maps.ctypes.data, None,
    )  # fmt: skip
    assert status == 0
    return logits, maps, asked


SCHEDULES = ((1, 0), (2, 0), (1, 1), (3, 2), (0, 64), (0, -1), (1, -1))  # band_rows, streamed


@pytest.mark.parametrize("kernels", native_kernels())
@pytest.mark.parametrize("part", range(2))
def test_schedules_give_equal_bits(kernels, part):
    """Bands of rows, streamed stages and rows of input from a function change memory alone."""
    for seed in range(100 + part, 124, 2):
        spec = random_spec(np.random.default_rng(seed))
        network, pixels = random_network(spec, seed=seed), random_pixels(spec, 1, seed=seed)
        reference = ReferenceEngine(network)
        logits, maps = reference.logits(pixels), reference.activation_map(pixels)
        for band_rows, streamed in SCHEDULES:
            options = {"kernels": kernels, "band_rows": band_rows, "streamed": streamed}
            engine = NativeEngine(network, threads=1 + seed % 3, **options)
            np.testing.assert_array_equal(engine.logits(pixels), logits)
            np.testing.assert_array_equal(engine.activation_map(pixels), maps)
            of_rows, maps_of_rows, asked = run_by_rows(NativeEngine(network, threads=1, **options), pixels[0])
            np.testing.assert_array_equal(of_rows, logits)
            np.testing.assert_array_equal(maps_of_rows, maps)
            assert asked == sorted(set(asked))


def test_a_run_ends_when_its_row_source_does():
    engine = NativeEngine(random_network(tiny_spec()), threads=1)
    asked = []
    source = RowSource(lambda context, row, rgb: asked.append(row) or row == 5)
    arena, logits = engine._arena, np.empty(5)
    status = load_library().sqz_run_rows(
        engine._model, arena.ctypes.data, arena.nbytes, source, None, logits.ctypes.data, None, None
    )
    assert status == 2  # SQZ_TRUNCATED
    assert asked == [0, 1, 2, 3, 4, 5]


def test_memory_of_squeezenet1_1():
    """Squeeze maps alone are kept; on a small machine, of the first of them only three rows."""
    network = random_network(named_spec("squeezenet1_1", input_size=224, num_classes=1000))
    fast = max(
        (measure_memory(network, kernels=name) for name in native_kernels()), key=lambda sizes: sizes.arena_bytes
    )
    least = measure_memory(network, kernels="scalar", band_rows=1, streamed=-1)
    assert fast.arena_bytes <= 160_000
    assert least.arena_bytes <= 56_000
