"""From a float model and photos to the smallest integer network for a budget.

    statistics -> (slope -> rounding -> bytes, KL), bisected -> distillation within the budget -> check

A fifth of the photos is held out: it stops the distillation, and the reported KL is measured on it by the engine that
users run, on the file's own integers after encoding and decoding.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
from ..outcome import Outcome, RDPoint
from .activation_scales import choose_ranges
from .batches import augmented_photos, epoch_batches, photo_batches
from .distill import DistillSettings, Length, Rate, distill
from .sequential import RoundingSettings, round_network
from .statistics import Statistics, collect_statistics
from .units import IntegerConv, UnitNet, quantized_forward, to_network

__all__ = ["RDSettings", "compress_rate_distortion"]

_BATCH = 10
_MIN_PHOTOS = 10
_DEFAULT_MAX_KL = 0.05
# A twofold slope changes the bytes by about this factor, and the KL by the other: first guesses only.
_BYTES_PER_OCTAVE = 0.88
_KL_PER_OCTAVE = 2.1
_MAX_MOVE = 4.0  # octaves of slope at a time
_FIRST_MOVE = 2.0  # octaves, where accuracy is the target
_FIRST_SLOPE = 1.2e-7  # nats per bit, where the search begins
_MAX_PASSES = 7  # roundings of the whole network in the search for a budget
_TOLERANCE = 0.004  # a budget of bytes is met when this share of it, or less, is left
_KL_TOLERANCE = 0.05  # the same for KL, which differs as much between one choice of steps and the next
_POLISH_GAIN = 1.3  # KL to begin a distillation with, over the budget: what it is expected to win back
_STATISTICS_PHOTOS = 800  # most photos for sensitivities and moments: 1.0 keeps 5 MB of activations for each

Integers = Mapping[str, IntegerConv]
Progress = Callable[[str, float], None]
Epoch = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class RDSettings:
    """How to search; the defaults are what measured best."""

    rounding: RoundingSettings = field(default_factory=RoundingSettings)
    distillation: DistillSettings = field(default_factory=DistillSettings)
    channel_exponent: float = 0.5
    """Of activation steps: 0 one step a tensor, 1 each channel's own range."""
    clip: float = 1.0
    """Share of activation ranges to keep."""


