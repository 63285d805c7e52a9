"""Heads from feature vectors: a ridge regression, and the same bytes from NumPy, C and WebAssembly."""

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fixture_files import in_parts
from networks import random_network, random_pixels, random_spec, tiny_spec
from squeezenet import Labels, SqzFile
from squeezenet.engine import NativeEngine, ReferenceEngine, native_kernels
from squeezenet.exports.web_page import PARTS
from squeezenet.fileformat import decode_sqz, encode_sqz
from squeezenet.network import ConvParams
from squeezenet.teaching.head import joined, network_digest, plain_json, replace_head
from squeezenet.teaching.native import fit
from squeezenet.teaching.solver import FeatureCode, fit_numpy, kept_levels, quantize_head
from squeezenet.unknown import fit_unknown
from sqz_bytes import split, with_chunk

NATIVE = Path(__file__).with_name("native")
GOLDEN = (
    (-2, 64, [25, 23, 29]),
    [[127, -55, -49], [-100, 127, -91], [-41, -54, 127]],
    ([1087, 1958, 847], [0.01763916015625, 0.01519775390625, 0.01776123046875]),
)
FIELDS = ("weight", "centre", "scores", "exponent", "gain", "base")


def random_codes(rng, n_classes, most, channels):
    classes = np.repeat(np.arange(n_classes), rng.integers(1, most, n_classes, endpoint=True))
    means = rng.integers(0, int(rng.choice([2, 60, 156])), (n_classes, channels))
    return (means[classes] + rng.integers(0, 100, (len(classes), channels))).astype(np.uint8), classes


@pytest.mark.skipif(not native_kernels(), reason="needs the native engine")
@pytest.mark.parametrize("part", range(3))
def test_numpy_and_c_compute_the_same_bits(part):
    for seed in range(part, 60, 3):
        rng = np.random.default_rng(seed)
        n_classes, code = int(rng.integers(1, 8)), FeatureCode(int(rng.integers(0, 4)), bool(seed % 2))
        codes, classes = random_codes(rng, n_classes, int(rng.choice([1, 2, 5, 30])), int(rng.choice([1, 3, 16, 40])))
        if seed % 7 == 0:
            codes[:] = codes[0]  # nothing to tell the classes apart by
        levels = rng.normal(9, 3, len(codes)) if seed % 3 == 1 else None
        native = fit(codes, code, classes, n_classes, levels)
        plain = fit_numpy(code.decode(codes), classes, n_classes, levels)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(native, field), getattr(plain, field), err_msg=f"{seed} {field}")


@pytest.mark.parametrize("channels", [6, 60])  # fewer and more features than photos
def test_scores_are_those_of_heads_without_the_photo(channels):
    rng = np.random.default_rng(5)
    codes, classes = random_codes(rng, 3, 9, channels)
    values = FeatureCode(0, False).decode(codes)
    found = fit_numpy(values, classes, 3)
    share = 1 / (3 * np.bincount(classes)[classes])
    x = np.hstack([values - found.centre, np.ones((len(values), 1))])  # the bias is not regularised
    y = np.eye(3)[classes]
    square = (share * ((values - found.centre) ** 2).sum(axis=1)).sum()
    ridge = np.diag([square / len(values) * 2.0**found.exponent] * channels + [0])
    for i in range(len(values)):
        rest = np.arange(len(values)) != i
        a = x[rest].T @ (share[rest, None] * x[rest]) + ridge
        expected = x[i] @ np.linalg.solve(a, x[rest].T @ (share[rest, None] * y[rest]))
        # The package takes the bias for that of all photos, and the centre is rounded.
        np.testing.assert_allclose(found.scores[i], expected, atol=5e-3)


@pytest.mark.parametrize(("noise", "exponent"), [(1, -8), (30, -2), (100, 0), (1000, 2)])
def test_noisier_photos_get_more_regularisation(noise, exponent):
    rng = np.random.default_rng(8)
    classes = np.repeat(np.arange(4), 12)
    values = (rng.normal(0, 60, (4, 30))[classes] + rng.normal(0, noise, (48, 30))).astype(np.int64)
    assert fit_numpy(values, classes, 4).exponent == exponent


def test_golden_head():
    codes = np.array([[9, 1, 0], [8, 2, 1], [1, 9, 3], [2, 7, 2], [0, 1, 9]], np.uint8)
    code = FeatureCode(0, False)
    found = fit_numpy(code.decode(codes), np.array([0, 0, 1, 1, 2]), 3)
    head = quantize_head(found, code, 4)
    assert (found.exponent, found.gain, found.centre.tolist()) == GOLDEN[0]
    assert head.weight[:, :, 0, 0].tolist() == GOLDEN[1]
    assert (head.bias.tolist(), head.multiplier.tolist()) == GOLDEN[2]


