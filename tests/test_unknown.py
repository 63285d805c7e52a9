"""The rule for "none of these": the same decision everywhere, and a rule made as docs/format.md says."""

import ctypes
import math
from fractions import Fraction

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec, unknown_rule
from squeezenet import Classifier, SqzFile
from squeezenet.errors import BadTable
from squeezenet.fileformat import decode_sqz, encode_sqz, with_facts
from squeezenet.native_library import load_library
from squeezenet.teaching.solver import FeatureCode
from squeezenet.unknown import UnknownRule, class_vectors, fit_unknown, roots, squared_cosines
from sqz_bytes import with_chunk

ODD = {"fires": tiny_spec().fires[:1] * 2, "bypass": "simple"}


class Rule(ctypes.Structure):
    """`sqz_unknown` of squeezenet.h."""

    _fields_ = [
        ("vectors", ctypes.c_char_p), ("count", ctypes.c_int), ("channels", ctypes.c_int),
        ("threshold", ctypes.c_uint32),
    ]  # fmt: skip


def is_unknown_in_c(rule, features):
    library = load_library()
    found = Rule(rule.encode()[3:], *rule.vectors.shape, rule.threshold)
    rows = np.ascontiguousarray(features, np.int32)
    return [bool(library.sqz_is_unknown(ctypes.byref(found), ctypes.c_void_p(row.ctypes.data))) for row in rows]


def products(f, v):
    return [sum(a * b for a, b in zip(*pair, strict=True)) for pair in ((f, v), (f, f), (v, v))]


def is_unknown_by_the_page(rule, row):
    for vector in rule.vectors.astype(int).tolist():
        d, n, s = products(row, vector)
        if d > 0 and Fraction(d * d, n * s) >= Fraction(rule.threshold, 65536):
            return False
    return True


@pytest.mark.parametrize("channels", [1, 2, 7, 16, 512])
@pytest.mark.skipif(load_library() is None, reason="the native engine was not built")
def test_c_and_numpy_decide_as_the_page_says(channels):
    rng = np.random.default_rng(channels)
    features = rng.integers(-1000, 4000, (60, channels))
    features[0] = 0
    features[1] = 1
    for count in (1, 3):
        vectors = rng.integers(0, 16, (count, channels), np.uint8)
        scores = squared_cosines(features, vectors).max(axis=1)
        near = np.clip(np.concatenate([scores[5:9], scores[5:9] + 1]), 0, 65535)
        for threshold in (0, 65535, *near.tolist()):
            rule = UnknownRule(vectors, threshold)
            expected = [is_unknown_by_the_page(rule, row) for row in features.tolist()]
            assert rule.is_unknown(features).tolist() == expected
            assert is_unknown_in_c(rule, features) == expected


@pytest.mark.skipif(load_library() is None, reason="the native engine was not built")
def test_the_largest_features_of_the_format_are_compared_exactly():
    # 2^27 elements on 1024 x 1024 positions leave 128 channels; one step of one number decides.
    features = np.full((2, 128), 255 << 20)
    features[1, 0] -= 1
    rule = UnknownRule(np.full((1, 128), 15, np.uint8), 65535)
    for row, threshold in ((features[:1], 65535), (features, 65535)):
        assert is_unknown_in_c(UnknownRule(rule.vectors, threshold), row) == rule.is_unknown(row).tolist()
    assert squared_cosines(features, rule.vectors)[:, 0].tolist() == [65536, 65535]


def test_rule_travels_in_the_file():
    for count, options in ((1, {}), (3, ODD), (64, {})):
        spec = tiny_spec(**options)
        contents = SqzFile(network=random_network(spec), unknown=unknown_rule(spec, count))
        read = decode_sqz(encode_sqz(contents)).unknown
        assert read.threshold == contents.unknown.threshold
        assert np.array_equal(read.vectors, contents.unknown.vectors)


def test_numbers_lie_two_in_a_byte():
    assert UnknownRule(np.array([[1, 2, 3], [15, 0, 9]], np.uint8), 258).encode().hex() == "020201" + "2103" + "0f09"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "expected 11 bytes, got 0"),
        (b"\0\1\1", "expected 1 to 64 vectors, got 0"),
        (b"\1\0\0" + bytes(7), "expected 11 bytes, got 10"),
        (b"\2\0\0" + bytes(8), "expected 19 bytes, got 11"),
        (bytes([65, 0, 0]) + bytes(65 * 8), "expected 1 to 64 vectors"),
    ],
)
def test_malformed_rules_are_refused(body, reason):
    spec = tiny_spec()
    data = encode_sqz(SqzFile(network=random_network(spec), unknown=unknown_rule(spec, 1)))
    with pytest.raises(BadTable, match=reason):
        decode_sqz(with_chunk(data, b"unkn", body))


