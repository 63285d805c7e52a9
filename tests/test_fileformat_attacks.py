"""Hostile files: one builder a malformation, each with its own error; then truncations, bit flips and fuzzing."""

import hashlib
import io
import json
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from networks import random_network, tiny_spec
from squeezenet.errors import (
    BadMagic,
    BadTable,
    ChecksumMismatch,
    FormatError,
    LimitExceeded,
    Truncated,
    UnsupportedVersion,
)
from squeezenet.fileformat import Limits, SqzFile, decode_sqz, encode_sqz, stream_bytes
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing
from squeezenet.spec import FireSpec, StemSpec
from sqz_bytes import SIGNATURE, chunk, join, split, with_chunk, with_meta

NAMED_ERRORS = (BadMagic, BadTable, ChecksumMismatch, LimitExceeded, Truncated, UnsupportedVersion)
SMALL_SPEC = tiny_spec(
    stem=StemSpec(channels=2, kernel=3, stride=2),
    fires=(FireSpec(squeeze_channels=2, expand1x1_channels=2, expand3x3_channels=2),),
    pools=(),
    num_classes=3,
)
GOOD = encode_sqz(
    SqzFile(
        network=random_network(SMALL_SPEC, density=0.5),
        labels=Labels(("a", "b", "c")),
        preprocessing=Preprocessing(crop_size=16, resize_size=16),
    )
)
ARCH, WGHT, META = (dict(split(GOOD))[kind] for kind in (b"ARCH", b"WGHT", b"META"))
FLAGS_AT, CHANNELS_AT, FIRES_AT, POOLS_AT, NAME_AT, TENSORS_AT = 5, 6, 12, 18, 19, 24


def with_arch(offset, replacement):
    return with_chunk(GOOD, b"ARCH", ARCH[:offset] + replacement + ARCH[offset + len(replacement) :])


def chunks(*changes):
    return join([(b"ARCH", ARCH), (b"WGHT", WGHT), (b"META", META), *changes])


def raw_chunk(length, kind=b"ARCH"):
    """A file whose first chunk claims a length that it does not have."""
    return SIGNATURE + struct.pack("<I4s", length, kind) + bytes(200)


def pickled():
    class Bomb:
        def __reduce__(self):
            return print, ("this must never run",)

    return pickle.dumps(Bomb())


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
    return buffer.getvalue()


def without_hash():
    return GOOD[: -12 - 32]


