"""Training inside a compressor: short runs in memory, under a constraint on the weights.

The data is decoded once and used by every run; nothing is written.

Use this when a compressor must recover accuracy; use `train_model` to train a network.
"""

from __future__ import annotations

import copy

import torch

from ..data.augment import draw_epoch
from ..models import SqueezeNet
from ..preprocess import Preprocessing
from ..train.loop import open_batches
from ..train.progress import Reporter, SilentReporter
from ..train.recipe import Recipe
from ..train.setup import Data, prepare_data
from ..train.state import TrainingState
from ..train.steps import Constraint, choose_precision, train_step

__all__ = ["Retrainer"]


class Retrainer:
    """Labelled data, ready to train on again and again."""

    def __init__(self, data: Data, model: SqueezeNet, recipe: Recipe, *, reporter: Reporter | None = None) -> None:
        """Decode the data.

        Args:
            data: Images in class folders; all of them are trained on.
            model: Its labels number the classes, its preprocessing makes the pixels.
            recipe: Says how images are augmented.
            reporter: Shows progress.

        Raises:
            DataError: If the images cannot be used.
        """
        raise NotImplementedError
