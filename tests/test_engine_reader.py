"""The C reader takes what the Python reader takes, and refuses what it refuses."""

import ctypes
import dataclasses

import numpy as np
import pytest

from fixture_files import in_parts
from lockstep import Header, compare, verdict_c, verdict_python
from networks import random_network, tiny_spec
from squeezenet.codec.native_weights import decode_convs_fast
from squeezenet.codec.weights import decode_convs, encode_convs
from squeezenet.errors import FormatError, SpecError
from squeezenet.fileformat import SqzFile, encode_sqz
from squeezenet.labels import Labels
from squeezenet.native_library import Options, Sizes, Spec, load_library
from squeezenet.spec import FireSpec, StemSpec
from sqz_bytes import split, with_chunk

library = load_library()
if library is None:
    pytest.skip("needs the native engine: no C compiler was found at installation", allow_module_level=True)

BAD_MAGIC, TRUNCATED, CHECKSUM, VERSION, LIMIT, BAD_TABLE = range(1, 7)


def load(data: bytes) -> int:
    """Status of reading a whole file in C."""
    header, sizes, model = Header(), Sizes(), ctypes.c_void_p()
    status = library.sqz_read_header(data, ctypes.c_size_t(len(data)), None, ctypes.byref(header))
    if status:
        return status
    assert library.sqz_measure(header.spec, None, sizes) == 0
    memory, scratch = np.empty(sizes.model_bytes, np.uint8), np.empty(sizes.load_bytes, np.uint8)
    assert library.sqz_create(header.spec, None, memory.ctypes.data, memory.nbytes, model) == 0
    return library.sqz_load(
        model, ctypes.byref(header), data, ctypes.c_void_p(scratch.ctypes.data), ctypes.c_size_t(scratch.nbytes)
    )


@pytest.fixture(scope="module")
def file() -> bytes:
    labels = Labels(tuple("abcde"))
    return encode_sqz(SqzFile(network=random_network(tiny_spec(bypass="complex"), max_weight=9), labels=labels))


def outcome(decode, network, streams):
    """What a decoder makes of streams: integers, or the kind of error."""
    try:
        convs = decode(network.spec.convs, streams)
    except FormatError as error:
        return type(error)
    return [
        getattr(convs[op.name], field).tobytes()
        for op in network.spec.convs
        for field in ("weight", "bias", "multiplier")
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bypass": "complex", "stem": StemSpec(channels=5, kernel=5, stride=2)},
        {"stem": StemSpec(channels=3, kernel=11, stride=4), "num_classes": 40},
    ],
)
@pytest.mark.parametrize("max_weight", [1, 3, 127])
def test_streams_decode_to_the_same_integers(options, max_weight):
    network = random_network(tiny_spec(**options), max_weight=max_weight, density=0.6)
    streams = encode_convs(network.spec.convs, network.convs)
    decoded = outcome(decode_convs_fast, network, streams)
    assert decoded == outcome(lambda *_: network.convs, network, streams)


def test_a_network_of_similar_classes_decodes_to_the_same_integers():
    network = random_network(tiny_spec(num_classes=60), max_weight=60)
    head = network.convs["conv4"]
    weight = head.weight.copy()
    weight[30:] = weight[rng_rows(30)]  # classes that repeat others, in another order: rows name their references
    network = dataclasses.replace(network, convs={**network.convs, "conv4": dataclasses.replace(head, weight=weight)})
    streams = encode_convs(network.spec.convs, network.convs)
    assert outcome(decode_convs_fast, network, streams) == outcome(lambda *_: network.convs, network, streams)


def rng_rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(count)


def test_the_page_of_the_coding_has_the_same_vectors():
    from test_codec_vectors import FIRST, OPS, SECOND, vector_convs

    convs = decode_convs_fast(OPS, [FIRST, SECOND])
    for name, expected in vector_convs().items():
        np.testing.assert_array_equal(convs[name].weight, expected.weight)
        np.testing.assert_array_equal(convs[name].bias, expected.bias)
        np.testing.assert_array_equal(convs[name].multiplier, expected.multiplier)


def test_damaged_streams_end_as_they_do_in_python():
    network = random_network(tiny_spec(), max_weight=20, density=0.5)
    streams = encode_convs(network.spec.convs, network.convs)
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(120):
        which = int(rng.integers(len(streams)))
        damaged = bytearray(streams[which])
        if rng.random() < 0.2:
            damaged = damaged[: rng.integers(len(damaged))]
        for _ in range(rng.integers(0, 3)):
            if damaged:
                damaged[rng.integers(len(damaged))] = rng.integers(256)
        trial = [*streams[:which], bytes(damaged), *streams[which + 1 :]]
        expected = outcome(decode_convs, network, trial)
        assert outcome(decode_convs_fast, network, trial) == expected
        kinds.add(expected if isinstance(expected, type) else "integers")
    assert len(kinds) >= 2


def test_every_prefix_is_refused(file):
    assert load(file) == 0
    for length in range(len(file)):
        assert load(file[:length]) == TRUNCATED


def test_every_flipped_bit_is_refused(file):
    for position in range(0, len(file)):
        damaged = bytearray(file)
        damaged[position] ^= 1 << position % 8
        assert load(bytes(damaged)) != 0


def test_other_files_are_refused_by_name(file):
    assert load(b"PK\x03\x04" + file) == BAD_MAGIC
    assert load(file + b"\0") == BAD_TABLE
    assert load(file.replace(b"META", b"METB")) == CHECKSUM


def test_both_readers_refuse_the_same_files_with_the_same_error():
    found = compare(4000, seed=0)
    assert all(found.values()), found  # every error was met


def test_c_refuses_what_the_format_forbids():
    network = random_network(tiny_spec(name="x"))
    good = encode_sqz(SqzFile(network=network))
    arch = dict(split(good))[b"ARCH"]
    name = arch.index(b"\x01x")
    long = with_chunk(good, b"ARCH", arch[:name] + b"\xc8" + b"n" * 200 + arch[name + 2 :])
    zero = name + 2 + 5 + 4  # conv1's zero-point, behind the input's five bytes and a scale
    after_relu = with_chunk(good, b"ARCH", arch[:zero] + b"\x4d" + arch[zero + 1 :])
    for data in (long, after_relu):
        assert (verdict_c(data), verdict_python(data, own_decoder=True)) == ("BadTable", "BadTable")
    assert verdict_c(good) == "read"


@pytest.mark.parametrize(("input_size", "is_within"), [(96, True), (97, False)])
def test_both_bound_the_multiply_accumulates_at_2_to_the_37(input_size, is_within):
    fires = (FireSpec(squeeze_channels=330, expand1x1_channels=2048, expand3x3_channels=2048),) * 2
    stem = StemSpec(channels=16, kernel=3, stride=1, padding=1)
    spec = Spec(input_size=input_size, num_classes=5, stem_channels=16, stem_kernel=3, stem_stride=1, stem_padding=1)
    spec.n_fires, spec.n_tensors = 2, 6
    for index in range(2):
        spec.fires[index] = (330, 2048, 2048)
    for index in range(6):
        spec.tensors[index] = (1.0, 0)
    sizes = Sizes()
    assert library.sqz_measure(spec, Options(b"scalar"), sizes) == (0 if is_within else BAD_TABLE)
    if is_within:
        named = tiny_spec(fires=fires, input_size=input_size, pools=(), stem=stem)
        assert sizes.n_macs == sum(op.macs for op in named.convs) > 0.99 * 2**37
    else:
        with pytest.raises(SpecError, match="expected at most 137438953472 multiply-accumulates"):
            tiny_spec(fires=fires, input_size=input_size, pools=(), stem=stem)


def outcome_of_load(data: bytes, threads: int) -> tuple[int, bytes]:
    """Status of `sqz_load_shared`, and the logits of an image if it is 0."""
    header, sizes, model, pool = Header(), Sizes(), ctypes.c_void_p(), ctypes.c_void_p()
    assert library.sqz_read_header(data, ctypes.c_size_t(len(data)), None, ctypes.byref(header)) == 0
    assert library.sqz_measure(header.spec, Options(None, threads), sizes) == 0
    memory, scratch = np.empty(sizes.model_bytes, np.uint8), np.empty(sizes.load_bytes, np.uint8)
    arena, room = np.empty(sizes.arena_bytes, np.uint8), np.empty(library.sqz_pool_bytes(threads), np.uint8)
    assert library.sqz_create(header.spec, Options(None, threads), memory.ctypes.data, memory.nbytes, model) == 0
    assert library.sqz_pool_create(threads, room.ctypes.data, room.nbytes, pool) == 0
    try:
        status = library.sqz_load_shared(
            model, pool, ctypes.byref(header), data, ctypes.c_void_p(scratch.ctypes.data),
            ctypes.c_size_t(scratch.nbytes),
        )  # fmt: skip
        logits = np.zeros(header.spec.num_classes)
        pixels = np.arange(header.spec.input_size**2 * 3, dtype=np.uint32).astype(np.uint8)
        if not status:
            status = library.sqz_run_features(
                model, pool, arena.ctypes.data, arena.nbytes, pixels.ctypes.data, 1, logits.ctypes.data, None, None
            )
    finally:
        library.sqz_pool_destroy(pool)
    return status, logits.tobytes()


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("fresh", [{3}, {2, 5}, {1, 2, 3, 4, 5}])
def test_threads_load_what_one_does(threads, fresh):
    network = random_network(tiny_spec(bypass="complex"), max_weight=20, density=0.5)
    data = in_parts(SqzFile(network=network), fresh)
    expected = outcome_of_load(data, 1)
    assert expected[0] == 0
    assert np.frombuffer(expected[1]).std() > 0
    assert outcome_of_load(data, threads) == expected
    body = dict(split(data))[b"WGHT"]
    rng = np.random.default_rng(0)
    statuses = set()
    for _ in range(60):
        damaged = bytearray(body)
        for at in rng.integers(0, len(body), 2):
            damaged[at] ^= 1 << rng.integers(8)
        trial = with_chunk(data, b"WGHT", bytes(damaged))
        expected = outcome_of_load(trial, 1)
        assert outcome_of_load(trial, threads) == expected
        statuses.add(expected[0])
    assert {TRUNCATED, BAD_TABLE} <= statuses