def test_the_half_byte_after_an_odd_vector_is_zero():
    assert UnknownRule.decode(b"\1\0\0\x21\x03", 3).vectors.tolist() == [[1, 2, 3]]
    with pytest.raises(BadTable, match="zeros after the last number"):
        UnknownRule.decode(b"\1\0\0\x21\x13", 3)


@pytest.mark.parametrize(
    ("vectors", "threshold"),
    [
        (np.zeros((0, 4), np.uint8), 0), (np.zeros((65, 4), np.uint8), 0), (np.zeros((1, 4), np.int8), 0),
        (np.full((1, 4), 16, np.uint8), 0), (np.zeros((1, 4), np.uint8), 65536), (np.zeros((1, 4), np.uint8), -1),
    ],
)  # fmt: skip
def test_rules_that_no_file_can_hold_are_refused(vectors, threshold):
    with pytest.raises(BadTable, match="unknown rule"):
        UnknownRule(vectors, threshold)


def test_rule_of_another_width_is_refused():
    with pytest.raises(BadTable, match="unknown rule for 16 features, got 18"):
        SqzFile(network=random_network(tiny_spec()), unknown=UnknownRule(np.ones((1, 18), np.uint8), 1))


def test_rule_is_added_to_a_file_whose_weights_stay():
    spec = tiny_spec()
    plain = encode_sqz(SqzFile(network=random_network(spec), facts={"unknown_below": 0.5}))
    changed = with_facts(plain, unknown=unknown_rule(spec, 2), unknown_below=None, temperature=0.5)
    read = decode_sqz(changed)
    assert (read.unknown_below, read.temperature, len(read.unknown.vectors)) == (None, 0.5, 2)
    assert decode_sqz(with_facts(changed, temperature=None)).unknown is not None


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_rule_decides_what_a_classifier_answers(engine):
    if engine == "native" and load_library() is None:
        pytest.skip("the native engine was not built")
    spec = tiny_spec()
    network, pixels = random_network(spec), random_pixels(spec, 12)
    features = Classifier(SqzFile(network=network), engine=engine).engine.features(pixels)
    vectors = class_vectors(roots(features[:1]))
    rule = UnknownRule(vectors, int(np.median(squared_cosines(features, vectors))) + 1)
    classifier = Classifier(SqzFile(network=network, unknown=rule, facts={"unknown_below": 1.0}), engine=engine)
    answers = classifier.answers([str(i) for i in range(12)], classifier.outputs(pixels))
    found = [answer.is_unknown for answer in answers]
    assert found == rule.is_unknown(features).tolist()
    assert 0 < sum(found) < 12


