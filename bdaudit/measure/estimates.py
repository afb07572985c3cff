"""Figures with their uncertainty, from the values that they are made of: the three intervals that all verbs use, at 95 %."""

from __future__ import annotations

from torch import Tensor

from bdaudit import stats
from bdaudit.records import Estimate


def rate(hits: Tensor) -> Estimate:
    """Bool (N,) → the share of hits with Wilson's interval.

    Raises:
        ValueError: no values.
    """
    n, k = len(hits), int(hits.sum())
    low, high = stats.wilson(k, n)
    return Estimate(value=k / n, low=low, high=high, n=n, method="Wilson 95 %")


def mean(values: Tensor) -> Estimate:
    """(N,) → the mean with Student's interval.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    x = values.double().cpu()
    low, high = stats.mean_interval(x.numpy())
    return Estimate(value=float(x.mean()), low=low, high=high, n=len(x), method="t 95 %")


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """The mean of ``above`` over that of ``below``, (N,) each and paired.

    Raises:
        ValueError: fewer than two values, lengths that differ, or a mean below that is not positive.
    """
    value, low, high = stats.ratio_interval(above.double().cpu().numpy(), below.double().cpu().numpy())
    return Estimate(value=value, low=low, high=high, n=len(above), method="paired delta method, t 95 %")
