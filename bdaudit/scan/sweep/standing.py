"""How far screened texts stand out among those that are the null. Numbers in, numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NEAREST = 64
"""Screened texts that a text is compared with: those that move the encoding about as far."""
BINS = 20

Array = NDArray[np.float64]


def standings(values: Array, null: Array) -> Array:
    """(N,): how far each text stands out, in robust standard deviations, of the screened texts that move the encoding alike.

    (N, 3) as ``screened`` gives them, and (M, 3) of the texts that are the null. The larger of the two signals counts. How far the
    encoding moves explains a shift up to the null's 99.5th percentile only: a backdoor in the text encoder moves it further.
    """
    values, null = (np.column_stack([v[:, :2], np.minimum(v[:, 2], np.quantile(null[:, 2], 0.995))]) for v in (values, null))
    order = np.lexsort((*null[:, :2].T, null[:, 2]))
    ranked = null[order]
    residuals = np.stack([_residual(values, ranked, column) for column in (0, 1)])
    null_residuals = np.stack([_residual(null, ranked, column) for column in (0, 1)])
    spread = 1.4826 * np.median(np.abs(null_residuals - np.median(null_residuals, axis=1, keepdims=True)), axis=1, keepdims=True)
    standing: Array = (residuals / np.maximum(spread, 1e-9)).max(axis=0)
    return standing


def _residual(values: Array, ranked: Array, column: int) -> Array:
    """A column less a line in the level, less the rest's median over the window of ``ranked`` around each value's level: (N,)."""
    slope = line(ranked[:, 2], ranked[:, column])
    size = min(NEAREST, len(ranked))
    windows = np.lib.stride_tricks.sliding_window_view(ranked[:, column] - slope * ranked[:, 2], size)
    medians = np.median(windows, axis=1)
    at = np.searchsorted(ranked[:, 2], values[:, 2]) - size // 2
    residual: Array = values[:, column] - slope * values[:, 2] - medians[np.clip(at, 0, len(medians) - 1)]
    return residual


def line(level: Array, column: Array) -> float:
    """The slope through the medians of ``BINS`` equal parts, ``level`` ascending: no few texts can turn it. 0 for too few to tell.

    Without it the texts at either end, whose window cannot be centred on them, would stand out for their level alone.
    """
    if len(level) < 3 * BINS:
        return 0.0
    x, y = (np.array([np.median(part) for part in np.array_split(values, BINS)]) for values in (level, column))
    spread = float(np.square(x - x.mean()).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