def compress_rate_distortion(
    model: SqueezeNet,
    photos: NDArray[np.uint8],
    *,
    max_bytes: int | None = None,
    max_kl: float | None = None,
    max_drop: float | None = None,
    points_lost: Callable[[IntegerNetwork], float] | None = None,
    polish_minutes: float = 0,
    labelled: Epoch | None = None,
    labelled_steps: int = 0,
    seed: int = 0,
    settings: RDSettings | None = None,
    progress: Progress = lambda stage, share: None,
    overhead_bytes: int | None = None,
) -> Outcome:
    """Compress a model to a budget of bytes or of KL; without one, to a KL of 0.05.

    Args:
        model: Batch norm folded, with its preprocessing.
        photos: Unlabelled, after the model's preprocessing: (N, H, W, 3), uint8, at least 10. Their order matters for
            the split only; every fifth is held out.
        max_bytes: Largest file.
        max_kl: Largest KL on the held-out photos, nats.
        max_drop: Most points of top-1 to lose by the measure of `points_lost`.
        points_lost: Top-1 of the float network minus that of an integer network, in percent, on labelled images.
        polish_minutes: Time for distillation on the photos, after everything else.
        labelled: Gives an epoch of a labelled data set by its number, in batches of augmented pixels (n, H, W, 3)
            uint8 and labels (n,): trains on it under the same budget, towards the float network.
        labelled_steps: Batches to train on in all; with `labelled`, instead of `polish_minutes`.
        seed: Of labels, positions, crops and order. Equal seeds give equal files, except with `polish_minutes`: how
            many steps fit into them depends on the machine.
        settings: See there.
        progress: Called with the name of a stage and the share of it that is done.
        overhead_bytes: What the file takes besides its coded weights; by default that of one with the model's labels
            and preprocessing.

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
    if not given:
        max_kl = _DEFAULT_MAX_KL
    overhead = (
        file_overhead(model.spec, model.labels, model.preprocessing) if overhead_bytes is None else overhead_bytes
    )
    search = _Search(model, photos, settings or RDSettings(), seed, progress, overhead)
    length = Length(steps=labelled_steps) if labelled is not None else Length(seconds=60 * polish_minutes)
    with torch.no_grad():
        if max_bytes is not None:
            best = search.to_bytes(max_bytes, length, labelled)
            return search.result(best, best.file_bytes <= max_bytes)
        if points_lost is not None and max_drop is not None:
            best, is_met = search.to_drop(max_drop, points_lost, length, labelled)
            return search.result(best, is_met)
        assert max_kl is not None
        outcome = search.result(search.to_kl(max_kl, length, labelled), meets_target=True)
        return dataclasses.replace(outcome, meets_target=(outcome.held_out_kl or 0) <= max_kl)


@dataclass(frozen=True)
class _Candidate:
    integers: Integers
    slope: float
    weights: bytes
    """As they are in the file."""
    file_bytes: int
    kl: float


@dataclass(frozen=True)
class _Budget:
    """What a network may take: bytes or KL."""

    excess: Callable[[_Candidate], float]
    """Logarithm of what it takes over what it may."""
    per_octave: float
    """Expected change of the excess when the slope doubles."""
    tolerance: float
    """Excess below zero that is near enough."""
    rest: Callable[[_Candidate], float]
    """The other quantity, the smaller the better."""


class _Search:
    def __init__(
        self,
        model: SqueezeNet,
        photos: NDArray[np.uint8],
        settings: RDSettings,
        seed: int,
        progress: Progress,
        overhead_bytes: int,
    ) -> None:
        size = model.spec.input_size
        if photos.dtype != np.uint8 or photos.ndim != 4 or photos.shape[1:] != (size, size, 3):
            raise QuantizationError(
                f"expected photos of shape (N, {size}, {size}, 3) and dtype uint8, got {photos.shape} {photos.dtype}"
            )
        if len(photos) < _MIN_PHOTOS:
            raise QuantizationError(f"expected at least {_MIN_PHOTOS} calibration photos, got {len(photos)}")
        self._model, self._settings, self._seed = model, settings, seed
        self._progress, self._overhead_bytes = progress, overhead_bytes
        held = is_held_out(len(photos))
        self._held_out, self._photos = photos[held], photos[~held][:_STATISTICS_PHOTOS]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._points: list[RDPoint] = []
        with torch.no_grad():
            self._held_out_log_p = self._teacher(self._held_out).double().log_softmax(1)
        self._statistics = self._collect()
        with torch.no_grad():
            self._net = UnitNet.build(
                model,
                *choose_ranges(
                    model.spec,
                    self._statistics.channel_max,
                    channel_exponent=settings.channel_exponent,
                    clip=settings.clip,
                ),
            )

    def _collect(self) -> Statistics:
        preprocessing = required_preprocessing(self._model)
        return collect_statistics(
            self._model,
            lambda start, stop: normalize_pixels(self._photos[start:stop], preprocessing),
            len(self._photos),
            seed=self._seed,
            progress=lambda share: self._progress("sensitivities", share),
        )

    def to_bytes(self, max_bytes: int, length: Length, labelled: Epoch | None) -> _Candidate:
        """Find the best network within a number of bytes."""
        start = self._bisect(self._byte_budget(max_bytes))
        return start if length.is_zero else self._polish(start, max_bytes, length, labelled)

    def to_kl(self, max_kl: float, length: Length, labelled: Epoch | None) -> _Candidate:
        """Find the smallest network within a KL."""
        if length.is_zero:
            return self._bisect(self._kl_budget(max_kl))
        start = self._bisect(self._kl_budget(max_kl * _POLISH_GAIN))
        return self._polish(start, start.file_bytes, length, labelled)

    def to_drop(
        self, max_drop: float, points_lost: Callable[[IntegerNetwork], float], length: Length, labelled: Epoch | None
    ) -> tuple[_Candidate, bool]:
        """Find the smallest network that loses few enough points, and say whether there is one.

        Accuracy is a coarse and jumpy measure, so that the search only halves its steps where the answer changes.
        """
        tries: list[tuple[_Candidate, bool]] = []
        log_slope, move = math.log2(_FIRST_SLOPE), _FIRST_MOVE
        for _ in range(_MAX_PASSES):
            candidate = self._measure(self._round(2.0**log_slope), 2.0**log_slope)
            is_met = points_lost(to_network(self._net, candidate.integers)) <= max_drop
            if tries and is_met != tries[-1][1]:
                move /= 2
            tries.append((candidate, is_met))
            log_slope += move if is_met else -move
        met = [candidate for candidate, is_met in tries if is_met]
        if not met:
            return max((candidate for candidate, _ in tries), key=lambda c: c.file_bytes), False
        best = min(met, key=lambda c: c.file_bytes)
        smaller = [candidate for candidate, _ in tries if candidate.file_bytes < best.file_bytes]
        if length.is_zero or not smaller:
            return best, True
        # The largest of those that lost too much has the least to win back.
        start = max(smaller, key=lambda c: c.file_bytes)
        polished = self._polish(start, start.file_bytes, length, labelled)
        is_met = points_lost(to_network(self._net, polished.integers)) <= max_drop
        return (polished, True) if is_met else (best, True)

    def _bisect(self, budget: _Budget) -> _Candidate:
        """Search the slope at which a budget is just not exceeded."""
        log_slope = math.log2(_FIRST_SLOPE)
        tries: list[tuple[float, float, _Candidate]] = []
        for _ in range(_MAX_PASSES):
            candidate = self._measure(self._round(2.0**log_slope), 2.0**log_slope)
            excess = budget.excess(candidate)
            tries.append((log_slope, excess, candidate))
            if -budget.tolerance <= excess <= 0:
                break
            log_slope = _next_guess(tries, budget.per_octave, budget.tolerance)
        within = [candidate for _, excess, candidate in tries if excess <= 0]
        # KL is no smooth function of the slope: the last network within the budget need not be the best one.
        return min(within, key=budget.rest) if within else min(tries, key=lambda t: t[1])[2]

    def _polish(self, start: _Candidate, max_bytes: int, length: Length, labelled: Epoch | None) -> _Candidate:
        """Distil what was rounded; the price of bits keeps it within the bytes, else it stays as it was."""
        rate = Rate(
            slope=start.slope,
            max_bytes=max_bytes,
            measure=lambda c: self._overhead_bytes + len(encode_weights(to_network(self._net, c))),
        )
        with torch.enable_grad():
            integers, kl = distill(
                self._net,
                start.integers,
                self._batches(labelled),
                length,
                self._settings.distillation,
                self._held_out_kl,
                rate=rate,
                device=self._device,
                progress=lambda share: self._progress("distillation", share),
            )
        return self._measure(integers, start.slope, "distil", kl)

    def _byte_budget(self, max_bytes: float) -> _Budget:
        return _Budget(
            excess=lambda c: math.log(c.file_bytes / max_bytes),
            per_octave=math.log(_BYTES_PER_OCTAVE),
            tolerance=_TOLERANCE,
            rest=lambda c: c.kl,
        )

    def _kl_budget(self, max_kl: float) -> _Budget:
        return _Budget(
            excess=lambda c: math.log(max(c.kl, 1e-9) / max_kl),
            per_octave=math.log(_KL_PER_OCTAVE),
            tolerance=_KL_TOLERANCE,
            rest=lambda c: c.file_bytes,
        )

    def _round(self, slope: float) -> Integers:
        return round_network(
            self._net,
            self._statistics.row_grams,
            lambda start, stop: self._net.pixels(self._photos[start:stop]),
            len(self._photos),
            slope,
            self._settings.rounding,
            seed=self._seed,
            progress=lambda share: self._progress("rounding", share),
        )

    def _batches(self, labelled: Epoch | None) -> Iterator[Tensor]:
        if labelled is not None:
            return epoch_batches(labelled)
        settings = self._settings.distillation
        photos = augmented_photos(
            torch.from_numpy(self._photos),
            variants=settings.variants,
            smallest_crop=settings.smallest_crop,
            seed=self._seed,
        )
        return photo_batches(photos, batch=settings.batch, seed=self._seed)

    def _measure(
        self, integers: Integers, slope: float, stage: Literal["round", "distil"] = "round", kl: float | None = None
    ) -> _Candidate:
        weights = encode_weights(to_network(self._net, integers))
        size = self._overhead_bytes + len(weights)
        candidate = _Candidate(integers, slope, weights, size, self._held_out_kl(integers) if kl is None else kl)
        self._points.append(RDPoint(stage=stage, slope=slope, file_bytes=size, kl=candidate.kl))
        return candidate

    def _held_out_kl(self, integers: Integers) -> float:
        rows = []
        with torch.no_grad():
            for start in range(0, len(self._held_out), _BATCH):
                x = self._net.pixels(self._held_out[start : start + _BATCH])
                rows.append(quantized_forward(self._net, integers, x))
        return _mean_kl(self._held_out_log_p, torch.cat(rows))

    def _teacher(self, photos: NDArray[np.uint8] | Tensor) -> Tensor:
        preprocessing = required_preprocessing(self._model)
        batches = (photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH))
        return torch.cat([self._model(normalize_pixels(batch, preprocessing)) for batch in batches])

    def result(self, best: _Candidate, meets_target: bool) -> Outcome:
        """Decode the weights that were encoded, and run them on the held-out photos by the engine that users run."""
        network = to_network(self._net, best.integers)
        file = decode_sqz(encode_sqz(SqzFile(network=network), weights=best.weights))
        logits = Classifier(file).logits(np.ascontiguousarray(self._held_out))
        return Outcome(
            network=file.network,
            weights=best.weights,
            file_bytes=best.file_bytes,
            held_out_logits=logits,
            held_out_kl=_mean_kl(self._held_out_log_p, torch.from_numpy(logits)),
            meets_target=meets_target,
            points=tuple(self._points),
        )


def _next_guess(tries: list[tuple[float, float, _Candidate]], per_octave: float, tolerance: float) -> float:
    """Next log2 slope: interpolated where the budget is bracketed, else by the rate of change seen so far.

    Args:
        tries: Log2 slope and log excess over the budget of each attempt.
        per_octave: Expected change of the log excess with the log2 slope; its sign is relied on.
        tolerance: The excess to aim at is half of this, below zero.
    """
    over = [t for t in tries if t[1] > 0]
    under = [t for t in tries if t[1] <= 0]
    if over and under:
        first, second = min(over, key=lambda t: t[1]), max(under, key=lambda t: t[1])
        share = (first[1] + tolerance / 2) / (first[1] - second[1])
        return first[0] + min(max(share, 0.1), 0.9) * (second[0] - first[0])
    here = min(tries, key=lambda t: abs(t[1]))
    move = (-tolerance / 2 - here[1]) / per_octave
    # Each attempt on the same side doubles the least move: the rate may be far from what is expected.
    least = 0.2 * 2 ** (len(tries) - 1)
    return here[0] + math.copysign(min(max(abs(move), least), _MAX_MOVE), move)


def _mean_kl(log_p: Tensor, logits: Tensor) -> float:
    log_q = logits.double().log_softmax(1)
    return float((log_p.exp() * (log_p - log_q)).sum(1).mean())
