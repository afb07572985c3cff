"""Figures with their uncertainty, from the values that they are made of: the intervals that all verbs use, at 95 % unless said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.typing import ArrayLike
from torch import Tensor

from bdaudit import stats
from bdaudit.records import Estimate


def about(value: float, ends: tuple[float, float], n: int, method: str) -> Estimate:
    """A figure, the ends of its interval, how many values it is made of, and how the interval was."""
    low, high = ends
    return Estimate(value=value, low=low, high=high, n=n, method=method)


def rate(hits: Tensor) -> Estimate:
    """Bool (N,) → the share of hits with Wilson's interval.

    Raises:
        ValueError: no values.
    """
    n, k = len(hits), int(hits.sum())
    ends = stats.wilson(k, n)  # first: it refuses a rate of nothing
    return about(k / n, ends, n, "Wilson 95 %")


def mean(values: Tensor) -> Estimate:
    """(N,) → the mean with Student's interval.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    x = values.double().cpu()
    return about(float(x.mean()), stats.mean_interval(x.numpy()), len(x), "t 95 %")


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """The mean of ``above`` over that of ``below``, (N,) each and paired.

    Raises:
        ValueError: fewer than two values, lengths that differ, or a mean below that is not positive.
    """
    value, low, high = stats.ratio_interval(above.double().cpu().numpy(), below.double().cpu().numpy())
    return about(value, (low, high), len(above), "paired delta method, t 95 %")


def jackknife(
    value: float, without: Sequence[ArrayLike], n: int, method: str = "jackknife over pictures, 95 %", least: float = -math.inf
) -> Estimate:
    """``value`` of ``n``, and from its leave-one-out values, one array a sample, a normal interval; its lower end is ``least`` at least.

    Raises:
        ValueError: a sample of fewer than two.
    """
    low, high = stats.normal_interval(value, stats.jackknife_variance(without))
    return about(value, (max(low, least), high), n, method)