def test_offsets_of_this_file_point_where_they_say():
    assert ARCH[CHANNELS_AT : CHANNELS_AT + 2] == struct.pack("<H", 2)
    assert ARCH[FIRES_AT : FIRES_AT + 6] == struct.pack("<HHH", 2, 2, 2)
    assert ARCH[POOLS_AT] == 0
    assert ARCH[NAME_AT : NAME_AT + 5] == b"\x04tiny"
    assert len(ARCH) - TENSORS_AT == 4 * 5


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        # Other files.
        (b"", Truncated, "ends after 0 bytes, inside its signature"),
        (SIGNATURE[:7], Truncated, "ends after 7 bytes, inside its signature"),
        (zipped(), BadMagic, "expected a .sqz file, got one that starts with b'PK"),
        (pickled(), BadMagic, "expected a .sqz file"),
        (b"<!DOCTYPE html><html>404</html>", BadMagic, "starts with b'<!DOCTYP'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", BadMagic, "a Git LFS pointer: run `git lfs pull`"),
        (b"\x89PNG\r\n\x1a\n", BadMagic, "PNG"),
        (GOOD.replace(b"\r\n", b"\n"), BadMagic, "expected a .sqz file"),  # a text-mode transfer
        # Frames.
        (SIGNATURE, Truncated, "before its HASH chunk"),
        (without_hash(), Truncated, "before its HASH chunk"),
        (raw_chunk(0xFFFFFFFF), Truncated, "has 4294967295 bytes"),
        (raw_chunk(0x7FFFFFFF), Truncated, "has 2147483647 bytes"),
        (raw_chunk(0), ChecksumMismatch, "chunk 'ARCH' at byte 8 is damaged"),
        (GOOD + b"\0", BadTable, "got 1 more bytes"),
        (GOOD + chunk(b"more", b""), BadTable, "got 12 more bytes"),
        (GOOD + GOOD, BadTable, "more bytes"),
        (join([(b"WGHT", WGHT), (b"ARCH", ARCH)]), BadTable, "in this order, got ['WGHT', 'ARCH', 'HASH']"),
        (join([(b"ARCH", ARCH), (b"META", META), (b"WGHT", WGHT)]), BadTable, "in this order"),
        (join([(b"META", META), (b"ARCH", ARCH), (b"WGHT", WGHT)]), BadTable, "in this order"),
        (join([]), BadTable, "expected the chunks ARCH, WGHT"),
        (join([(b"ARCH", ARCH)]), BadTable, "expected the chunks ARCH, WGHT"),
        (join([(b"WGHT", WGHT)]), BadTable, "expected the chunks ARCH, WGHT"),
        (join([(b"arch", ARCH), (b"WGHT", WGHT)]), BadTable, "expected the chunks ARCH, WGHT"),
        (chunks((b"ARCH", ARCH)), BadTable, "expected one chunk 'ARCH', got a second"),
        (chunks((b"WGHT", WGHT)), BadTable, "expected one chunk 'WGHT', got a second"),
        (chunks((b"META", META)), BadTable, "expected one chunk 'META', got a second"),
        (chunks((b"xtra", b""), (b"xtra", b"")), BadTable, "expected one chunk 'xtra', got a second"),
        (chunks((b"XTRA", b"")), UnsupportedVersion, "critical chunk 'XTRA'"),
        (chunks((b"x\x1b[m", b"")), BadTable, "got 'x\\x1b[m'"),
        (chunks((b"x\xe9ab", b"")), BadTable, "a chunk type of four letters"),
        (chunks((b"\0\0\0\0", b"")), BadTable, "a chunk type of four letters"),
        (SIGNATURE + chunk(b"HASH", b""), ChecksumMismatch, "SHA-256 does not match"),
        (SIGNATURE + chunk(b"HASH", bytes(32)), ChecksumMismatch, "SHA-256 does not match"),
        (
            SIGNATURE + chunk(b"HASH", hashlib.sha256(SIGNATURE).digest() + b"\0"),
            ChecksumMismatch,
            "SHA-256 does not match",
        ),
        (without_hash() + chunk(b"HASH", hashlib.sha256(GOOD).digest()), ChecksumMismatch, "SHA-256"),
        # ARCH: versions, sizes, counts.
        (with_arch(0, b"\x03"), UnsupportedVersion, "expected a format version up to 2, got 3: upgrade squeezenet"),
        (with_arch(0, b"\0"), UnsupportedVersion, "expected a format version up to 2, got 0"),
        (with_arch(0, b"\x02"), BadTable, "WGHT: expected 79 bytes, got 157"),
        (with_chunk(GOOD, b"ARCH", b"\x03"), UnsupportedVersion, "got 3"),
        (with_chunk(GOOD, b"ARCH", b""), Truncated, "ARCH: expected 12 bytes at byte 0, got 0 in all"),
        (with_chunk(GOOD, b"ARCH", ARCH[:-1]), Truncated, "ARCH: expected 5 bytes at byte"),
        (with_chunk(GOOD, b"ARCH", ARCH + b"\0"), BadTable, "ARCH: expected"),
        (with_arch(1, b"\0\0"), BadTable, "`input_size` from 1 to 1024, got 0"),
        (with_arch(1, b"\xff\xff"), BadTable, "`input_size` from 1 to 1024, got 65535"),
        (with_arch(1, b"\x02\0"), BadTable, "nothing is left after conv1"),
        (with_arch(3, b"\0\0"), BadTable, "`num_classes` from 1 to 65535, got 0"),
        (with_arch(FLAGS_AT, b"\x30"), BadTable, "ARCH: expected flags below 48, got 48"),
        (with_arch(FLAGS_AT, b"\xff"), BadTable, "ARCH: expected flags below 48, got 255"),
        (with_arch(CHANNELS_AT, b"\xff\xff"), BadTable, "`stem.channels` from 1 to 4096, got 65535"),
        (with_arch(8, b"\xff"), BadTable, "`stem.kernel` from 1 to 11, got 255"),
        (with_arch(9, b"\0"), BadTable, "`stem.stride` from 1 to 4, got 0"),
        (with_arch(10, b"\xff"), BadTable, "`stem.padding` from 0 to 1, got 255"),
        (with_arch(11, b"\0"), BadTable, "`number of fires` from 1 to 64, got 0"),
        (with_arch(11, b"\xff"), Truncated, "ARCH: expected 6 bytes"),
        (with_arch(12, b"\xff\xff"), BadTable, "`fire2.squeeze_channels` from 1 to 4096, got 65535"),
        (with_arch(12, b"\0\x10" * 3), BadTable, "`fire2 width` from 1 to 4096, got 8192"),
        (with_arch(POOLS_AT, b"\xff"), Truncated, "ARCH: expected 255 bytes"),
        (with_arch(NAME_AT, b"\x41"), BadTable, "ARCH: expected a name of at most 64 bytes, got 65"),
        (with_arch(NAME_AT, b"\x40"), Truncated, "ARCH: expected 64 bytes"),
        (with_arch(NAME_AT + 1, b"\xff"), BadTable, "ARCH: expected a name in UTF-8"),
        # Activation scales.
        *(
            (with_arch(TENSORS_AT + 5 * tensor, struct.pack("<f", value)), BadTable, "a float32 scale from 2^-40")
            for tensor, value in enumerate((float("nan"), float("inf"), -1.0, 0.0))
        ),
        (with_arch(TENSORS_AT, struct.pack("<f", 1e-45)), BadTable, "a float32 scale from 2^-40"),
        (with_arch(TENSORS_AT, struct.pack("<f", -float("inf"))), BadTable, "a float32 scale from 2^-40"),
        (with_arch(TENSORS_AT + 5 + 4, b"\x01"), BadTable, "conv1: expected the zero-point 0 after a ReLU"),
        # WGHT: stream lengths.
        (with_chunk(GOOD, b"WGHT", b""), Truncated, "WGHT: expected 1 bytes at byte 0, got 0 in all"),
        (with_chunk(GOOD, b"WGHT", WGHT[:-1]), Truncated, "WGHT: expected"),
        (with_chunk(GOOD, b"WGHT", WGHT + b"\0"), BadTable, "WGHT: expected"),
        (with_chunk(GOOD, b"WGHT", b"\xff" * 5), BadTable, "WGHT: expected a length of at most five bytes at byte 5"),
        (with_chunk(GOOD, b"WGHT", b"\xff" * 4), Truncated, "WGHT: expected 1 bytes at byte 4"),
        (with_chunk(GOOD, b"WGHT", b"\xff\xff\xff\xff\x7f" * 5), Truncated, "WGHT: expected 34359738367 bytes"),
        # META.
        (with_chunk(GOOD, b"META", b""), BadTable, "META: expected one complete deflate stream"),
        (with_chunk(GOOD, b"META", META[:-1]), BadTable, "META: expected one complete deflate stream"),
        (with_chunk(GOOD, b"META", META + b"\0"), BadTable, "META: expected one complete deflate stream"),
        (with_chunk(GOOD, b"META", b"no deflate"), BadTable, "META: expected deflated JSON in UTF-8"),
        (with_chunk(GOOD, b"META", zlib.compress(bytes(100 << 20))), LimitExceeded, "META: expected at most 4194304"),
        (with_meta(GOOD, b'"\xff"'), BadTable, "META: expected deflated JSON in UTF-8"),
        (with_meta(GOOD, "{"), BadTable, "META: expected deflated JSON in UTF-8"),
        (with_meta(GOOD, ""), BadTable, "META: expected deflated JSON in UTF-8"),
        (with_meta(GOOD, "{} {}"), BadTable, "META: expected deflated JSON in UTF-8"),
        (with_meta(GOOD, "[]"), BadTable, "META: expected a JSON object, got list"),
        (with_meta(GOOD, "null"), BadTable, "META: expected a JSON object, got NoneType"),
        (with_meta(GOOD, '{"x": NaN}'), BadTable, "META: expected finite numbers, got nan"),
        (with_meta(GOOD, '{"x": -Infinity}'), BadTable, "META: expected finite numbers, got -inf"),
        (with_meta(GOOD, '{"x": 1e999}'), BadTable, "META: expected finite numbers, got inf"),
        (with_meta(GOOD, '{"x": ' + "9" * 5000 + "}"), BadTable, "META: expected deflated JSON"),
        (with_meta(GOOD, '{"x": "\\ud800"}'), BadTable, "META: expected text in Unicode"),
        (with_meta(GOOD, '{"x": 1, "x": 1}'), BadTable, "META: expected each key of an object once"),
        (with_meta(GOOD, '{"labels": {"names": [], "names": []}}'), BadTable, "META: expected each key of an object"),
        (with_meta(GOOD, '{"x":' * 33 + "1" + "}" * 33), LimitExceeded, "META: expected at most 32 levels of nesting"),
        (with_meta(GOOD, "[" * 100_000 + "]" * 100_000), LimitExceeded, "META: expected at most 32 levels of nesting"),
        (with_meta(GOOD, {"labels": {"names": ["a"] * 4}}), BadTable, "expected 3 labels, got 4"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else ascii(value)[:30],
)  # fmt: skip
def test_malformation_has_its_own_error(data, error, message):
    with pytest.raises(FormatError) as caught:
        decode_sqz(data)
    assert (type(caught.value), message in str(caught.value)) == (error, True), str(caught.value)


def arch_bomb(**fields):
    """Header of a network far larger than the streams that follow it."""
    settings = {"input_size": 1024, "classes": 10, "channels": 4096, "kernel": 11, "fire": (4096, 2048, 2048), "n": 1}
    settings.update(fields)
    head = struct.pack("<BHHBHBBBB", 1, settings["input_size"], settings["classes"], 7, settings["channels"],
                       settings["kernel"], 4, 0, settings["n"])  # fmt: skip
    tail = b"\0\x01x" + struct.pack("<fB", 1.0, 0) * (2 + 2 * settings["n"])
    return with_chunk(GOOD, b"ARCH", head + struct.pack("<HHH", *settings["fire"]) * settings["n"] + tail)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (arch_bomb(), BadTable, "expected at most 16777216 parameters"),
        (arch_bomb(n=64), BadTable, "expected at most 16777216 parameters"),
        (arch_bomb(classes=65535, channels=4, fire=(1, 128, 128)), BadTable, "expected at most 16777216 parameters"),
        (
            arch_bomb(classes=65535, channels=4, fire=(1, 64, 64), input_size=512, kernel=1),
            BadTable,
            "expected at most 134217728 activations",
        ),
        (arch_bomb(channels=3000, kernel=1, fire=(1, 1, 1)), BadTable, "expected at most 134217728 activations"),
        (arch_bomb(channels=64, fire=(512, 200, 800)), BadTable, "multiply-accumulates"),
        (raw_chunk(0xFFFFFFFF), Truncated, "has 4294967295 bytes"),
        (with_chunk(GOOD, b"WGHT", b"\xff\xff\xff\xff\x7f" * 5), Truncated, "expected 34359738367 bytes"),
        (with_chunk(GOOD, b"META", zlib.compress(bytes(200 << 20))), LimitExceeded, "once inflated"),
        (with_meta(GOOD, "[" * 3_000_000), LimitExceeded, "nesting"),
        # 15 million weights that are there in name only: their streams are cut short at once.
        (
            with_chunk(arch_bomb(channels=8, kernel=1, fire=(1300, 1, 1300), input_size=64), b"WGHT", bytes(4)),
            Truncated,
            "WGHT",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else ascii(value)[:30],
)  # fmt: skip
def test_bombs_are_refused_before_they_cost_anything(data, error, message):
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(error, match=message):
        decode_sqz(data)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20  # the metadata limit is 4 MiB, and inflating holds it about twice
    assert seconds < 5


def test_many_small_chunks_are_refused():
    extra = [(bytes([97, 65 + i // 26, 65 + i % 26, 65]), b"") for i in range(100)]
    with pytest.raises(LimitExceeded, match="expected at most 64 chunks"):
        decode_sqz(chunks(*extra))


def test_unknown_ancillary_chunks_are_passed_over():
    expected = decode_sqz(GOOD)
    extended = chunks((b"note", b"anything"), (b"more", bytes(1000)))
    assert decode_sqz(extended).labels == expected.labels
    in_between = join([(b"note", b"x"), (b"ARCH", ARCH), (b"more", b""), (b"WGHT", WGHT), (b"META", META)])
    assert decode_sqz(in_between).facts == expected.facts
    assert sum(stream_bytes(extended).values()) == len(extended)


def test_every_truncation_is_refused():
    for length in range(len(GOOD)):
        with pytest.raises(Truncated):
            decode_sqz(GOOD[:length])


def test_every_bit_flip_is_refused():
    """None is read, so none can change a prediction."""
    seen = set()
    for position in range(8 * len(GOOD)):
        flipped = bytearray(GOOD)
        flipped[position >> 3] ^= 1 << (position & 7)
        with pytest.raises(FormatError) as caught:
            decode_sqz(bytes(flipped))
        seen.add(type(caught.value))
    assert seen == {BadMagic, ChecksumMismatch, Truncated}


def test_bit_flips_with_mended_checksums_are_read_or_refused_by_name():
    """Checksums only guard against accidents: the decoders behind them must stand on their own."""
    outcomes = {"read": 0, "refused": 0}
    for kind, body in split(GOOD):
        for position in range(0, 8 * len(body), 1 if kind == b"ARCH" else 5):  # 5: every bit of a byte, in turn
            flipped = bytearray(body)
            flipped[position >> 3] ^= 1 << (position & 7)
            outcomes[outcome_of(with_chunk(GOOD, kind, bytes(flipped)), rewrite=kind == b"META")] += 1
    assert outcomes["refused"] > 300
    assert outcomes["read"] > 50


def test_every_truncation_of_a_chunk_is_refused_by_name():
    for kind, body in split(GOOD):
        for length in range(len(body)):
            with pytest.raises(NAMED_ERRORS):
                decode_sqz(with_chunk(GOOD, kind, body[:length]), SMALL_LIMITS)


SMALL_LIMITS = Limits(weights=20_000, meta_bytes=10_000)


def decode_in_python(data):
    with mock.patch("squeezenet.codec.native_weights.load_library", return_value=None):
        return decode_sqz(data, SMALL_LIMITS)


def outcome_of(data, *, rewrite=True):
    """Decode under small limits; any exception but a named FormatError is a failure.

    Where the compiled decoder is there, it and the Python one must come to the same end.
    """
    try:
        read = decode_sqz(data, SMALL_LIMITS)
    except NAMED_ERRORS as error:
        with pytest.raises(type(error)):
            decode_in_python(data)
        return "refused"
    for name, params in decode_in_python(data).network.convs.items():
        for field, values in vars(params).items():
            np.testing.assert_array_equal(values, getattr(read.network.convs[name], field), err_msg=name)
    # What was read must be usable: it can be shown, and written again.
    json.dumps(dict(read.facts), allow_nan=False).encode()
    if not rewrite:
        return "read"
    assert decode_sqz(encode_sqz(read), SMALL_LIMITS).network.spec == read.network.spec
    return "read"


def test_seeded_byte_noise_is_read_or_refused_by_name():
    rng = random.Random(0)
    for _ in range(500):
        kind, body = rng.choice(split(GOOD))
        noisy = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            action, position = rng.randrange(3), rng.randrange(len(noisy))
            if action == 0:
                noisy[position] = rng.randrange(256)
            elif action == 1:
                noisy.insert(position, rng.randrange(256))
            elif len(noisy) > 1:
                del noisy[position]
        outcome_of(with_chunk(GOOD, kind, bytes(noisy)))


FUZZ = settings(max_examples=80, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.too_slow])  # fmt: skip


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(data):
    with pytest.raises(NAMED_ERRORS):
        decode_sqz(data)
    with pytest.raises(NAMED_ERRORS):
        decode_sqz(SIGNATURE + data)


@FUZZ
@given(st.lists(st.tuples(st.sampled_from([b"ARCH", b"WGHT", b"META", b"note", b"HASH"]), st.binary(max_size=60))))
def test_any_chunks_are_refused_by_name(parts):
    with pytest.raises(NAMED_ERRORS):
        decode_sqz(join(parts), SMALL_LIMITS)


@FUZZ
@given(st.binary(max_size=40), st.integers(0, len(ARCH)), st.integers(0, 20))
def test_any_arch_is_read_or_refused_by_name(patch, at, skip):
    outcome_of(with_chunk(GOOD, b"ARCH", ARCH[:at] + patch + ARCH[at + skip :]))


@FUZZ
@given(st.binary(max_size=60), st.integers(0, len(WGHT)), st.integers(0, 60))
def test_any_weights_are_read_or_refused_by_name(patch, at, skip):
    outcome_of(with_chunk(GOOD, b"WGHT", WGHT[:at] + patch + WGHT[at + skip :]))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@FUZZ
@given(
    st.dictionaries(st.sampled_from(["labels", "preprocessing", "x", ""]), PLAIN, max_size=3)
    | st.fixed_dictionaries({"labels": st.fixed_dictionaries({}, optional={k: PLAIN for k in ("names", "ids", "set")})})
    | st.fixed_dictionaries(
        {
            "preprocessing": st.fixed_dictionaries(
                {"crop_size": st.just(16), "resize_size": st.just(16) | PLAIN},
                optional={key: PLAIN for key in ("resize_mode", "resample", "mean", "std")},
            )
        }
    )
)
def test_any_metadata_are_read_or_refused_by_name(meta):
    outcome_of(with_meta(GOOD, meta))


@FUZZ
@given(st.binary(max_size=100))
def test_any_metadata_bytes_are_refused_by_name(data):
    outcome_of(with_chunk(GOOD, b"META", data))
    outcome_of(with_meta(GOOD, data))


def test_a_mended_flip_can_be_read_at_all():
    # Guards the two tests above against a file that is refused for some reason of its own.
    assert outcome_of(GOOD) == "read"
    np.testing.assert_array_equal(
        decode_sqz(GOOD).network.convs["conv1"].weight, random_network(SMALL_SPEC, density=0.5).convs["conv1"].weight
    )
