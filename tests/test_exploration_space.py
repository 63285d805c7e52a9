"""Space files: what they mean, and what is refused."""

import pytest

from squeezenet.architectures import named_spec
from squeezenet.errors import StudyError
from squeezenet.exploration import PRESET_NAMES, Range, Space, load_space
from squeezenet.training import Recipe, load_recipe

PHOTOS = Recipe(epochs=1, lr=0.1, architecture="squeezenet1_0", head_relu=True)


@pytest.mark.parametrize("name", PRESET_NAMES)
@pytest.mark.parametrize("recipe", ["digits", "cifar10", "small-photos"])
def test_presets_make_networks_for_every_recipe(name, recipe):
    space = load_space(name)
    if space.sampler == "grid":
        specs = [space.spec(point, load_recipe(recipe), 10).replace(name="") for point in space.grid()]
        assert len(set(specs)) >= (3 if name != "late-downsampling" else 4)


def test_paper_sr_begins_with_squeezenet():
    first = next(load_space("paper-sr").grid())
    assert load_space("paper-sr").spec(first, PHOTOS, 1000).replace(name="squeezenet1_0") == named_spec("squeezenet1_0")


def test_bypass_forms_are_the_named_ones():
    space = load_space("paper-bypass")
    specs = [space.spec(point, PHOTOS, 1000) for point in space.grid()]
    names = ["squeezenet1_0", "squeezenet1_0_simple_bypass", "squeezenet1_0_complex_bypass"]
    assert [spec.replace(name=name) for spec, name in zip(specs, names, strict=True)] == list(map(named_spec, names))


def test_pools_beyond_the_recipe_s_count_lose_the_first():
    space = load_space("late-downsampling")
    pools = [space.spec(point, PHOTOS.replace(pools=(1, 5), input_size=32), 10).pools for point in space.grid()]
    assert pools == [(2, 3), (3, 5), (4, 7), (4, 8), (5, 8)]


def test_grid_is_every_combination():
    space = Space.from_dict({"space": {"freq": {"low": 1, "high": 2}, "bypass": ["none", "simple"]}})
    assert space.dimensions["freq"] == Range(low=1, high=2)
    assert [tuple(point.values()) for point in space.grid()] == [(1, "none"), (1, "simple"), (2, "none"), (2, "simple")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "at least one metaparameter"),
        ({"space": {"width": [1]}}, r"expected only base_e, .* in \[space\]; got width"),
        ({"space": {"freq": []}}, "expected choices or a range for `freq`"),
        ({"space": {"freq": [1, 1]}}, "expected different choices"),
        ({"space": {"freq": ["a"]}}, "expected `freq` to be a whole number, got 'a'"),
        ({"space": {"freq": {"low": 3, "high": 1}}}, "expected `low` up to `high`"),
        ({"space": {"freq": {"low": 3}}}, "expected `low`, `high` and perhaps `step`"),
        ({"space": {"bypass": {"low": 1, "high": 2}}}, "expected a list of choices for `bypass`"),
        ({"space": {"bypass": ["some"]}}, "expected `bypass` to be one of none, simple, complex"),
        ({"space": {"pools": [1, 2]}}, "expected a list of layer numbers"),
        ({"space": {"freq": [1]}, "fixed": {"freq": 2}}, r"freq in \[fixed\] or in \[space\], got both"),
        ({"space": {"freq": [1]}, "sampler": "random"}, "expected `sampler` grid or pareto"),
        ({"space": {"freq": [1]}, "other": 1}, "got other"),
        ({"space": [1]}, r"expected a table \[space\]"),
    ],
)
def test_impossible_spaces_are_refused(data, message):
    with pytest.raises(StudyError, match=message):
        Space.from_dict(data)


@pytest.mark.parametrize("text", ["[space", "\x00", "space = 1"])
def test_broken_files_are_one_line(tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(StudyError, match=r"s\.toml: expected") as caught:
        load_space(tmp_path / "s.toml")
    assert "\n" not in str(caught.value)


def test_huge_grid_is_refused():
    space = Space.from_dict({"space": {"base_e": {"low": 1, "high": 1000}, "incr_e": {"low": 1, "high": 1000}}})
    with pytest.raises(StudyError, match="at most 10000 points"):
        list(space.grid())
