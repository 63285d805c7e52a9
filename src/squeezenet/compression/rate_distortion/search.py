"""Search for the smallest integer network of a float model within a budget, with photos.

    statistics -> (slope -> rounding -> bytes, KL), bisected -> distillation within the budget -> check

A fifth of the photos is held out: it stops the distillation, and the reported KL is measured on it by the engine that
users run, on the file's own integers after encoding and decoding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...classifier import Classifier
from ...errors import QuantizationError
from ...fileformat import SqzFile, decode_sqz, encode_sqz, encode_weights
from ...fileformat import overhead_bytes as file_overhead
from ...models import SqueezeNet, normalize_pixels
from ...network import IntegerNetwork
from ...quantization.photos import is_held_out
from ...quantization.quantize import required_preprocessing
from ..outcome import Distilled, Outcome, RDPoint
from .activation_scales import choose_ranges
from .batches import Lessons, augmented_photos, epoch_batches, photo_batches
from .distill import DistillSettings, Length, Rate, distill
from .sequential import round_network
from .statistics import collect_statistics
from .units import Integers, UnitNet, quantized_forward, to_network

__all__ = ["compress_rate_distortion"]

_BATCH = 10
_MIN_PHOTOS = 10
_DEFAULT_MAX_KL = 0.05
# Doubling the slope changes the bytes and the KL by about these factors; used for first guesses only.
_BYTES_PER_OCTAVE = 0.88
_KL_PER_OCTAVE = 2.1
_MAX_MOVE = 4.0  # largest change of the slope in one step, octaves
_FIRST_MOVE = 2.0  # first change of the slope if accuracy is the target, octaves
_FIRST_SLOPE = 1.2e-7  # slope at the start of the search, nats per bit
_MAX_PASSES = 7  # largest number of roundings of the network in a search
_TOLERANCE = 0.004  # the search stops when at most this share of the bytes is unused
_KL_TOLERANCE = 0.05  # the same for KL, which varies by this much between similar slopes
_POLISH_GAIN = 1.3  # KL before distillation divided by the budget: the expected gain of distillation
_STATISTICS_PHOTOS = 800  # most photos for sensitivities and moments: 1.0 needs 5 MB of activations per photo

Progress = Callable[[str, float], None]
PointsLost = Callable[[IntegerNetwork], float]


def compress_rate_distortion(
    model: SqueezeNet,
    photos: NDArray[np.uint8],
    *,
    max_bytes: int | None = None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    points_lost: PointsLost | None = None,
    polish_minutes: float = 0,
    lessons: Lessons | None = None,
    seed: int = 0,
    distillation: DistillSettings | None = None,
    progress: Progress = lambda stage, share: None,
    overhead_bytes: int | None = None,
    reference: SqueezeNet | None = None,
) -> Outcome:
    """Compress a model to a budget of bytes, of KL or of accuracy; without one, to a KL of 0.05.

    Args:
        model: Batch norm folded, with its preprocessing.
        photos: Unlabelled, after the model's preprocessing: (N, H, W, 3), uint8, at least 10; every fifth is held out.
        max_bytes: Largest file.
        max_kl: Largest KL on the held-out photos, nats.
        max_drop: Largest loss of top-1 as measured by `points_lost`, percentage points.
        points_lost: Top-1 of the float network minus that of an integer network, in percent, on labelled images.
        polish_minutes: Minutes of distillation on the photos, after all other steps.
        lessons: A data set to distil on instead, under the same budget.
        seed: Seed for sampled labels, positions, crops and order. Equal seeds give equal files, except with
            `polish_minutes`, where the number of steps depends on the machine.
        distillation: Settings of the distillation; the defaults are for a few hundred photos.
        progress: Called with the name of a stage and the share of it that is done.
        overhead_bytes: Size of the file besides its coded weights; by default with the model's labels and
            preprocessing.
        reference: The float network that KL is measured against, where `model` is a pruned form of it.

    Returns:
        The network, its encoded weights, the engine's class scores of the held-out photos, and all networks tried.

    Raises:
        QuantizationError: If photos are too few or of the wrong shape, or more than one budget is given.
    """
    budgets = {"max_bytes": max_bytes, "max_kl": max_kl, "max_drop": max_drop}
    if len(given := [name for name, value in budgets.items() if value is not None]) > 1:
        raise QuantizationError(f"expected one budget, got {' and '.join(given)}")
    if (max_drop is None) != (points_lost is None):
        raise QuantizationError("expected `points_lost` together with `max_drop`, got one without the other")
    if overhead_bytes is None:
        overhead_bytes = file_overhead(model.spec, model.labels, model.preprocessing)
    length = Length(steps=lessons.steps) if lessons is not None else Length(seconds=60 * polish_minutes)
    training = _Training(length, lessons, distillation or DistillSettings())
    search = _Search(model, reference or model, photos, training, seed, progress, overhead_bytes)
    with torch.no_grad():
        if max_bytes is not None:
            return search.to_bytes(max_bytes)
        if points_lost is not None and max_drop is not None:
            return search.to_drop(max_drop, points_lost)
        return search.to_kl(_DEFAULT_MAX_KL if max_kl is None else max_kl)


@dataclass(frozen=True)
class _Training:
    """Training that follows the rounding."""

    length: Length
    lessons: Lessons | None
    settings: DistillSettings


@dataclass(frozen=True)
class _Candidate:
    integers: Integers
    slope: float
    weights: bytes
    """Encoded weights, as in the file."""
    file_bytes: int
    kl: float


@dataclass(frozen=True)
class _Budget:
    """The budget of a network: bytes or KL."""

    excess: Callable[[_Candidate], float]
    """Logarithm of the ratio of the measured value to the budget."""
    per_octave: float
    """Expected change of the excess when the slope doubles."""
    tolerance: float
    """Excess below zero at which the search stops."""
    rest: Callable[[_Candidate], float]
    """The other quantity; smaller is better."""


class _Search:
    def __init__(
        self, model: SqueezeNet, reference: SqueezeNet, photos: NDArray[np.uint8], training: _Training, seed: int,
        progress: Progress, overhead_bytes: int,
    ) -> None:  # fmt: skip
        size = model.spec.input_size
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (size, size, 3):
            raise QuantizationError(
                f"expected photos of shape (N, {size}, {size}, 3) and dtype uint8, got {photos.shape} {photos.dtype}"
            )
        if len(photos) < _MIN_PHOTOS:
            raise QuantizationError(f"expected at least {_MIN_PHOTOS} calibration photos, got {len(photos)}")
        self._training, self._seed = training, seed
        self._progress, self._overhead_bytes = progress, overhead_bytes
        held = is_held_out(len(photos))
        self._held_out, self._photos = photos[held], photos[~held][:_STATISTICS_PHOTOS]
        self._points: list[RDPoint] = []
        self._distilled: Distilled | None = None
        self._reference, self._answers_of = reference, reference if reference is not model else None
        self._held_out_log_p = self._expected(self._held_out)
        statistics = collect_statistics(model, self._photos, seed=seed, progress=partial(progress, "sensitivities"))
        self._row_grams = statistics.row_grams
        with torch.no_grad():
            self._net = UnitNet.build(model, *choose_ranges(model.spec, statistics.channel_max))

    def to_bytes(self, max_bytes: int) -> Outcome:
        """Find the best network within a number of bytes."""
        best = self._bisect(_byte_budget(max_bytes))
        if not self._training.length.is_zero:
            best = self._polish(best, max_bytes)
        return self._result(best, meets_target=best.file_bytes <= max_bytes)

    def to_kl(self, max_kl: float) -> Outcome:
        """Find the smallest network within a KL."""
        if self._training.length.is_zero:
            best = self._bisect(_kl_budget(max_kl))
        else:
            start = self._bisect(_kl_budget(max_kl * _POLISH_GAIN))
            best = self._polish(start, start.file_bytes)
        outcome = self._result(best, meets_target=True)
        return dataclasses.replace(outcome, meets_target=(outcome.held_out_kl or 0) <= max_kl)

    def to_drop(self, max_drop: float, points_lost: PointsLost) -> Outcome:
        """Find the smallest network that loses few enough points.

        Accuracy is coarse and noisy, so the search only halves its steps and does not interpolate.
        """

        def is_met(candidate: _Candidate) -> bool:
            return points_lost(to_network(self._net, candidate.integers)) <= max_drop

        tries: list[tuple[_Candidate, bool]] = []
        log_slope, move = math.log2(_FIRST_SLOPE), _FIRST_MOVE
        for _ in range(_MAX_PASSES):
            candidate = self._rounded(2.0**log_slope)
            tries.append((candidate, is_met(candidate)))
            if len(tries) > 1 and tries[-1][1] != tries[-2][1]:
                move /= 2
            log_slope += move if tries[-1][1] else -move
        met = [candidate for candidate, is_within in tries if is_within]
        if not met:
            return self._result(max((c for c, _ in tries), key=lambda c: c.file_bytes), meets_target=False)
        best = min(met, key=lambda c: c.file_bytes)
        smaller = [candidate for candidate, _ in tries if candidate.file_bytes < best.file_bytes]
        if smaller and not self._training.length.is_zero:
            # Of the networks that lost too much accuracy, the largest one is the closest to the target.
            start = max(smaller, key=lambda c: c.file_bytes)
            polished = self._polish(start, start.file_bytes)
            best = polished if is_met(polished) else best
        return self._result(best, meets_target=True)

    def _bisect(self, budget: _Budget) -> _Candidate:
        """Search the slope at which a budget is just not exceeded."""
        log_slope = math.log2(_FIRST_SLOPE)
        tries: list[tuple[float, float, _Candidate]] = []
        for _ in range(_MAX_PASSES):
            candidate = self._rounded(2.0**log_slope)
            excess = budget.excess(candidate)
            tries.append((log_slope, excess, candidate))
            if -budget.tolerance <= excess <= 0:
                break
            log_slope = _next_guess(tries, budget.per_octave, budget.tolerance)
        within = [candidate for _, excess, candidate in tries if excess <= 0]
        # KL is not a smooth function of the slope: the last network within the budget may not be the best one.
        return min(within, key=budget.rest) if within else min(tries, key=lambda t: t[1])[2]

    def _polish(self, start: _Candidate, max_bytes: int) -> _Candidate:
        """Distil the rounded network within its bytes; if that does not improve it, the rounded network is kept."""
        lessons = self._training.lessons
        if lessons is not None:
            batches = epoch_batches(lessons.epoch)
        else:
            photos = augmented_photos(torch.from_numpy(self._photos), seed=self._seed)
            batches = photo_batches(photos, seed=self._seed)

        def measure(integers: Integers) -> int:
            return self._overhead_bytes + len(encode_weights(to_network(self._net, integers)))

        rate = Rate(slope=start.slope, max_bytes=max_bytes, measure=measure)
        with torch.enable_grad():
            integers, kl = distill(
                self._net, start.integers, batches, self._training.length, self._training.settings, self._held_out_kl,
                answers_of=self._answers_of, rate=rate, progress=partial(self._progress, "distillation"),
                device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            )  # fmt: skip
        if lessons is not None and lessons.held_out is not None:
            own = [self._kl_on(lessons.held_out, each) for each in (start.integers, integers)]
            self._distilled = Distilled(kl_before=start.kl, kl_after=kl, own_kl_before=own[0], own_kl_after=own[1])
        return self._measure(integers, start.slope, "distil", kl)

    def _rounded(self, slope: float) -> _Candidate:
        progress = partial(self._progress, "rounding")
        integers = round_network(self._net, self._row_grams, self._photos, slope, seed=self._seed, progress=progress)
        return self._measure(integers, slope, "round", self._held_out_kl(integers))

    def _measure(self, integers: Integers, slope: float, stage: Literal["round", "distil"], kl: float) -> _Candidate:
        weights = encode_weights(to_network(self._net, integers))
        size = self._overhead_bytes + len(weights)
        self._points.append(RDPoint(stage=stage, slope=slope, file_bytes=size, kl=kl))
        return _Candidate(integers, slope, weights, size, kl)

    @torch.no_grad()
    def _held_out_kl(self, integers: Integers) -> float:
        batches = _in_batches(self._held_out)
        logits = [quantized_forward(self._net, integers, self._net.pixels(batch)) for batch in batches]
        return _mean_kl(self._held_out_log_p, torch.cat(logits))

    @torch.no_grad()
    def _kl_on(self, photos: NDArray[np.uint8], integers: Integers) -> float:
        """Mean KL on any photos, by the same simulation."""
        batches = [self._net.pixels(batch) for batch in _in_batches(photos)]
        logits = torch.cat([quantized_forward(self._net, integers, batch) for batch in batches])
        return _mean_kl(self._expected(photos), logits)

    @torch.no_grad()
    def _expected(self, photos: NDArray[np.uint8]) -> Tensor:
        """Log-probabilities of the float network, (n, classes), float64."""
        preprocessing = required_preprocessing(self._reference)
        logits = [self._reference(normalize_pixels(batch, preprocessing)) for batch in _in_batches(photos)]
        return torch.cat(logits).double().log_softmax(1)

    def _result(self, best: _Candidate, *, meets_target: bool) -> Outcome:
        """Decode the encoded weights, and run them on the held-out photos with the native engine."""
        network = to_network(self._net, best.integers)
        file = decode_sqz(encode_sqz(SqzFile(network=network), weights=best.weights))
        logits = Classifier(file).logits(np.ascontiguousarray(self._held_out))
        kl = _mean_kl(self._held_out_log_p, torch.from_numpy(logits))
        return Outcome(
            network=file.network, weights=best.weights, file_bytes=best.file_bytes, held_out_logits=logits,
            held_out_kl=kl, meets_target=meets_target, points=tuple(self._points),
            distilled=self._distilled,
        )  # fmt: skip


def _byte_budget(max_bytes: float) -> _Budget:
    change = math.log(_BYTES_PER_OCTAVE)

    def excess(candidate: _Candidate) -> float:
        return math.log(candidate.file_bytes / max_bytes)

    def rest(candidate: _Candidate) -> float:
        # A few dozen photos find the KL of a network within a tenth: of two that seem alike, the larger one is better.
        expected = math.log(_KL_PER_OCTAVE) / change * excess(candidate)
        return math.log(max(candidate.kl, 1e-9)) + expected

    return _Budget(excess, change, _TOLERANCE, rest)


def _kl_budget(max_kl: float) -> _Budget:
    change = math.log(_KL_PER_OCTAVE)
    return _Budget(lambda c: math.log(max(c.kl, 1e-9) / max_kl), change, _KL_TOLERANCE, lambda c: c.file_bytes)


def _in_batches(photos: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH))


def _next_guess(tries: list[tuple[float, float, _Candidate]], per_octave: float, tolerance: float) -> float:
    """Next log2 slope: interpolated where the budget is bracketed, else by the expected rate of change.

    `tries` holds log2 slope and log excess over the budget; the excess to aim at is half of the tolerance, below zero.
    """
    over = [t for t in tries if t[1] > 0]
    under = [t for t in tries if t[1] <= 0]
    if over and under:
        first, second = min(over, key=lambda t: t[1]), max(under, key=lambda t: t[1])
        share = (first[1] + tolerance / 2) / (first[1] - second[1])
        return first[0] + min(max(share, 0.1), 0.9) * (second[0] - first[0])
    here = min(tries, key=lambda t: abs(t[1]))
    move = (-tolerance / 2 - here[1]) / per_octave
    # Each attempt on the same side doubles the smallest move, because the expected rate may be far off.
    least = 0.2 * 2 ** (len(tries) - 1)
    return here[0] + math.copysign(min(max(abs(move), least), _MAX_MOVE), move)


def _mean_kl(log_p: Tensor, logits: Tensor) -> float:
    log_q = logits.double().log_softmax(1)
    return float((log_p.exp() * (log_p - log_q)).sum(1).mean())
