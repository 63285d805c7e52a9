import dataclasses

import pytest

from squeezenet.errors import RecipeError
from squeezenet.preprocess import TORCHVISION_PREPROCESSING
from squeezenet.training.recipe import RECIPE_NAMES, Recipe, load_recipe


def test_recipes_of_the_package():
    assert RECIPE_NAMES == (
        "cifar10", "cifar10-large", "cifar10-tiny", "digits", "dsd", "finetune", "imagenet", "paper-imagenet",
        "small-photos",
    )  # fmt: skip


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_recipe_loads_describes_itself_and_builds_a_network(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.description) > 10
    assert recipe.spec(10).num_classes == 10


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_recipe_comes_back_from_its_toml(tmp_path, name):
    recipe = load_recipe(name)
    (tmp_path / "copy.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "copy.toml") == recipe


def test_paper_recipe_is_the_solver_of_2016():
    recipe = load_recipe("paper-imagenet")
    assert recipe.epochs * 1_281_167 // recipe.batch_size == pytest.approx(170_000, rel=0.01)
    assert (recipe.lr, recipe.schedule, recipe.momentum, recipe.weight_decay) == (0.04, "linear", 0.9, 2e-4)
    assert recipe.spec(1000).name == "squeezenet1_0"
    assert not recipe.batch_norm


def test_file_name_is_the_default_name(tmp_path):
    (tmp_path / "mine.toml").write_text("epochs = 1\nlr = 0.1\npools = [1, 3]\n")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.name, recipe.pools, recipe.batch_size) == ("mine", (1, 3), 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 1\nlr = 0.1\nlearning_rate = 1", r"only the settings .*batch_size.*; got learning_rate"),
        ("epochs = 1", "expected a value for lr, got none"),
        ("epochs = 1.5\nlr = 0.1", "expected `epochs` to be a whole number, got 1.5"),
        ("epochs = 0\nlr = 0.1", "expected `epochs` from 1 to 100000, got 0"),
        ("epochs = true\nlr = 0.1", "expected `epochs` to be a whole number, got True"),
        ("epochs = 1\nlr = nan", "expected `lr` from 0 to 100, got nan"),
        ("epochs = 1\nlr = 0.1\nhflip = 1", "expected `hflip` to be true or false, got 1"),
        ("epochs = 1\nlr = 0.1\noptimizer = 'adam'", "to be one of 'sgd', 'adamw', got 'adam'"),
        ("epochs = 1\nlr = 0.1\ncrop_scale = [0.5]", "expected `crop_scale` to be a list of 2 numbers"),
        ("epochs = 1\nlr = 0.1\ncrop_scale = [0.5, 35]", "expected `crop_scale` from 0.001 to 1, got 35"),
        ("epochs = 1\nlr = 0.1\ncrop_scale = [0.5, 0.3]", "as smallest and largest, got 0.5 and 0.3"),
        ("epochs = 1\nlr = 0.1\nwarmup_epochs = 1", "expected `warmup_epochs` below `epochs`"),
        ("epochs = 1\nlr = 0.1\nnesterov = true\nmomentum = 0", "positive `momentum` with `nesterov`"),
        ("epochs = 1\nlr = 0.1\ninput_size = 64\nresize_size = 32", "at least `input_size` .=64., got 32"),
        ("epochs = 1\nlr = 0.1\nname = 3", "expected `name` to be text, got 3"),
        ("epochs 1", "expected TOML, got something else"),
    ],
)
def test_bad_recipe_is_refused_with_file_and_setting(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=rf"bad\.toml: .*{message}"):
        load_recipe(path)


def test_unknown_recipe_names_the_known_ones(tmp_path):
    with pytest.raises(
        RecipeError,
        match="expected one of cifar10, cifar10-large, cifar10-tiny, digits, .* or a .toml file, got 'imagnet'",
    ):
        load_recipe("imagnet")
    with pytest.raises(RecipeError, match="cannot be read .No such file"):
        load_recipe(tmp_path / "absent.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(RecipeError, match="expected a file, got a folder"):
        load_recipe(tmp_path / "folder.toml")


def test_impossible_architecture_is_a_recipe_error():
    with pytest.raises(RecipeError, match="recipe custom: expected one of squeezenet1_0"):
        Recipe(epochs=1, lr=0.1, architecture="alexnet").spec(10)


def test_architecture_settings_reach_the_spec():
    recipe = Recipe(epochs=1, lr=0.1, input_size=32, pools=(3, 5), bypass="simple", batch_norm=True, squeeze_relu=False)
    spec = recipe.spec(7)
    assert (spec.pools, spec.bypass, spec.batch_norm, spec.squeeze_relu) == ((3, 5), "simple", True, False)
    assert (spec.head_relu, spec.num_classes, spec.input_size) == (False, 7, 32)


def test_new_networks_normalise_about_the_middle_grey():
    preprocessing = Recipe(epochs=1, lr=0.1).preprocessing()
    assert (preprocessing.mean, preprocessing.std) == ((128.0,) * 3, (64.0,) * 3)
    assert (preprocessing.crop_size, preprocessing.resize_size) == (224, 256)
    assert Recipe(epochs=1, lr=0.1, input_size=32).preprocessing().resize_size == 32


def test_weights_keep_their_preprocessing_but_for_a_size_the_recipe_names():
    recipe = Recipe(epochs=1, lr=0.1)
    assert recipe.preprocessing(TORCHVISION_PREPROCESSING) == TORCHVISION_PREPROCESSING
    smaller = recipe.replace(input_size=160).preprocessing(TORCHVISION_PREPROCESSING)
    assert smaller == dataclasses.replace(TORCHVISION_PREPROCESSING, crop_size=160, resize_size=183)


def test_metaparameters_change_the_architecture_and_its_name():
    plain = Recipe(epochs=1, lr=0.1, input_size=32)
    wide = plain.replace(base_e=64, incr_e=32, freq=3, squeeze_ratio=0.25, pct_3x3=0.25, n_fires=6, pools=(3,))
    spec = wide.spec(10)
    assert (plain.spec(10).name, spec.name) == ("squeezenet1_1", "custom")
    assert [fire.out_channels for fire in spec.fires] == [64, 64, 64, 96, 96, 96]
    assert (spec.fires[0].squeeze_channels, spec.fires[0].expand3x3_channels, spec.pools) == (16, 16, (3,))
    assert Recipe.from_dict(wide.to_dict()) == wide
