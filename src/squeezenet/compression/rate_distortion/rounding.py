"""Sequential rounding with error compensation and a rate term.

Columns of a weight matrix are rounded one after another. The error of each column is compensated in the columns that
are not yet rounded, as far as the inputs' second moments allow (optimal brain surgeon; GPTQ). The integer of a weight
is the one of {nearest, one towards zero, zero} with the smallest distortion + lambda * bits, so a weight becomes zero
if the saved bits are worth the error. When all columns are rounded, `refine_rows` moves single weights if that lowers
the sum.

Source: Hassibi and Stork 1993; Frantar et al. 2022 (GPTQ, order of the Cholesky factor).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...codec.rate import ColumnPass, RateModel
from ...network import MAX_ABS_WEIGHT

__all__ = ["cholesky_of_inverse", "first_guess", "refine_rows", "round_rows"]

_BLOCK = 64
_DEAD_ZONE = 0.15  # of guesses that no error compensation or price has touched


def cholesky_of_inverse(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Factor the inverse of an input moment matrix (K, K), float64, positive definite.

    Returns:
        The upper factor U with moments^-1 = U^T U, its rows divided by their diagonal, and the conditional energy
        1 / U_jj^2 of each column given the ones after it, (K,).
    """
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    diagonal = upper.diagonal()
    return upper / diagonal[:, None], 1 / diagonal.square()


def round_rows(target: Tensor, upper: Tensor, energy: Tensor, price: Tensor, rate: RateModel) -> Tensor:
    """Round a weight matrix, column by column, to integer-valued float32 (O, K).

    Args:
        target: (O, K), weights in steps of their row.
        upper: From `cholesky_of_inverse`, float32.
        energy: (K,), from `cholesky_of_inverse`.
        price: (O,), cost of a bit in units of squared steps times `energy`.
        rate: Model of the bits of integers, given the columns before them.
    """
    work = target.clone()
    rows, columns = work.shape
    result = torch.empty_like(work)
    coder = rate.start()
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.empty(rows, stop - start)
        block = work[:, start:stop].t().contiguous()  # one row per column, so that each is contiguous
        for j in range(start, stop):
            value = block[j - start]
            nearest = value.round().clamp_(-MAX_ABS_WEIGHT, MAX_ABS_WEIGHT)
            candidates = torch.stack([nearest, nearest - nearest.sign(), torch.zeros_like(nearest)], 1)
            guess = value.sign() * (value.abs() - _DEAD_ZONE).clamp_(min=0).round()
            cost = (value[:, None] - candidates).square_() * energy[j]
            cost += price[:, None] * _bits(coder, guess, candidates)
            chosen = candidates.gather(1, cost.argmin(1, keepdim=True))[:, 0]
            coder.append(chosen.numpy().astype(np.int64))
            result[:, j] = chosen
            error = value - chosen
            errors[:, j - start] = error
            if j + 1 < stop:
                block[j - start + 1 :] -= upper[j, j + 1 : stop, None] * error
        if stop < columns:
            work[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


def refine_rows(target: Tensor, rounded: Tensor, moments: Tensor, price: Tensor, rate: RateModel) -> Tensor:
    """Move single weights by one step, or to zero, where that lowers distortion + lambda * bits; once over all columns.

    The effect of a move on the bits of later weights is ignored. The search starts from `rounded`. `moments` are the
    inputs' second moments (K, K), float32: the distortion of an error e is e moments e^T. Other arguments are as for
    `round_rows`.
    """
    result = rounded.t().clone(memory_format=torch.contiguous_format)  # one row per column
    slope = ((rounded - target) @ moments).t().contiguous()
    coder = rate.start()
    for j, column in enumerate(result):
        candidates = torch.stack([column, column - 1, column + 1, torch.zeros_like(column)], 1).clamp_(
            -MAX_ABS_WEIGHT, MAX_ABS_WEIGHT
        )
        moves = candidates - column[:, None]
        cost = moves.square() * moments[j, j] + 2 * moves * slope[j][:, None]
        cost += price[:, None] * _bits(coder, column, candidates)
        best = cost.argmin(1)
        moved = best.nonzero()[:, 0]
        if len(moved):
            move = moves[moved, best[moved]]
            slope[:, moved] += moments[j][:, None] * move
            column[moved] += move
        coder.append(column.numpy().astype(np.int64))
    return result.t().contiguous()


def _bits(coder: ColumnPass, guess: Tensor, candidates: Tensor) -> Tensor:
    bits = coder.bits(guess.numpy().astype(np.int64), candidates.numpy().astype(np.int64))
    return torch.from_numpy(bits.astype(np.float32))


def first_guess(target: Tensor) -> Tensor:
    """Integers with a dead zone around zero, to fit a rate model on; (O, K) like `target`, which is in steps."""
    guess: Tensor = target.sign() * (target.abs() - _DEAD_ZONE).clamp(min=0).round().clamp(max=MAX_ABS_WEIGHT)
    return guess
