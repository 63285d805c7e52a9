"""Sequential rounding with error compensation and a rate term.

Columns of a weight matrix are rounded one after another; each error is made good by the columns not yet rounded, as
far as the inputs' second moments allow (optimal brain surgeon; GPTQ). The integer of a weight is the cheapest of
{nearest, one towards zero, zero} in distortion + lambda * bits, so that zeros emerge where they pay.

Use this for one layer; `sequential` goes through a network.

Source: Hassibi and Stork 1993; Frantar et al. 2022 (GPTQ, order of the Cholesky factor).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cholesky_of_inverse", "round_matrix", "round_rows", "row_feedback"]

_BLOCK = 64
_MAX = 127


def cholesky_of_inverse(moments: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Factor the inverse of an input moment matrix.

    Args:
        moments: (K, K), float64, positive semidefinite.
        damping: Share of the mean diagonal that is added to the diagonal.

    Returns:
        The upper factor U with (moments + damping)^-1 = U^T U, its rows divided by their diagonal, and the conditional
        energy 1 / U_jj^2 of each column given the ones after it, (K,).
    """
    damped = moments + torch.eye(len(moments), dtype=moments.dtype) * (damping * moments.diagonal().mean() + 1e-12)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    diagonal = upper.diagonal()
    return upper / diagonal[:, None], 1 / diagonal.square()


def round_rows(
    target: Tensor, upper: Tensor, energy: Tensor, slope: Tensor, bits: Tensor, contexts: Tensor | None = None
) -> Tensor:
    """Round a weight matrix, column by column.

    Args:
        target: (O, K), weights in steps of their row.
        upper: From `cholesky_of_inverse`, float32.
        energy: (K,), from the same.
        slope: (O,): what a bit costs, in units of squared steps times `energy`.
        bits: (contexts, 128): bits for each magnitude, sign included.
        contexts: (O, K), row of `bits` for each weight; all 0 without.

    Returns:
        (O, K), integer-valued float32.
    """
    work = target.clone()
    rows, columns = work.shape
    result = torch.empty_like(work)
    flat_bits = bits.flatten()
    width = bits.shape[1]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = torch.empty(rows, stop - start)
        block = work[:, start:stop].t().contiguous()  # one row a column, so that each is contiguous
        for j in range(start, stop):
            value = block[j - start]
            magnitude = value.abs()
            nearest = magnitude.round().clamp_(max=_MAX)
            offset = 0 if contexts is None else contexts[:, j] * width
            candidates = torch.stack([nearest, (nearest - 1).clamp_(min=0), torch.zeros_like(nearest)])
            cost = (magnitude - candidates).square_() * energy[j]
            cost += slope * flat_bits[candidates.long() + offset]
            chosen = candidates.gather(0, cost.argmin(0, keepdim=True))[0] * value.sign()
            result[:, j] = chosen
            error = value - chosen
            errors[:, j - start] = error
            if j + 1 < stop:
                block[j - start + 1 :] -= upper[j, j + 1 : stop, None] * error
        if stop < columns:
            work[:, stop:] -= errors @ upper[start:stop, stop:]
    return result


def row_feedback(correlation: Tensor, sensitivity: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """Factor the sensitivities of a layer's outputs, so that errors of rows are made good by later rows.

    Args:
        correlation: (O, O), of the gradients of rows; diagonal 1.
        sensitivity: (O,): energies of the rows on their own.
        damping: Weight of the identity mixed into the correlation.

    Returns:
        R and D of R^T diag(D) R = the damped matrix: R (O, O) with its unit diagonal left out, lower; and D (O,).
    """
    eye = torch.eye(len(correlation), dtype=correlation.dtype)
    matrix = (correlation + damping * eye) / (1 + damping)
    lower = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(matrix)))
    diagonal = lower.diagonal()
    factor = torch.linalg.solve_triangular(lower / diagonal, eye, upper=False)
    root = sensitivity.sqrt()
    return (factor - eye) * root / root[:, None], sensitivity / diagonal.square()


def round_matrix(
    target: Tensor,
    upper: Tensor,
    energy: Tensor,
    feedback: Tensor,
    slope: Tensor,
    bits: Tensor,
    contexts: Tensor,
) -> Tensor:
    """Round a weight matrix with compensation along rows and along columns.

    A weight's error is made good by the later weights of its row, and by the same column of later rows. Weight (o, j)
    waits for the ones above and before it, so all weights with the same o + j are rounded at once.

    Args:
        target: (O, K), weights in steps of their row.
        upper: From `cholesky_of_inverse`, float32.
        energy: (K,), from the same.
        feedback: (O, O), from `row_feedback`, in steps: what an error of row r (column) adds to row o (row).
        slope: (O,): what a bit costs, in units of squared steps times `energy`.
        bits: (contexts, 128), as in `round_rows`.
        contexts: (O, K).

    Returns:
        (O, K), integer-valued float32.

    Source: Tseng et al. 2025 (YAQA, two-sided feedback); the order of evaluation is our own.
    """
    rows, columns = target.shape
    work = target.clone()
    # What rows above add to each weight; padded, so that slices of the anti-diagonal need no cutting.
    added = torch.zeros(rows, columns + 2 * rows)
    result = torch.zeros_like(target)
    strict = upper - torch.eye(columns)
    feedback_reversed = feedback.flip(1)
    flat_bits, width = bits.flatten(), bits.shape[1]
    all_rows = torch.arange(rows)
    for time in range(rows + columns - 1):
        first, last = max(0, time - columns + 1), min(rows, time + 1)
        row = all_rows[first:last]
        column = time - row
        value = work[row, column] + added[row, column + rows]
        magnitude = value.abs()
        nearest = magnitude.round().clamp_(max=_MAX)
        candidates = torch.stack([nearest, (nearest - 1).clamp_(min=0), torch.zeros_like(nearest)])
        cost = (magnitude - candidates).square_() * energy[column]
        cost += slope[first:last] * flat_bits[candidates.long() + contexts[row, column] * width]
        chosen = candidates.gather(0, cost.argmin(0, keepdim=True))[0] * value.sign()
        result[row, column] = chosen
        residual = value - chosen
        work[first:last] -= residual[:, None] * strict[column]
        error = torch.zeros(rows)
        error[first:last] = target[row, column] - chosen
        added[:, time + 1 : time + 1 + rows] += feedback_reversed * error.flip(0)
    return result
