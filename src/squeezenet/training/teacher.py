"""Learning from another network's predictions (distillation)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, TrainingError
from ..models import SqueezeNet, load_model, normalize_pixels
from .recipe import Recipe

__all__ = ["Teacher", "open_teacher"]


class Teacher:
    """A trained network whose predictions are learnt besides the labels.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network".
    """

    def __init__(self, model: SqueezeNet, outputs: Sequence[int] | None = None, *, temperature: float = 1.0) -> None:
        """Wrap a network with labels and preprocessing; `outputs` are those of the student's classes, in order."""
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.outputs = torch.tensor(range(model.spec.num_classes) if outputs is None else outputs)
        self.temperature = temperature

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; a resumed run must use the same teacher."""
        digest = hashlib.sha256()
        for tensor in self.model.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def logits(self, pixels_NHWC: Tensor) -> Tensor:
        """Classify the student's images (N, H, W, 3), 0 to 255, at the teacher's input size."""
        assert self.model.preprocessing is not None
        size = self.model.preprocessing.crop_size
        if pixels_NHWC.shape[1] != size:
            x_NCHW = pixels_NHWC.permute(0, 3, 1, 2).float()
            x_NCHW = F.interpolate(x_NCHW, (size, size), mode="bilinear", antialias=True, align_corners=False)
            pixels_NHWC = x_NCHW.permute(0, 2, 3, 1)
        logits: Tensor = self.model(normalize_pixels(pixels_NHWC, self.model.preprocessing))
        return logits[:, self.outputs.to(logits.device)]

    def loss_sum(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Sum over images of the cross-entropy with the teacher's softened predictions, times the temperature
        squared.
        """
        wanted = F.softmax(teacher_logits.float() / self.temperature, dim=1)
        return F.cross_entropy(logits / self.temperature, wanted, reduction="sum") * self.temperature**2


def open_teacher(recipe: Recipe, student: SqueezeNet) -> Teacher | None:
    """Load the recipe's teacher, if it names one.

    Raises:
        WeightsError: If it cannot be read.
        TrainingError: If it lacks classes of the student.
    """
    if recipe.teacher is None:
        return None
    model = load_model(recipe.teacher)
    labels = student.labels
    assert labels is not None
    if model.labels is None or model.preprocessing is None:
        raise TrainingError(f"{recipe.teacher}: expected a teacher with class names and preprocessing, got one without")
    try:
        positions = model.labels.match(labels.ids or labels.names)
    except DataError as error:
        text = f"expected a teacher that has all classes of the data ({error})"
        raise TrainingError(f"{recipe.teacher}: {text}") from None
    outputs = [positions[name] for name in (labels.ids or labels.names)]
    teacher = Teacher(model, outputs, temperature=recipe.distill_temperature)
    teacher.model.to(device=student.head.weight.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return teacher
