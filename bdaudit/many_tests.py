"""Many tests at once: p-values adjusted for their number. Without scipy, whose statistics take most of a second to import."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike, size: int | None = None) -> NDArray[np.float64]:
    """Holm's step-down adjustment (1979); order kept, family-wise whatever the dependence. (K,) → (K,).

    ``size`` is the whole family's where only K of it are given, all others having p = 1.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * ((size or len(values)) - np.arange(len(values))))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Benjamini and Hochberg's step-up adjustment (1995); order kept. (K,) → (K,).

    Each is the false discovery rate at which it is the last that is taken. It holds for p-values that are independent, or positively
    dependent (Benjamini and Yekutieli 2001).
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    steps = np.minimum.accumulate(values[order] * (len(values) / np.arange(len(values), 0, -1)))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted
