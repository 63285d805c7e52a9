import hashlib
import os
import stat
import zlib

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from squeezenet import Classifier, fileformat, store_confidence
from squeezenet.architectures import named_spec
from squeezenet.engine import ReferenceEngine
from squeezenet.errors import BadTable, LimitExceeded, Truncated
from squeezenet.evaluation.confidence import measure_confidence
from squeezenet.evaluation.predictor import Scores
from squeezenet.fileformat import Limits, SqzFile, decode_sqz, encode_sqz, read_sqz, stream_bytes, write_sqz
from squeezenet.labels import Labels, imagenet_labels
from squeezenet.network import IntegerNetwork, TensorQuant, quantized_tensors
from squeezenet.preprocess import Preprocessing
from squeezenet.spec import FireSpec, StemSpec
from sqz_bytes import SIGNATURE, chunk, join, meta_of, split, with_meta

LABELS = Labels(("ant", "bee", "cat", "dog", "eel"))
PREPROCESSING = Preprocessing(crop_size=16, resize_size=20)


def contents(**changes):
    settings = {
        "network": random_network(tiny_spec()),
        "labels": LABELS,
        "preprocessing": PREPROCESSING,
        "facts": {"top1": 97.5},
    }
    return SqzFile(**{**settings, **changes})


def assert_same_network(one, other):
    assert one.spec == other.spec
    assert one.tensors == other.tensors
    for name, params in one.convs.items():
        for field in ("weight", "bias", "multiplier"):
            np.testing.assert_array_equal(getattr(params, field), getattr(other.convs[name], field))


@pytest.mark.parametrize("seed", range(8))
def test_contents_come_back(seed):
    bypass = ("none", "simple", "complex")[seed % 3]
    spec = tiny_spec(
        bypass=bypass, squeeze_relu=bool(seed & 1), head_relu=bool(seed & 2), head_padding=seed >> 2,
        pool_ceil_mode=not seed & 1, pools=((), (1,), (1, 2), (2,))[seed % 4],
    )  # fmt: skip
    written = contents(network=random_network(spec, seed=seed, density=0.4))
    read = decode_sqz(encode_sqz(written))
    assert_same_network(written.network, read.network)
    assert (read.labels, read.preprocessing, read.facts) == (LABELS, PREPROCESSING, {"top1": 97.5})


def test_read_network_predicts_the_same():
    written = contents()
    pixels = random_pixels(written.network.spec, 4)
    expected = ReferenceEngine(written.network).logits(pixels)
    read = decode_sqz(encode_sqz(written)).network
    np.testing.assert_array_equal(ReferenceEngine(read).logits(pixels), expected)


def test_everything_but_the_network_is_optional():
    data = encode_sqz(SqzFile(network=random_network(tiny_spec())))
    read = decode_sqz(data)
    assert (read.labels, read.preprocessing, read.facts) == (None, None, {})
    assert [kind for kind, _ in split(data)] == [b"ARCH", b"WGHT"]


def test_file_is_a_signature_and_four_chunks():
    data = encode_sqz(contents())
    assert data[:8] == SIGNATURE
    assert [kind for kind, _ in split(data)] == [b"ARCH", b"WGHT", b"META"]
    assert join(split(data)) == data
    assert data[-44:] == chunk(b"HASH", hashlib.sha256(data[:-44]).digest())


def without_weights(spec, tensors):
    """What the ARCH chunk is made from, with no million weights to code."""
    network = object.__new__(IntegerNetwork)
    object.__setattr__(network, "spec", spec)
    object.__setattr__(network, "tensors", tensors)
    return network


def test_arch_chunk_byte_for_byte():
    spec = tiny_spec(
        stem=StemSpec(channels=300, kernel=5, stride=2, padding=1),
        fires=(
            FireSpec(squeeze_channels=2, expand1x1_channels=3, expand3x3_channels=258),
            FireSpec(squeeze_channels=1, expand1x1_channels=4, expand3x3_channels=257),
        ),
        input_size=258,
        pools=(1, 3),
        num_classes=259,
        bypass="simple",
        head_relu=False,
        head_padding=1,
        name="né",
    )
    names = ["input", "conv1", "fire2.squeeze", "fire2", "fire3.squeeze", "fire3.expand", "fire3"]
    tensors = {name: TensorQuant(0.5 * 2**i, 0) for i, name in enumerate(names)}
    tensors["input"] = TensorQuant(1.0, 128)
    arch = fileformat._encode_arch(spec, tensors)
    assert fileformat._decode_arch(arch) == (spec, tensors)
    assert arch == bytes.fromhex(
        "01"  # version
        "0201 0301"  # input size 258, 259 classes
        "1b"  # ceil mode 1, squeeze ReLU 2, head padding 8, simple bypass 16
        "2c01 05 02 01"  # conv1: 300 channels, kernel 5, stride 2, padding 1
        "02 0200 0300 0201 0100 0400 0101"  # two Fire modules
        "02 01 03"  # pools after conv1 and fire3
        "03 6ec3a9"  # name
        "0000803f 80"  # input: scale 1, zero-point 128
        "0000803f 00 00000040 00 00008040 00"  # conv1, fire2.squeeze, fire2
        "00000041 00 00008041 00 00000042 00"  # fire3.squeeze, fire3.expand, fire3
    )


def test_meta_is_sorted_compact_json():
    data = encode_sqz(contents(facts={"z": [1, None], "a": "é"}))
    assert zlib.decompress(dict(split(data))[b"META"]).decode() == (
        '{"a":"é","labels":{"names":["ant","bee","cat","dog","eel"]},'
        '"preprocessing":{"crop_size":16,"mean":[128.0,128.0,128.0],"resample":"bilinear",'
        '"resize_mode":"short_side","resize_size":20,"std":[64.0,64.0,64.0]},"z":[1,null]}'
    )


def test_temperature_of_nothing_is_1():
    read = decode_sqz(with_meta(encode_sqz(contents()), {"temperature": None}))
    assert Classifier(read).temperature == 1


def test_order_of_facts_does_not_change_the_bytes():
    assert encode_sqz(contents(facts={"a": 1, "b": 2})) == encode_sqz(contents(facts={"b": 2, "a": 1}))


def test_imagenet_classes_are_stored_by_name():
    spec = tiny_spec(
        num_classes=1000, fires=(FireSpec(squeeze_channels=1, expand1x1_channels=1, expand3x3_channels=1),)
    )
    data = encode_sqz(SqzFile(network=random_network(spec), labels=imagenet_labels()))
    assert meta_of(data) == {"labels": {"set": "imagenet-1k"}}
    assert decode_sqz(data).labels == imagenet_labels()


def test_ids_are_kept():
    labels = Labels(LABELS.names, ("n1", "n2", "n3", "n4", "n5"))
    assert decode_sqz(encode_sqz(contents(labels=labels))).labels == labels


@pytest.mark.parametrize(
    ("name", "stored"), [("x" * 65, "x" * 64), ("é" * 40, "é" * 32), ("a" + "é" * 40, "a" + "é" * 31), ("\ud800", "?")]
)
def test_long_and_odd_names_are_cut_between_characters(name, stored):
    network = random_network(tiny_spec(name=name))
    assert decode_sqz(encode_sqz(SqzFile(network=network))).network.spec.name == stored


def test_largest_named_network_goes_through_the_arch_chunk():
    spec = named_spec("squeezenet1_0_complex_bypass", num_classes=10, input_size=227)
    tensors = dict.fromkeys(quantized_tensors(spec), TensorQuant(0.25, 0))
    arch = fileformat._encode_arch(spec, tensors)
    assert fileformat._decode_arch(arch) == (spec, tensors)


def test_stream_bytes_add_up_to_the_file():
    data = encode_sqz(contents())
    sizes = stream_bytes(data)
    assert sum(sizes.values()) == len(data)
    assert list(sizes) == [
        "conv1", "fire2.squeeze", "fire2.expand1x1", "fire2.expand3x3", "fire3.squeeze", "fire3.expand1x1",
        "fire3.expand3x3", "conv4", "ARCH", "META", "container",
    ]  # fmt: skip
    # Signature 8; four chunks of 12 more than their data; a hash of 32; a length of 1 or 2 bytes per stream.
    assert 8 + 4 * 12 + 32 + 8 <= sizes["container"] <= 8 + 4 * 12 + 32 + 16


def test_writing_gives_the_size_and_reading_the_contents(tmp_path):
    path = tmp_path / "tiny.sqz"
    size = write_sqz(path, contents())
    assert path.stat().st_size == size
    assert_same_network(read_sqz(path).network, contents().network)
    assert stat.S_ISREG(path.stat().st_mode)


def test_error_of_a_file_names_it(tmp_path):
    path = tmp_path / "cut.sqz"
    path.write_bytes(encode_sqz(contents())[:100])
    with pytest.raises(Truncated, match=r"cut\.sqz: chunk"):
        read_sqz(path)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_sqz(tmp_path / "none.sqz")


def test_file_over_the_limit_is_not_read_whole(tmp_path):
    path = tmp_path / "long.sqz"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse: reading it all would take a terabyte
    with pytest.raises(LimitExceeded, match="expected a file of at most 1000 bytes"):
        read_sqz(path, Limits(file_bytes=1000))


def test_file_at_the_limit_is_read():
    data = encode_sqz(contents())
    assert decode_sqz(data, Limits(file_bytes=len(data))).labels == LABELS
    with pytest.raises(LimitExceeded, match=f"at most {len(data) - 1} bytes"):
        decode_sqz(data, Limits(file_bytes=len(data) - 1))


