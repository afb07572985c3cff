"""Values that stand apart from the rest of their kind. Numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bdaudit.stats import ExponentialTail

CHANCE = 0.01
"""That anything of one sample stands apart where nothing does, as far as its tail is exponential."""
FEWEST = 30
"""Values that a tail is told by: a fifth of them, and one beyond five of these."""
_MAD = 1.4826
"""Median absolute deviation → the standard deviation of a normal sample."""

Array = NDArray[np.float64]


def standard(values: ArrayLike) -> Array:
    """Robust standard scores: distances from the median, in units of the sample's own spread. (N,) → (N,); zeros where it has none."""
    x = np.asarray(values, dtype=np.float64)
    centred = x - np.median(x)
    spread = _MAD * float(np.median(np.abs(centred)))
    return centred / spread if spread > 0 else np.zeros_like(x)


def standard_by_kind(values: ArrayLike, kinds: Sequence[str], fewest: int = 4) -> Array:
    """The same, each value among those of its kind; 0 for kinds of fewer than ``fewest``. (N,) → (N,)."""
    x, scores = np.asarray(values, dtype=np.float64), np.zeros(len(kinds))
    for kind in set(kinds):
        own = [i for i, each in enumerate(kinds) if each == kind]
        if len(own) >= fewest:
            scores[own] = x[own] - np.median(x[own])
    spread = _MAD * float(np.median(np.abs(scores))) if kinds else 0.0
    return scores / spread if spread > 0 else np.zeros_like(scores)


def apart(scores: ArrayLike) -> list[int]:
    """Indices of scores that do not belong to their sample's own upper tail, the farthest first; none of fewer than ``FEWEST``.

    A forward search (``ExponentialTail.stragglers``), so that several cannot hide each other, at ``CHANCE`` for all of them together.
    """
    x = np.asarray(scores, dtype=np.float64)
    if len(x) < FEWEST:
        return []
    found = ExponentialTail.stragglers(x, CHANCE / len(x))
    return sorted(found, key=lambda i: -x[i])
