import json

import pytest

from squeezenet.architectures import SPEC_NAMES, metaparameter_spec, named_spec
from squeezenet.errors import SpecError
from squeezenet.spec import ArchSpec, FireSpec, StemSpec, fire_ops

FIRE = FireSpec(squeeze_channels=2, expand1x1_channels=3, expand3x3_channels=4)


def small(**changes):
    settings = {
        "stem": StemSpec(channels=4, kernel=3, stride=2),
        "fires": (FIRE, FIRE),
        "pools": (1,),
        "input_size": 32,
        "num_classes": 5,
    }
    return ArchSpec(**{**settings, **changes})


def count_params(spec):
    return sum(op.params for op in spec.graph())


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("squeezenet1_0", 1_248_424),
        ("squeezenet1_0_simple_bypass", 1_248_424),
        # Complex: 1x1 convolutions around fire2, 4, 6, 8: 12,416 + 33,024 + 98,688 + 197,120 more.
        ("squeezenet1_0_complex_bypass", 1_589_672),
        ("squeezenet1_1", 1_235_496),
        ("squeezenet1_1_simple_bypass", 1_235_496),
        ("squeezenet1_1_complex_bypass", 1_572_648),
    ],
)
def test_named_specs_have_the_published_parameter_counts(name, params):
    assert count_params(named_spec(name)) == params


def test_names_are_all_known():
    assert SPEC_NAMES == (
        "squeezenet1_0", "squeezenet1_0_simple_bypass", "squeezenet1_0_complex_bypass",
        "squeezenet1_1", "squeezenet1_1_simple_bypass", "squeezenet1_1_complex_bypass",
    )  # fmt: skip
    assert [named_spec(name).name for name in SPEC_NAMES] == list(SPEC_NAMES)


