"""Training: recipes, the loop, checkpoints and run folders.

Use this when you want a network of your own: `train_model`.
"""

from .recipe import RECIPE_NAMES, Recipe, load_recipe
from .train import TrainResult, train_model

__all__ = ["RECIPE_NAMES", "Recipe", "TrainResult", "load_recipe", "train_model"]
