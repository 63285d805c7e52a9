import pytest

from squeezenet.accounting import ALEXNET_FILE_BYTES, ALEXNET_MACS, ALEXNET_PARAMS, network_cost
from squeezenet.architectures import named_spec

# Iandola et al. 2016, table 1: name, output size, channels, (s1x1, e1x1, e3x3), parameters.
TABLE_1 = [
    ("conv1", 111, 96, None, 14_208),
    ("pool1", 55, 96, None, 0),
    ("fire2", 55, 128, (16, 64, 64), 11_920),
    ("fire3", 55, 128, (16, 64, 64), 12_432),
    ("fire4", 55, 256, (32, 128, 128), 45_344),
    ("pool4", 27, 256, None, 0),
    ("fire5", 27, 256, (32, 128, 128), 49_440),
    ("fire6", 27, 384, (48, 192, 192), 104_880),
    ("fire7", 27, 384, (48, 192, 192), 111_024),
    ("fire8", 27, 512, (64, 256, 256), 188_992),
    ("pool8", 13, 512, None, 0),
    ("fire9", 13, 512, (64, 256, 256), 197_184),
    ("conv10", 13, 1000, None, 513_000),
    ("avgpool10", 1, 1000, None, 0),
]


def cost_of(name, **options):
    return network_cost(named_spec(name, **options))


def test_rows_of_1_0_are_the_paper_s():
    def widths(row):
        values = (row.squeeze_channels, row.expand1x1_channels, row.expand3x3_channels)
        return None if values == (None, None, None) else values

    rows = cost_of("squeezenet1_0", input_size=227).layers
    assert [(row.name, row.out_size, row.out_channels, widths(row), row.params) for row in rows] == TABLE_1


def test_totals_are_the_paper_s():
    cost = cost_of("squeezenet1_0", input_size=227)
    assert cost.params == sum(row[-1] for row in TABLE_1) == 1_248_424
    assert cost.fp32_bytes == 4_993_696
    # The paper rounds its 48.06 up, to 50.
    assert round(ALEXNET_FILE_BYTES / cost.fp32_bytes) == 48


def test_filters_and_strides_are_listed_outside_the_fires():
    rows = {row.name: row for row in cost_of("squeezenet1_0", input_size=227).layers}
    assert (rows["conv1"].kernel, rows["conv1"].stride) == (7, 2)
    assert (rows["pool8"].kernel, rows["pool8"].stride, rows["pool8"].kind) == (3, 2, "max_pool")
    assert (rows["conv10"].kernel, rows["conv10"].stride) == (1, 1)
    assert (rows["fire2"].kernel, rows["fire2"].stride, rows["fire2"].kind) == (None, None, "fire")


@pytest.mark.parametrize(
    ("name", "size", "macs"), [("squeezenet1_0", 227, 832_667_936), ("squeezenet1_1", 224, 349_151_936)]
)
def test_multiply_accumulates(name, size, macs):
    assert cost_of(name, input_size=size).macs == macs


def test_1_1_needs_2_4_times_less_computation():
    ratio = cost_of("squeezenet1_0", input_size=224).macs / cost_of("squeezenet1_1", input_size=224).macs
    assert 2.3 < ratio < 2.4  # the paper's repository says 2.4


def test_macs_of_a_layer_by_hand():
    rows = {row.name: row for row in cost_of("squeezenet1_0", input_size=227).layers}
    assert rows["conv1"].macs == 111 * 111 * 96 * 7 * 7 * 3
    assert rows["fire2"].macs == 55 * 55 * (96 * 16 + 16 * 64 + 9 * 16 * 64)
    assert rows["pool1"].macs == 0


def test_activation_bytes_of_a_layer_by_hand():
    rows = {row.name: row for row in cost_of("squeezenet1_0", input_size=227).layers}
    assert rows["conv1"].activation_bytes == 111 * 111 * 96
    assert rows["fire2"].activation_bytes == 55 * 55 * (16 + 128)
    assert rows["conv10"].activation_bytes == 0  # summed as it is made


def test_complex_bypass_is_counted_in_its_fire():
    rows = {row.name: row for row in cost_of("squeezenet1_0_complex_bypass").layers}
    assert rows["fire2"].params == 11_920 + 128 * (96 + 1)
    assert rows["fire3"].params == 12_432
    assert rows["fire2"].out_channels == 128


def test_simple_bypass_adds_no_parameter_and_no_multiplication():
    plain, bypass = cost_of("squeezenet1_0"), cost_of("squeezenet1_0_simple_bypass")
    assert (bypass.params, bypass.macs) == (plain.params, plain.macs)
    assert bypass.activation_bytes - plain.activation_bytes == sum(
        row.out_channels * row.out_size**2 for row in plain.layers if row.name in ("fire3", "fire5", "fire7", "fire9")
    )


def test_alexnet_is_the_sum_of_its_layers():
    # Convolutions with two groups in conv2, 4, 5; 227x227 input (Krizhevsky et al. 2012, as Caffe's reference model).
    convs = [(96, 3, 11, 55), (256, 48, 5, 27), (384, 256, 3, 13), (384, 192, 3, 13), (256, 192, 3, 13)]
    dense = [(4096, 256 * 6 * 6), (4096, 4096), (1000, 4096)]
    weights = [o * i * k * k for o, i, k, _ in convs] + [o * i for o, i in dense]
    biases = [o for o, *_ in convs] + [o for o, _ in dense]
    macs = sum(o * i * k * k * size * size for o, i, k, size in convs) + sum(o * i for o, i in dense)
    assert sum(weights) + sum(biases) == ALEXNET_PARAMS
    assert macs == ALEXNET_MACS