def test_graph_of_1_0_is_the_paper_s_figure():
    spec = named_spec("squeezenet1_0", input_size=227)
    assert [(op.name, op.out_size, op.out_channels) for op in spec.graph() if "expand" not in op.name] == [
        ("conv1", 111, 96), ("pool1", 55, 96),
        ("fire2.squeeze", 55, 16), ("fire3.squeeze", 55, 16), ("fire4.squeeze", 55, 32), ("pool4", 27, 256),
        ("fire5.squeeze", 27, 32), ("fire6.squeeze", 27, 48), ("fire7.squeeze", 27, 48), ("fire8.squeeze", 27, 64),
        ("pool8", 13, 512), ("fire9.squeeze", 13, 64), ("conv10", 13, 1000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bypass", "adds", "convs"),
    [
        ("none", [], []),
        ("simple", ["fire3", "fire5", "fire7", "fire9"], []),
        (
            "complex",
            ["fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9"],
            ["fire2", "fire4", "fire6", "fire8"],
        ),
    ],
)
def test_bypass_goes_around_the_paper_s_fires(bypass, adds, convs):
    graph = named_spec("squeezenet1_0", bypass=bypass).graph()
    assert [op.output for op in graph if op.kind == "add"] == adds
    assert [op.name.split(".")[0] for op in graph if op.name.endswith(".bypass")] == convs
    assert not any(op.relu for op in graph if op.name.endswith(".bypass"))


def test_bypass_adds_what_the_fire_read():
    graph = {op.name: op for op in named_spec("squeezenet1_0", bypass="complex").graph()}
    assert graph["fire5.add"].inputs == ("fire5.expand", "pool4")
    assert graph["fire4.add"].inputs == ("fire4.expand", "fire4.bypass")
    assert graph["fire4.bypass"].inputs == ("fire3",)
    assert graph["pool4"].inputs == ("fire4",)


def test_branches_of_a_fire_fill_one_tensor():
    graph = {op.name: op for op in small().graph()}
    one, three = graph["fire2.expand1x1"], graph["fire2.expand3x3"]
    assert one.inputs == three.inputs == ("fire2.squeeze",)
    assert one.output == three.output == "fire2"
    assert (one.channel_offset, three.channel_offset) == (0, 3)
    assert (three.kernel, three.padding, three.products_per_sum) == (3, 1, 18)


def test_every_tensor_is_written_before_it_is_read():
    for name in SPEC_NAMES:
        for size in (32, 224):
            written = {"input": 3}
            for op in named_spec(name, input_size=size).graph():
                assert all(written[tensor] == op.in_channels for tensor in op.inputs)
                written[op.output] = op.channel_offset + op.out_channels


@pytest.mark.parametrize(
    ("name", "size", "pools", "last_map"),
    [
        ("squeezenet1_0", 96, (1, 4, 8), 5),
        ("squeezenet1_0", 95, (1, 4, 8), 11),
        ("squeezenet1_0", 32, (1, 4, 8), 4),
        ("squeezenet1_0", 16, (4, 8), 4),
        ("squeezenet1_0", 8, (8,), 4),
        ("squeezenet1_0", 7, (), 7),
        ("squeezenet1_1", 32, (1, 3, 5), 4),
        ("squeezenet1_1", 28, (3, 5), 7),
    ],
)
def test_small_images_keep_a_last_map_of_four(name, size, pools, last_map):
    spec = named_spec(name, input_size=size)
    assert spec.pools == pools
    assert spec.graph()[-1].out_size == last_map
    assert (spec.stem.stride, spec.stem.padding, spec.stem.kernel) == ((2, 0, 7) if size >= 96 else (1, 1, 3))


@pytest.mark.parametrize(
    ("size", "ceil_mode", "expected"),
    [(6, True, 3), (6, False, 2), (7, True, 3), (7, False, 3), (3, True, 1), (3, False, 1), (2, True, 1)],
)
def test_pools_round_as_told(size, ceil_mode, expected):
    stem = StemSpec(channels=4, kernel=3, stride=1, padding=1)
    spec = small(stem=stem, input_size=size, pool_ceil_mode=ceil_mode)
    assert next(op for op in spec.graph() if op.kind == "max_pool").out_size == expected


@pytest.mark.parametrize("size", [112, 224, 240, 1008])
def test_1_1_does_not_depend_on_pool_rounding_at_multiples_of_16(size):
    sizes = [
        [op.out_size for op in named_spec("squeezenet1_1", input_size=size, pool_ceil_mode=mode).graph()]
        for mode in (True, False)
    ]
    assert sizes[0] == sizes[1]


def test_1_0_does_depend_on_pool_rounding_at_224_but_not_at_227():
    def sizes(size, mode):
        return [op.out_size for op in named_spec("squeezenet1_0", input_size=size, pool_ceil_mode=mode).graph()]

    assert sizes(224, True) != sizes(224, False)
    assert sizes(227, True) == sizes(227, False)


def test_metaparameters_reproduce_1_0():
    assert metaparameter_spec(name="squeezenet1_0") == named_spec("squeezenet1_0")


def test_metaparameters_follow_the_paper_s_formulas():
    spec = metaparameter_spec(base_e=64, incr_e=32, pct_3x3=0.25, freq=3, squeeze_ratio=0.5, n_fires=7)
    assert [(f.squeeze_channels, f.expand1x1_channels, f.expand3x3_channels) for f in spec.fires] == [
        (32, 48, 16), (32, 48, 16), (32, 48, 16), (48, 72, 24), (48, 72, 24), (48, 72, 24), (64, 96, 32),
    ]  # fmt: skip
    assert spec.head_name == "conv9"


@pytest.mark.parametrize(("share", "expected"), [(0.0, (127, 1)), (1.0, (1, 127))])
def test_fires_keep_one_filter_of_each_kind(share, expected):
    fire = metaparameter_spec(pct_3x3=share).fires[0]
    assert (fire.expand1x1_channels, fire.expand3x3_channels) == expected


def test_squeeze_keeps_one_filter():
    assert metaparameter_spec(squeeze_ratio=0.001).fires[0].squeeze_channels == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"pct_3x3": -0.1}, {"pct_3x3": 1.1}, {"pct_3x3": float("nan")},
        {"squeeze_ratio": 0}, {"squeeze_ratio": 9}, {"squeeze_ratio": float("nan")},
        {"freq": 0}, {"freq": 1.5}, {"n_fires": 0}, {"n_fires": 65}, {"base_e": 1}, {"base_e": -4}, {"base_e": 8.0},
        {"incr_e": 10**9},
    ],
)  # fmt: skip
def test_impossible_metaparameters_are_refused(settings):
    with pytest.raises(SpecError, match=r"expected `|expected a whole number"):
        metaparameter_spec(**settings)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match=r"expected one of squeezenet1_0, .*, got 'squeezenet2'"):
        named_spec("squeezenet2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stem": StemSpec(channels=0, kernel=3, stride=2)}, "`stem.channels` from 1 to 4096, got 0"),
        ({"stem": StemSpec(channels=4097, kernel=3, stride=2)}, "`stem.channels` from 1 to 4096, got 4097"),
        ({"stem": StemSpec(channels=4, kernel=0, stride=2)}, "`stem.kernel` from 1 to 11, got 0"),
        ({"stem": StemSpec(channels=4, kernel=12, stride=2)}, "`stem.kernel` from 1 to 11, got 12"),
        ({"stem": StemSpec(channels=4, kernel=3, stride=0)}, "`stem.stride` from 1 to 4, got 0"),
        ({"stem": StemSpec(channels=4, kernel=3, stride=5)}, "`stem.stride` from 1 to 4, got 5"),
        ({"stem": StemSpec(channels=4, kernel=3, stride=2, padding=2)}, "`stem.padding` from 0 to 1, got 2"),
        ({"stem": StemSpec(channels=4, kernel=3, stride=2, padding=-1)}, "`stem.padding` from 0 to 1, got -1"),
        ({"fires": ()}, "`number of fires` from 1 to 64, got 0"),
        ({"fires": (FIRE,) * 65}, "`number of fires` from 1 to 64, got 65"),
        (
            {"fires": (FIRE, FireSpec(squeeze_channels=0, expand1x1_channels=1, expand3x3_channels=1))},
            "`fire3.squeeze_channels` from 1 to 4096, got 0",
        ),
        (
            {"fires": (FireSpec(squeeze_channels=1, expand1x1_channels=0, expand3x3_channels=1),)},
            "`fire2.expand1x1_channels` from 1",
        ),
        (
            {"fires": (FireSpec(squeeze_channels=1, expand1x1_channels=1, expand3x3_channels=-1),)},
            "`fire2.expand3x3_channels` from 1",
        ),
        (
            {"fires": (FireSpec(squeeze_channels=1, expand1x1_channels=4096, expand3x3_channels=1),)},
            "`fire2 width` from 1 to 4096, got 4097",
        ),
        ({"pools": (2, 1)}, "strictly increasing layer numbers, got (2, 1)"),
        ({"pools": (1, 1)}, "strictly increasing"),
        ({"pools": (0,)}, "`pools` from 1 to 3, got 0"),
        ({"pools": (4,)}, "`pools` from 1 to 3, got 4"),
        ({"pools": (1.0,)}, "a whole number for `pools`, got 1.0"),
        ({"num_classes": 0}, "`num_classes` from 1 to 65535, got 0"),
        ({"num_classes": 65_536}, "`num_classes` from 1 to 65535, got 65536"),
        ({"input_size": 0}, "`input_size` from 1 to 1024, got 0"),
        ({"input_size": 1025}, "`input_size` from 1 to 1024, got 1025"),
        ({"input_size": 32.0}, "a whole number for `input_size`, got 32.0"),
        ({"input_size": True}, "a whole number for `input_size`, got True"),
        ({"head_padding": 2}, "`head_padding` from 0 to 1, got 2"),
        ({"batch_norm": 1}, "`batch_norm` must be true, false or 'squeeze', got 1"),
        ({"bypass": "double"}, "`bypass` must be one of ('none', 'simple', 'complex'), got 'double'"),
        ({"input_size": 2}, "`input_size` (=2) is too small: nothing is left after conv1"),
        ({"input_size": 3, "pools": (1,), "pool_ceil_mode": False}, "nothing is left after pool1"),
        (
            {"fires": (FireSpec(squeeze_channels=4096, expand1x1_channels=2000, expand3x3_channels=2000),) * 2},
            "at most 16777216 parameters",
        ),
        (
            {"stem": StemSpec(channels=256, kernel=1, stride=1), "input_size": 1024, "pools": ()},
            "at most 134217728 activations per image",
        ),
        (
            {
                "stem": StemSpec(channels=4, kernel=1, stride=1),
                "fires": (FireSpec(squeeze_channels=1024, expand1x1_channels=1, expand3x3_channels=1024),),
                "input_size": 250,
                "pools": (),
            },
            "at most 137438953472 multiply-accumulates per image",
        ),
    ],
)
def test_impossible_spec_is_refused_with_field_and_value(changes, message):
    with pytest.raises(SpecError) as error:
        small(**changes)
    assert message in str(error.value)


