"""Training: recipes, the loop, checkpoints and run folders."""

from .recipe import RECIPE_NAMES, Recipe, load_recipe
from .run_folder import EpochRow
from .train import TrainResult, train_model

__all__ = ["RECIPE_NAMES", "EpochRow", "Recipe", "TrainResult", "load_recipe", "train_model"]