@pytest.mark.parametrize(
    ("positions", "is_signed", "shift"),
    [(169, False, 0), (257, False, 0), (258, False, 1), (1 << 20, False, 12), (64, True, 0), (65, True, 1)],
)
def test_codes_hold_the_largest_features(positions, is_signed, shift):
    code = FeatureCode.of(positions, is_signed=is_signed)
    assert code.shift == shift
    largest = 255 * positions
    features = np.array([0, 1, largest // 100, largest] + ([-1, -largest] if is_signed else []))
    back = code.decode(code.encode(features)) * 2.0**code.shift
    assert (np.abs(back - features) <= np.sqrt(np.abs(features) * 2.0**code.shift) * 2.1 + 2.0**code.shift).all()


def test_one_rounded_head_predicts_what_the_fractions_do():
    rng = np.random.default_rng(3)
    codes, classes = random_codes(rng, 4, 30, 24)
    code = FeatureCode(0, False)
    found = fit_numpy(code.decode(codes), classes, 4)
    head, positions = quantize_head(found, code, 9), 9
    logits = (
        (code.decode(codes) @ head.weight[:, :, 0, 0].T.astype(np.int64) + positions * head.bias)
        * head.multiplier
        / positions
    )
    expected = found.gain * (0.25 + (code.decode(codes) - found.centre) @ found.weight)
    np.testing.assert_allclose(logits, expected, atol=0.02 * found.gain)


def task_of(contents, seed):
    rng = np.random.default_rng(seed)
    n_classes = int(rng.integers(2, 9))
    classes = np.repeat(np.arange(n_classes), rng.integers(1, 8, n_classes))
    return random_pixels(contents.network.spec, len(classes), seed=seed), classes, n_classes


@pytest.mark.parametrize(
    ("seed", "fresh"), [*((seed, []) for seed in range(8)), (1, [-1]), (2, [-1]), (3, [2]), (5, [1, 3, -1]), (6, [1])]
)
def test_python_and_webassembly_write_the_same_file(tmp_path, seed, fresh):
    if not shutil.which("node"):
        pytest.skip("needs node")
    spec = random_spec(np.random.default_rng(seed)) if seed else tiny_spec()
    contents = SqzFile(
        network=random_network(spec, seed=seed), labels=Labels(tuple(f"{i}" for i in range(spec.num_classes)))
    )
    base = in_parts(contents, {index % len(spec.convs) for index in fresh}) if fresh else encode_sqz(contents)
    if seed > 4:  # the table's first number one byte longer than needed, which readers accept
        body = dict(split(base))[b"WGHT"]
        end = next(at for at, byte in enumerate(body) if byte < 128)
        base = with_chunk(base, b"WGHT", body[:end] + bytes([body[end] | 128, 0]) + body[end + 1 :])
    pixels, classes, n_classes = task_of(contents, seed)
    head = spec.convs[-1]
    code = FeatureCode.of(head.in_size**2, is_signed=contents.network.tensor(head.inputs[0]).zero_point != 0)
    codes = code.encode(ReferenceEngine(contents.network).features(pixels))
    meta = {"labels": {"names": [f"Kläße {i}" for i in range(n_classes)]}, "x": [1.0, 0.5, "a\n"]}
    old, positions = contents.network.convs[head.name], head.out_size**2
    levels = kept_levels(codes, code, old, positions) if seed % 4 > 1 else None
    fitted = fit_numpy(code.decode(codes), classes, n_classes, levels)
    vectors, right = code.decode(codes) << code.shift, fitted.scores.argmax(axis=1) == classes
    rule = fit_unknown(vectors, classes, counts=right).rule.encode() if seed % 2 else b""
    new = quantize_head(fitted, code, positions)
    expected = replace_head(base, contents, new if levels is None else joined(old, new), meta, rule)
    text, rule = plain_json(meta), b"auto" if rule else b""
    kept = 0 if levels is None else spec.num_classes
    (tmp_path / "base.sqz").write_bytes(base)
    (tmp_path / "task").write_bytes(
        struct.pack("<5I", len(classes), n_classes, kept, len(text), len(rule))
        + classes.astype("<i4").tobytes() + pixels.tobytes() + text + rule
    )  # fmt: skip
    command = ["node", NATIVE / "teach.mjs", PARTS / "engine.wasm", tmp_path / "base.sqz", tmp_path / "task"]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout == expected
    if levels is None:
        assert network_digest(expected, decode_sqz(expected)) == network_digest(base, contents)


def test_other_streams_and_features_stay_as_they_are():
    contents = SqzFile(network=random_network(tiny_spec(), seed=2))
    base = encode_sqz(contents)
    head = ConvParams(np.ones((7, 16, 1, 1), np.int8), np.arange(7, dtype=np.int32), np.full(7, 0.5, np.float32))
    made = replace_head(base, contents, head, {"labels": {"names": list("abcdefg")}})
    again = decode_sqz(made)
    assert again.network.spec == contents.network.spec.replace(num_classes=7, head_relu=False)
    assert again.labels == Labels(tuple("abcdefg"))
    np.testing.assert_array_equal(again.network.convs["conv4"].weight, head.weight)
    pixels = random_pixels(again.network.spec, 2)
    for engine in (ReferenceEngine, NativeEngine)[: 1 + bool(native_kernels())]:
        np.testing.assert_array_equal(
            engine(again.network).features(pixels), ReferenceEngine(contents.network).features(pixels)
        )
    assert network_digest(made, again) == network_digest(base, contents)
    other = SqzFile(network=random_network(tiny_spec(), seed=3))
    assert network_digest(encode_sqz(other), other) != network_digest(base, contents)