def test_replaced_spec_is_checked():
    with pytest.raises(SpecError, match="num_classes"):
        small().replace(num_classes=0)
    assert small().replace(num_classes=7).graph()[-1].out_channels == 7


@pytest.mark.parametrize("name", SPEC_NAMES)
def test_spec_goes_through_json(name):
    spec = named_spec(name, num_classes=12, head_relu=False, head_padding=1, squeeze_relu=False, pool_ceil_mode=False)
    assert ArchSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_spec_from_json_takes_defaults():
    data = {"stem": {"channels": 4, "kernel": 3, "stride": 2}, "fires": [FIRE.__dict__], "pools": [], "input_size": 32}
    spec = ArchSpec.from_dict(data)
    assert (spec.num_classes, spec.bypass, spec.name) == (1000, "none", "custom")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {3: 4}, {"stem": None}, {"stem": []}, {"stem": {"channels": 4}}, {"stem": {"kernel": "3"}},
        {"fires": 3}, {"fires": [3]}, {"fires": [{"squeeze_channels": 1}]}, {"fires": {"a": 1}},
        {"pools": 1}, {"pools": ["1"]}, {"pools": [True]}, {"pools": [[]]}, {"input_size": "32"}, {"input_size": None},
        {"num_classes": 2.0}, {"head_padding": True}, {"head_relu": 1}, {"squeeze_relu": "yes"}, {"batch_norm": None},
        {"pool_ceil_mode": 0}, {"name": 7}, {"bypass": []}, {"bypass": None},
    ],
)  # fmt: skip
def test_data_of_another_shape_is_refused(change):
    with pytest.raises(SpecError):
        ArchSpec.from_dict({**small().to_dict(), **change})