def test_rule_is_made_as_the_page_says():
    rng = np.random.default_rng(3)
    centres = rng.integers(0, 900, (3, 10)) ** 2
    labels = np.repeat([0, 2, 5], [1, 20, 9])  # class numbers with gaps, one with a single photo
    features = centres[np.searchsorted([0, 2, 5], labels)] + rng.integers(-20_000, 120_000, (30, 10))
    fit = fit_unknown(features, labels)
    unit = [
        [math.isqrt(max(x, 0) * 32768 // math.isqrt(sum(x * x for x in row)) * 32768) for x in row]
        for row in features.tolist()
    ]

    def vector(rows):
        sums = [sum(column) for column in zip(*rows, strict=True)] if rows else [0] * 10
        return [(30 * (x * 32768 // max(1, *sums)) ** 2 + 2**30) // 2**31 for x in sums]

    def score(row, vectors):
        best = -1
        for v in vectors:
            d, n, s = products(row, v)
            best = max(best, d * d * 65536 // (n * s)) if d > 0 else best
        return best

    members = [[u for u, label in zip(unit, labels, strict=True) if label == k] for k in (0, 2, 5)]
    assert fit.rule.vectors.tolist() == [vector(rows) for rows in members]
    scores = []
    for row, u in zip(features.tolist(), unit, strict=True):
        scores.append(score(row, [vector([other for other in rows if other is not u]) for rows in members]))
    assert fit.rule.threshold == sorted(scores)[30 * 5 // 100]
    assert fit.kept == pytest.approx(100 * 29 / 30)


class Novelty(ctypes.Structure):
    """`sqz_novelty` of squeezenet.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "labels", "counts", "foreign_codes")),
        *((name, ctypes.c_size_t) for name in ("photos", "foreign")),
        *((name, ctypes.c_int) for name in ("channels", "classes", "shift", "is_signed")),
    ]  # fmt: skip


def fit_in_c(codes, labels, code, counts=None, foreign=None):
    library, (photos, channels) = load_library(), codes.shape
    arrays = [np.ascontiguousarray(codes), np.ascontiguousarray(labels, np.int32), counts, foreign]
    where = [None if array is None else np.ascontiguousarray(array).ctypes.data for array in arrays]
    classes = int(labels.max()) + 1
    task = Novelty(
        *where, photos, 0 if foreign is None else len(foreign), channels, classes, code.shift, code.is_signed
    )
    library.sqz_novelty_bytes.restype = library.sqz_fit_unknown.restype = ctypes.c_size_t
    memory = np.empty(library.sqz_novelty_bytes(ctypes.byref(task)), np.uint8)
    body = np.empty(3 + classes * ((channels + 1) // 2), np.uint8)
    places = [ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes), ctypes.c_void_p(body.ctypes.data)]
    return body[: library.sqz_fit_unknown(ctypes.byref(task), *places)].tobytes()


@pytest.mark.skipif(load_library() is None, reason="the native engine was not built")
def test_c_makes_the_same_rule():
    rng = np.random.default_rng(7)
    for task in range(30):
        channels, classes = int(rng.integers(1, 40)), int(rng.integers(1, 9))
        labels = np.sort(np.concatenate([np.arange(classes), rng.integers(0, classes, rng.integers(0, 60))]))
        code = FeatureCode(int(rng.integers(0, 13)), bool(task % 2))
        centres = rng.integers(0, 256, (classes, channels))
        codes = np.clip(centres[labels] + rng.normal(0, 30, (len(labels), channels)), 0, 255).astype(np.uint8)
        if task % 5 == 4:
            labels = 2 * labels + 1  # classes without photos
        strange = rng.integers(0, 256, (20, channels), np.uint8) if task % 3 else None
        counts = rng.random(len(labels)) < (0.8 if task % 4 else 0.0) if task % 7 else None
        vectors = [None if part is None else code.decode(part) << code.shift for part in (codes, strange)]
        expected = fit_unknown(vectors[0], labels, counts=counts, foreign=vectors[1]).rule.encode()
        found = fit_in_c(codes, labels, code, None if counts is None else counts.astype(np.uint8), strange)
        assert found.hex() == expected.hex(), task


def test_foreign_photos_lower_the_threshold_at_most():
    rng = np.random.default_rng(0)
    own = np.array([1000, 500, 10, 10]) + rng.integers(0, 300, (100, 4))
    own[:4] = [[900, 0, 500, 0]] * 4  # outliers that 95 % would shut out
    foreign = np.array([0, 10, 1000, 900]) + rng.integers(0, 200, (50, 4))
    plain, helped = fit_unknown(own, np.zeros(100, int)), fit_unknown(own, np.zeros(100, int), foreign=foreign)
    assert (plain.n_foreign, plain.foreign_caught) == (0, None)
    assert helped.rule.threshold < plain.rule.threshold
    assert (helped.kept, helped.foreign_caught) == (100, 100)
    assert plain.rule.is_unknown(foreign).all()


def test_threshold_is_chosen_by_the_right_answers_alone():
    own = np.tile([[1000, 10]], (40, 1))
    own[:20] = [[10, 1000]]
    labels = np.repeat([0, 1], 20)
    own[5] = [700, 700]
    counts = np.arange(40) != 5
    assert fit_unknown(own, labels).rule.threshold == fit_unknown(own, labels, counts=np.zeros(40, bool)).rule.threshold
    assert fit_unknown(own, labels, counts=counts).kept == 100
    judged = fit_unknown(own[:5], labels[:5], judged=own[20:])
    assert judged.n_images == 20


def test_no_rule_without_photos_or_for_many_classes():
    assert fit_unknown(np.empty((0, 4), int), np.empty(0, int)) is None
    assert fit_unknown(np.ones((65, 4), int), np.arange(65)) is None
    one = fit_unknown(np.array([[3, 0, 4]]), np.array([7]))
    assert (one.rule.vectors.tolist(), one.rule.threshold) == ([[11, 0, 15]], 0)
