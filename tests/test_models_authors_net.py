"""The SqueezeNet authors' own compressed file."""

import numpy as np
import pytest

from shared import shared_path
from squeezenet.errors import WeightsError
from squeezenet.models import load_model
from squeezenet.models.authors_net import NET_SPEC, decode_net
from squeezenet.preprocess import CAFFE_PREPROCESSING

N_CONVS = 26
COUNT_BYTES = 4 * N_CONVS


def net_file(entries=None):
    """Bytes of a file with all biases 1, centroid k worth k, and for some convolutions (codes, gaps)."""
    entries = entries or {}
    counts, parts = [], []
    for op in NET_SPEC.convs:
        codes, gaps = entries.get(op.name, ([], []))
        counts.append(len(codes))
        gaps = [*gaps, 0] if len(gaps) % 2 else gaps
        parts += [np.arange(256, dtype="<f4"), np.ones(op.out_channels, "<f4"), np.array(codes, np.uint8)]
        parts += [np.array([low | high << 4 for low, high in zip(gaps[::2], gaps[1::2], strict=True)], np.uint8)]
    return b"".join(np.asarray(part).tobytes() for part in [np.array(counts, "<u4"), *parts])


def test_entries_are_placed_by_their_gaps():
    convs = decode_net(net_file({"fire2.squeeze": ([7, 0, 255], [2, 15, 0])}))
    weight, bias = convs["fire2.squeeze"].weight, convs["fire2.squeeze"].bias
    assert weight.shape == (16, 96, 1, 1)
    assert {int(i): float(weight.flat[i]) for i in np.flatnonzero(weight)} == {2: 7.0, 19: 255.0}
    assert bias.tolist() == [1.0] * 16
    assert list(convs) == [op.name for op in NET_SPEC.convs]
    assert len(convs) == N_CONVS


def test_first_layer_is_turned_to_rgb(tmp_path):
    (tmp_path / "a.net").write_bytes(net_file({"conv1": ([9], [0])}))
    weight = load_model(tmp_path / "a.net").convs["conv1"].weight
    assert weight.nonzero().tolist() == [[0, 2, 0, 0]]  # the blue channel, first in Caffe's order


def test_published_file_is_decoded_exactly():
    data = shared_path("weights/compressed_SqueezeNet.net").read_bytes()
    counts = np.frombuffer(data, "<u4", N_CONVS)
    convs = decode_net(data)
    assert int(counts.sum()) == 422_083  # the published count holds the zeros that fill long gaps
    assert sum(int(np.count_nonzero(conv.weight)) for conv in convs.values()) == 415_921
    assert max(np.unique(conv.weight).size for conv in convs.values()) == 256

    # The same file by the plain loop of the layout's description.
    op = NET_SPEC.convs[3]
    weight, bias = convs[op.name].weight, convs[op.name].bias
    offset = COUNT_BYTES + sum(
        4 * (256 + before.out_channels) + int(n) + (int(n) + 1) // 2
        for before, n in zip(NET_SPEC.convs[:3], counts[:3], strict=True)
    )
    centroids = np.frombuffer(data, "<f4", 256, offset)
    codes = data[offset + 4 * (256 + op.out_channels) :][: counts[3]]
    packed = data[offset + 4 * (256 + op.out_channels) + int(counts[3]) :]
    expected, position = np.zeros(weight.size, np.float32), -1
    for i, code in enumerate(codes):
        position += (packed[i // 2] >> 4 * (i % 2) & 15) + 1
        expected[position] = centroids[code]
    assert np.array_equal(weight.ravel(), expected)
    assert np.array_equal(bias, np.frombuffer(data, "<f4", op.out_channels, offset + 1024))


def test_published_file_gives_the_authors_network():
    model = load_model(shared_path("weights/compressed_SqueezeNet.net"))
    assert model.spec == NET_SPEC
    assert (model.spec.input_size, model.spec.head_padding, model.spec.num_classes) == (227, 1, 1000)
    assert model.preprocessing == CAFFE_PREPROCESSING
    assert model.labels.ids[0] == "n01440764"


@pytest.mark.parametrize("length", [0, 3, COUNT_BYTES - 1, COUNT_BYTES, COUNT_BYTES + 1000, -1])
def test_truncated_file_is_refused(tmp_path, length):
    (tmp_path / "a.net").write_bytes(net_file({"conv1": ([1], [0])})[:length])
    with pytest.raises(WeightsError, match=r"a\.net: expected \d+ bytes"):
        load_model(tmp_path / "a.net")


def test_trailing_byte_is_refused():
    with pytest.raises(WeightsError, match="expected 42632 bytes by the file's own counts, got 42633"):
        decode_net(net_file() + b"\0")


def test_position_outside_its_layer_is_refused():
    n_weights = 16 * 96
    inside = ([1] * 96, [15] * 96)
    assert decode_net(net_file({"fire2.squeeze": inside}))["fire2.squeeze"].weight.flat[n_weights - 1] == 1.0
    with pytest.raises(WeightsError, match=r"fire2\.squeeze: expected positions below 1536, got 1536"):
        decode_net(net_file({"fire2.squeeze": ([1] * 97, [15] * 96 + [0])}))


@pytest.mark.parametrize("count", [14_113, 1 << 31, (1 << 32) - 1])
def test_absurd_count_is_refused_before_anything_is_allocated(count):
    data = np.uint32(count).astype("<u4").tobytes() + net_file()[4:]
    with pytest.raises(WeightsError, match=f"conv1: expected at most 14112 entries, got {count}"):
        decode_net(data)


def test_centroid_that_is_no_number_is_refused(tmp_path):
    data = bytearray(net_file({"conv1": ([1], [0])}))
    data[COUNT_BYTES + 4 : COUNT_BYTES + 8] = np.float32("nan").tobytes()
    (tmp_path / "a.net").write_bytes(data)
    with pytest.raises(WeightsError, match=r"a\.net: features\.0\.weight: expected finite numbers"):
        load_model(tmp_path / "a.net")


def test_random_bytes_are_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    for size_bytes in (10, 104, 5000, 700_000, 3_000_000):
        (tmp_path / "a.net").write_bytes(rng.bytes(size_bytes))
        with pytest.raises(WeightsError, match="expected"):
            load_model(tmp_path / "a.net")
