"""The steps of an epoch, and validation; `epoch_steps` is the only loop around `train_step`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.decode import Unreadable
from ..errors import TrainingError
from ..evaluation.metrics import Accuracy
from ..models import SqueezeNet, normalize_pixels
from .constraints import Constraint
from .distributed import ALONE, Workers
from .feed.batches import Batch, TrainBatches
from .feed.shards import ShardBatches
from .mixing import mix, trivial_augment
from .recipe import Recipe
from .schedule import learning_rate, set_learning_rate
from .state import TrainingState, seed_step
from .teacher import Teacher

__all__ = ["Step", "choose_device", "choose_precision", "epoch_size", "epoch_steps", "train_step", "validate"]

_MAX_SKIPPED_IN_A_ROW = 10  # steps without a finite loss, after which training ends with an error


class Step(NamedTuple):
    """The result of one step."""

    loss: float | None
    """Mean loss over the images of all processes, nats; None if the step was undone or had no image."""
    n_images: int
    """Number of images of this process."""
    unreadable: list[Unreadable]
    """Unreadable images of this process."""

    @property
    def is_undone(self) -> bool:
        """Whether the loss or its gradient was not finite."""
        return self.loss is None and self.n_images > 0


def epoch_size(recipe: Recipe, n_images: int) -> tuple[int, int]:
    """Images per step, of all processes together, and steps per epoch."""
    batch_size = min(recipe.batch_size, n_images)
    return batch_size, n_images // batch_size


def epoch_steps(
    state: TrainingState,
    batches: TrainBatches | ShardBatches,
    *,
    constraint: Constraint | None = None,
    workers: Workers = ALONE,
    teacher: Teacher | None = None,
    class_weights: Tensor | None = None,
) -> Iterator[Step]:
    """Take the remaining steps of the state's epoch, and yield after each.

    `state` is complete whenever a step is yielded: it may be saved, and its recipe's learning rate changed.
    Arguments are as in `train_step`.

    Raises:
        TrainingError: If the loss is not finite in 10 steps in a row.
        DataError: If shards cannot be read.
    """
    batch_size, n_steps = epoch_size(state.recipe, batches.n_images)
    sizes = {"batch_size": batch_size, "first_step": state.step, "n_steps": n_steps}
    for batch in batches.epoch(batches.draw(state.recipe, state.epoch), share=workers.share, **sizes):
        loss = train_step(
            state, batch, steps_per_epoch=n_steps, constraint=constraint, workers=workers, teacher=teacher,
            class_weights=class_weights,
        )  # fmt: skip
        step = Step(loss, len(batch.labels), batch.unreadable)
        state.step += 1
        if loss is not None:
            state.loss_sum += loss * step.n_images
            state.images_seen += step.n_images
            state.skipped_in_a_row = 0
        elif step.is_undone:
            state.skipped_steps += 1
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
                raise TrainingError(
                    f"expected a finite loss, got none in {state.skipped_in_a_row} steps in a row: use a smaller `lr`"
                    f" (={state.recipe.lr}), a longer `warmup_epochs` or a limit for `clip_grad_norm`"
                )
        yield step


def choose_device(name: str) -> torch.device:
    """Look up a device by torch's name; `auto` is the GPU if there is one.

    Raises:
        TrainingError: If torch does not have such a device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise TrainingError(f"expected `device` auto, cpu or cuda, got {name!r} ({error})") from None


