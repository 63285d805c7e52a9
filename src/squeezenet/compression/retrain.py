"""Training inside a compressor: short runs in memory, with a constraint on the weights; no files are written."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from ..data import ImageSet, check_data, decode_batches
from ..models import SqueezeNet, normalize_pixels
from ..preprocess import Preprocessing
from ..progress import Reporter
from ..quantization.quantize import required_preprocessing
from ..training.constraints import Constraint
from ..training.feed.augment import Augmentation, EpochDraw
from ..training.feed.batches import TrainBatches
from ..training.recipe import Recipe
from ..training.state import TrainingState
from ..training.step import choose_precision, epoch_size, epoch_steps
from ..training.teacher import Teacher

__all__ = ["Retrainer", "gentle_augmentation"]

# Crops vary less than in training from scratch: a trained network is to be kept, not found.
_PHOTO_CROPS = Recipe(epochs=1, lr=0.0, crop="random_resized", crop_scale=(0.35, 1.0))
_MIRROR_IMAGES = 200
_MIRROR_AGREEMENT = 0.8  # CIFAR-10 and imagenette: 0.95 and above; digits: 0.3


class Retrainer:
    """Labelled data, prepared for repeated short trainings."""

    def __init__(self, images: ImageSet, model: SqueezeNet, reporter: Reporter) -> None:
        """Check and decode images at the model's input size; classes are numbered as in the model.

        Raises:
            DataError: If the images cannot be used.
            QuantizationError: If the model has no preprocessing.
        """
        preprocessing = required_preprocessing(model)
        check = check_data(images, None)
        for line in check.summary():
            reporter.say(line)
        with reporter.task("decoding", len(check.train)) as task:
            self._batches = TrainBatches.open(
                check.train, check.train_sizes, gentle_augmentation(model, check.train), preprocessing,
                feeds_gpu=torch.cuda.is_available(), on_progress=lambda done, _: task.update(done),
            )  # fmt: skip
        self.reporter = reporter
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def n_images(self) -> int:
        """Images in an epoch."""
        return self._batches.n_images

    def epoch(self, number: int, *, batch_size: int, seed: int = 0) -> Iterator[Tensor]:
        """Augment and shuffle one epoch: pixels (n, H, W, 3), uint8, of batch after batch."""
        draw = EpochDraw(self.n_images, seed, number)
        steps = max(1, self.n_images // batch_size)
        for batch in self._batches.epoch(draw, batch_size=batch_size, first_step=0, n_steps=steps):
            yield batch.pixels

    def run(
        self, model: SqueezeNet, recipe: Recipe, rule: Constraint, *, title: str, teacher: SqueezeNet | None = None
    ) -> SqueezeNet:
        """Train a copy of a network.

        Args:
            model: The network to start from; it is not changed.
            recipe: Optimiser, learning rate and length; its augmentation is not used.
            rule: Constraint on the weights, which the result satisfies exactly.
            title: Title of the progress bar.
            teacher: Source of the soft targets of the recipe's `distillation`; not changed.

        Raises:
            TrainingError: If the loss is not finite in 10 steps in a row.
        """
        student = copy.deepcopy(model)
        student.dropout = recipe.dropout
        teaching = Teacher(copy.deepcopy(teacher).to(self._device)) if teacher else None
        precision = choose_precision(self._device)
        state = TrainingState.start(recipe, student, precision=precision, data_id="", device=self._device)
        batch_size, n_steps = epoch_size(recipe, self.n_images)
        with self.reporter.task(title, recipe.epochs * n_steps * batch_size) as task:
            for state.epoch in range(recipe.epochs):
                state.step = 0
                for loss, *_ in epoch_steps(state, self._batches, constraint=rule, teacher=teaching):
                    done = (state.epoch * n_steps + state.step) * batch_size
                    task.update(done, f"loss {loss:.3f}" if loss is not None else "step undone")
        return state.usable_model.requires_grad_(requires_grad=True).cpu().eval()


def gentle_augmentation(model: SqueezeNet, images: ImageSet) -> Augmentation:
    """Choose mild crops, and mirroring if the network gives mirrored images the same class."""
    preprocessing = required_preprocessing(model)
    is_photo = preprocessing.resize_size > preprocessing.crop_size
    small = {} if is_photo else {"crop": "random", "crop_pad": max(1, preprocessing.crop_size // 8)}
    crops = _PHOTO_CROPS.replace(hflip=_survives_mirroring(model, images, preprocessing), **small)
    return Augmentation.of(crops, preprocessing)


@torch.no_grad()
def _survives_mirroring(model: SqueezeNet, images: ImageSet, preprocessing: Preprocessing) -> bool:
    """Test whether mirroring keeps the predicted classes; it does not for digits and letters."""
    same = n_images = 0
    for batch in decode_batches(images.sample(_MIRROR_IMAGES), preprocessing):
        pixels = torch.from_numpy(batch.pixels)
        answers = [model(normalize_pixels(view, preprocessing)).argmax(1) for view in (pixels, pixels.flip(2))]
        same, n_images = same + int((answers[0] == answers[1]).sum()), n_images + len(pixels)
    return same >= _MIRROR_AGREEMENT * n_images