@pytest.mark.parametrize("data", [None, [], "text", 3, [["stem", 1]], {}])
def test_data_that_is_no_spec_is_refused(data):
    with pytest.raises(SpecError, match="expected"):
        ArchSpec.from_dict(data)


def test_fire_ops_are_those_of_the_graph():
    spec = named_spec("squeezenet1_0_complex_bypass", squeeze_relu=False)
    graph = spec.graph()
    for number, fire in enumerate(spec.fires, start=2):
        ops = tuple(op for op in graph if op.name.startswith(f"fire{number}."))
        options = {"size": ops[0].in_size, "name": f"fire{number}", "source": ops[0].inputs[0]}
        assert ops == fire_ops(fire, in_channels=ops[0].in_channels, bypass="complex", squeeze_relu=False, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 0}, "`fire.in_channels` from 1 to 4096, got 0"),
        ({"in_channels": 3.0}, "a whole number for `fire.in_channels`, got 3.0"),
        ({"bypass": "both"}, "`bypass` must be one of"),
        ({"fire": FireSpec(squeeze_channels=0, expand1x1_channels=1, expand3x3_channels=1)}, "fire.squeeze_channels"),
        ({"fire": FireSpec(squeeze_channels=1, expand1x1_channels=4096, expand3x3_channels=1)}, "fire width"),
    ],
)
def test_impossible_fires_are_refused(changes, message):
    settings = {"fire": FIRE, "in_channels": 4, **changes}
    with pytest.raises(SpecError, match=message):
        fire_ops(settings.pop("fire"), **settings)


def test_walk_shows_every_tensor_once_it_is_complete_and_drops_it_after_its_last_use():
    spec = small(bypass="complex", num_classes=6)
    seen, alive, peak = [], set(), 0

    class Value:
        def __init__(self, text, width):
            self.text, self.width = text, width
            alive.add(text)

        def __del__(self):
            alive.discard(self.text)

    def conv(op, x):
        nonlocal peak
        assert x.width == op.in_channels
        peak = max(peak, len(alive))
        return Value(f"{op.name}({x.text})", op.out_channels)

    logits = spec.walk(
        Value("x", 3),
        conv=conv,
        pool=lambda op, x: Value(f"{op.name}({x.text})", x.width),
        add=lambda op, a, b: Value(f"{op.name}({a.width}+{b.width})", a.width),
        join=lambda op, a, b: Value(f"{op.name.partition('.')[0]}[{a.width},{b.width}]", a.width + b.width),
        see=lambda name, value: seen.append((name, value.width)),
    )

    assert logits.text == "conv4(fire3.add(7+7))"
    assert seen == [
        ("input", 3), ("conv1", 4), ("pool1", 4),
        ("fire2.squeeze", 2), ("fire2.expand", 7), ("fire2.bypass", 7), ("fire2", 7),
        ("fire3.squeeze", 2), ("fire3.expand", 7), ("fire3", 7), ("conv4", 6),
    ]  # fmt: skip
    assert peak == 3  # the squeeze map, its first branch, and what the bypass will read