def choose_precision(device: torch.device) -> str:
    """Take bfloat16 where the processor multiplies it natively; elsewhere it would only be slower."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.4
    capabilities = get_capabilities() if get_capabilities else {}
    has_bfloat16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return "bfloat16" if has_bfloat16 else "float32"


def train_step(
    state: TrainingState,
    batch: Batch,
    *,
    steps_per_epoch: int,
    constraint: Constraint | None = None,
    workers: Workers = ALONE,
    teacher: Teacher | None = None,
    class_weights: Tensor | None = None,
) -> float | None:
    """Move the weights by one batch.

    Args:
        state: The run; its model, optimizer and average move.
        batch: This process's share of the images.
        steps_per_epoch: For the learning rate's schedule.
        constraint: A constraint on the weights.
        workers: The processes that take this step together.
        teacher: A network whose predictions are learnt as well.
        class_weights: Weight of each class in the loss, shape (classes,).

    Returns:
        The mean loss of all processes' images, or None if it or its gradient was not finite, or there was no image:
        then nothing has moved.
    """
    model, recipe = state.model, state.recipe
    step = state.epoch * steps_per_epoch + state.step
    is_frozen = state.epoch < recipe.freeze_features_epochs
    set_learning_rate(state.optimizer, learning_rate(recipe, step=step, steps_per_epoch=steps_per_epoch))
    seed_step(recipe.seed, step, workers.rank)
    model.train()
    model.features.train(not is_frozen)
    # A forward pass moves the statistics of batch norms, which has to be undone with the step.
    buffers = [buffer.clone() for buffer in model.buffers()]
    state.optimizer.zero_grad(set_to_none=True)
    # All processes must agree on the number of images before the first gradient, and on whether to take the step.
    n_images = workers.sum_numbers(len(batch.labels))[0]
    if not n_images:
        return None
    total = _Loss(state, teacher, class_weights, is_frozen=is_frozen).backward(batch, n_images)
    _sum_gradients(model.head if is_frozen else model, workers)
    if constraint:
        constraint.on_gradients(model)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad_norm or math.inf)
    # The only place where a GPU is waited for: it has the whole step to work on by now.
    own_loss, largest = torch.stack([total, norm.to(total)]).tolist()
    value = workers.sum_numbers(own_loss)[0]
    if not (math.isfinite(value) and math.isfinite(largest)):
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        return None
    state.optimizer.step()
    if constraint:
        constraint.on_weights(model)
    workers.sum_tensors([b for b in model.buffers() if b.is_floating_point()], divide_by=workers.size)
    if state.average:
        state.average.update(step)
    return value


class _Loss:
    """The loss that a step minimises."""

    def __init__(
        self, state: TrainingState, teacher: Teacher | None, class_weights: Tensor | None, *, is_frozen: bool
    ) -> None:
        self.state, self.class_weights, self.is_frozen = state, class_weights, is_frozen
        self.teacher = teacher if state.recipe.distillation else None

    def backward(self, batch: Batch, n_images: float) -> Tensor:
        """Add the gradients of the mean over `n_images`; return this batch's part of the mean, a scalar in nats."""
        device = self.state.device
        pixels, labels = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.labels))
        n_parts = min(self.state.recipe.accumulate, len(labels))
        total = torch.zeros((), device=device)
        for part in range(n_parts):
            rows = slice(part * len(labels) // n_parts, (part + 1) * len(labels) // n_parts)
            loss = self.sum_over(pixels[rows], labels[rows]) / n_images
            total += loss.detach()
            loss.backward()  # type: ignore[no-untyped-call]
        return total

    def sum_over(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """Run some images through the network; the sum of their losses in nats."""
        model, recipe = self.state.model, self.state.recipe
        assert model.preprocessing is not None
        targets = labels
        if recipe.trivial_augment:
            pixels = trivial_augment(pixels)
        if recipe.mixup or recipe.cutmix:
            pixels, targets = mix(pixels.float(), labels, recipe, model.spec.num_classes)
        x_NCHW = normalize_pixels(pixels, model.preprocessing)
        with torch.autocast(x_NCHW.device.type, torch.bfloat16, enabled=self.state.precision == "bfloat16"):
            with torch.set_grad_enabled(not self.is_frozen):
                features = self.state.forward_features(x_NCHW)
            logits = model.forward_head(features)
            answers = self.teacher.logits(pixels) if self.teacher else None
        loss = F.cross_entropy(
            logits.float(), targets, weight=self.class_weights, label_smoothing=recipe.label_smoothing, reduction="sum"
        )
        if self.teacher and answers is not None:
            loss = torch.lerp(loss, self.teacher.loss_sum(logits.float(), answers), recipe.distillation)
        return loss


def _sum_gradients(trained: nn.Module, workers: Workers) -> None:
    if workers.size == 1:
        return
    gradients = []
    for parameter in trained.parameters():
        if parameter.grad is None:  # no image of this process could be read
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    workers.sum_tensors(gradients)


@torch.no_grad()
def validate(model: SqueezeNet, batches: Iterable[Batch], workers: Workers = ALONE) -> tuple[Accuracy, float]:
    """Measure a network in float32, as it will be used: the accuracy, and the mean loss in nats.

    Each of the workers measures its share of the images, and all get the same result.
    """
    model.eval()
    device = model.head.weight.device
    assert model.preprocessing is not None
    accuracy = Accuracy(n_images=0, top1_correct=0, top5_correct=0)
    loss_sum = 0.0
    for batch in batches:
        if not len(batch.labels):
            continue
        logits = model(normalize_pixels(batch.pixels.to(device), model.preprocessing)).float().cpu()
        loss_sum += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        accuracy += Accuracy.of(logits.numpy(), batch.labels.numpy())
    *counts, loss_sum = workers.sum_numbers(*dataclasses.astuple(accuracy), loss_sum)
    n_images, top1, top5 = map(int, counts)
    return Accuracy(n_images=n_images, top1_correct=top1, top5_correct=top5), loss_sum / max(n_images, 1)