def test_weights_at_the_limit_are_read():
    data = encode_sqz(contents())
    count = sum(op.params for op in tiny_spec().convs)
    assert decode_sqz(data, Limits(weights=count)).labels == LABELS
    with pytest.raises(LimitExceeded, match=f"expected at most {count - 1} weights, got {count}"):
        decode_sqz(data, Limits(weights=count - 1))


def test_metadata_at_the_limit_are_read():
    data = encode_sqz(contents())
    count = len(zlib.decompress(dict(split(data))[b"META"]))
    assert decode_sqz(data, Limits(meta_bytes=count)).labels == LABELS
    for limit in (count - 1, 1, 0):
        with pytest.raises(LimitExceeded, match=f"META: expected at most {limit} bytes once inflated"):
            decode_sqz(data, Limits(meta_bytes=limit))


def test_longest_metadata_can_be_written_and_read_back():
    frame = len('{"x":""}')
    long = encode_sqz(SqzFile(network=contents().network, facts={"x": "y" * (Limits().meta_bytes - frame)}))
    assert len(decode_sqz(long).facts["x"]) == Limits().meta_bytes - frame
    with pytest.raises(LimitExceeded, match="META: expected at most 4194304 bytes of JSON, got 4194305"):
        encode_sqz(SqzFile(network=contents().network, facts={"x": "y" * (Limits().meta_bytes - frame + 1)}))


def test_label_count_must_fit():
    with pytest.raises(BadTable, match="expected 5 labels, got 2"):
        contents(labels=Labels(("a", "b")))


def test_preprocessing_must_fit():
    with pytest.raises(BadTable, match="expected a preprocessing that crops to 16 pixels, got 20"):
        contents(preprocessing=Preprocessing(crop_size=20, resize_size=20))


@pytest.mark.parametrize("key", ["labels", "preprocessing"])
def test_facts_cannot_pass_for_labels(key):
    with pytest.raises(BadTable, match=f"expected facts without the reserved names .*{key}"):
        contents(facts={key: 1})


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), BadTable), (float("inf"), BadTable), (object(), BadTable), ({1: 2}, BadTable),
        ("\ud800", BadTable), (b"bytes", BadTable), (np.float32(1), BadTable), ([{"\udfff": 1}], BadTable),
        (nested(32), LimitExceeded),
    ],
)  # fmt: skip
def test_facts_that_no_file_can_hold_are_refused(value, error):
    with pytest.raises(error, match="META: expected"):
        encode_sqz(contents(facts={"x": value}))


def test_facts_of_every_json_kind_come_back():
    facts = {
        "n": None,
        "t": True,
        "i": -3,
        "f": 0.1,
        "s": "\x1b[31m\u202e\0",
        "l": [[], {}, 10**30],
        "deep": nested(31),
    }
    assert decode_sqz(encode_sqz(contents(facts=facts))).facts == facts


@pytest.mark.parametrize(
    "meta",
    [
        {"labels": None}, {"labels": 3}, {"labels": "names"}, {"labels": ["names"]}, {"labels": {}},
        {"labels": {"names": "abcde"}}, {"labels": {"names": ["a", "b", "c", "d", 5]}},
        {"labels": {"names": ["a", "b", "c", "d"]}}, {"labels": {"names": list("abcde"), "ids": ["x"]}},
        {"labels": {"names": list("abcde"), "ids": list("xxyzw")}}, {"labels": {"names": list("abcde"), "more": 1}},
        {"labels": {"set": "imagenet-1k"}}, {"labels": {"set": "cifar"}}, {"labels": {"set": ["imagenet-1k"]}},
        {"labels": {"set": "imagenet-1k", "names": []}},
        {"preprocessing": None}, {"preprocessing": []}, {"preprocessing": "crop_size"}, {"preprocessing": {}},
        {"preprocessing": {"crop_size": 16}}, {"preprocessing": {"crop_size": 15, "resize_size": 20}},
        {"preprocessing": {"crop_size": 16, "resize_size": 15}},
        {"preprocessing": {"crop_size": 16, "resize_size": 10**9}},
        {"preprocessing": {"crop_size": 16, "resize_size": 20, "std": [0, 1, 1]}},
        {"preprocessing": {"crop_size": 16, "resize_size": 20, "mean": "123"}},
        {"preprocessing": {"crop_size": 16, "resize_size": 20, "resample": []}},
    ],
)  # fmt: skip
def test_metadata_that_contradict_the_network_are_refused(meta):
    with pytest.raises(BadTable):
        decode_sqz(with_meta(encode_sqz(contents()), meta))


CONFIDENCE = measure_confidence(
    Scores(logits=np.eye(2), labels=np.arange(2), indices=np.arange(2), unreadable=(), features=None)
)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("read", [read_sqz, Classifier, lambda path: store_confidence(path, CONFIDENCE)])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "net.sqz")
    with pytest.raises(FileNotFoundError, match="expected a file, got a folder or a device"):
        read(tmp_path / "net.sqz")
