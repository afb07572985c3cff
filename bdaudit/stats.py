"""Intervals, tests and tails: numbers in, numbers out. Knows no model, no torch and no report."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Interval = tuple[float, float]


# --- rates ------------------------------------------------------------------------------------


def _checked(hits: int, n: int) -> None:
    if not (0 <= hits <= n and n >= 1):
        raise ValueError(f"got {hits} hits of {n}; expected 0 <= hits <= n and n >= 1")


def _z(level: float) -> float:
    return float(stats.norm.ppf((1 + level) / 2))


def wilson(hits: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (1927); its coverage is near ``level`` on average over rates.

    With one to three hits, or misses, the end towards them is Poisson's (Brown, Cai and DasGupta 2001, section 4.1.1): Wilson's own leaves
    out rates near 0 and 1 too often.

    Raises:
        ValueError: ``hits`` outside 0…``n``, or no trials.
    """
    _checked(hits, n)
    z2 = _z(level) ** 2
    centre = (hits + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (hits * (n - hits) / n + z2 / 4)) / (n + z2)
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    high = 1.0 if hits == n else min(1.0, centre + half)
    if 1 <= hits <= 3:
        low = min(low, _fewest(hits, level) / n)
    if 1 <= n - hits <= 3:
        high = max(high, 1 - _fewest(n - hits, level) / n)
    return low, high


@functools.cache
def _fewest(hits: int, level: float) -> float:
    """The mean count at which ``hits`` or more have chance 1 − ``level``."""
    return float(stats.chi2.ppf(1 - level, 2 * hits)) / 2


def needed(rate: float, bound: float, level: float = 0.95) -> int | None:
    """Trials from which Wilson's upper end is at or below ``bound`` where ``rate`` of them hit; None where no number suffices.

    With no hits this is z²·(1 − bound)/bound: 73 for 5 %, 189 for 2 %, 381 for 1 %.
    """
    if bound >= 1:
        return 1
    if rate >= bound:
        return None
    # upper(n) <= bound  <=>  z²·bound·(1 − bound) <= n·(bound − rate)², the score test's own inequality
    return max(1, math.ceil(_z(level) ** 2 * bound * (1 - bound) / (bound - rate) ** 2 - 1e-9))


def difference_interval(hits_a: int, n_a: int, hits_b: int, n_b: int, level: float = 0.95) -> Interval:
    """Newcombe's interval of the difference of two independent rates, a − b (1998, method 10): made of each rate's own Wilson interval.

    Raises:
        ValueError: hits outside their trials.
    """
    (low_a, high_a), (low_b, high_b) = wilson(hits_a, n_a, level), wilson(hits_b, n_b, level)
    a, b = hits_a / n_a, hits_b / n_b
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


def fisher_greater(hits_a: int, n_a: int, hits_b: int, n_b: int) -> float:
    """Fisher's exact test, one-sided: the chance of at least ``hits_a`` in ``a`` if both rates are one.

    Raises:
        ValueError: hits outside their trials.
    """
    _checked(hits_a, n_a)
    _checked(hits_b, n_b)
    return float(stats.hypergeom.sf(hits_a - 1, n_a + n_b, hits_a + hits_b, n_a))


# --- means ------------------------------------------------------------------------------------


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"got {x.shape} values, finite: {bool(np.isfinite(x).all())}; expected at least 2 finite ones in a row")
    return x


def _t_interval(centre: float, error: float, df: float, level: float) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    return centre - half, centre + half


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of a mean.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    x = _sample(values)
    return _t_interval(float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x)), len(x) - 1, level)


def ratio_interval(above: ArrayLike, below: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """(ratio, low, high) of two means over the same items, by the delta method: the residuals a − r·b carry the error.

    Raises:
        ValueError: unequal lengths, fewer than two items, or a mean below that is not positive.
    """
    a, b = _sample(above), _sample(below)
    if len(a) != len(b):
        raise ValueError(f"got {len(a)} and {len(b)} values; expected pairs")
    if b.mean() <= 0:
        raise ValueError(f"the denominator's mean is {b.mean():.3g}; a ratio needs a positive one")
    ratio = float(a.mean() / b.mean())
    error = float((a - ratio * b).std(ddof=1)) / (math.sqrt(len(a)) * float(b.mean()))
    return ratio, *_t_interval(ratio, error, len(a) - 1, level)


def jackknife_variance(without: Sequence[ArrayLike]) -> float:
    """Variance of a statistic from its leave-one-out values, one array a sample (several where samples are independent).

    Σ over samples of (n − 1)/n · Σ_i (θ₋ᵢ − mean)², Efron and Stein (1981): never too small on average.

    Raises:
        ValueError: a sample of fewer than two.
    """
    samples = [_sample(values) for values in without]
    return sum((len(x) - 1) / len(x) * float(((x - x.mean()) ** 2).sum()) for x in samples)


def normal_interval(value: float, variance: float, level: float = 0.95) -> Interval:
    """``value`` ± z standard errors."""
    half = _z(level) * math.sqrt(variance)
    return value - half, value + half


# --- tails ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExponentialTail:
    """The upper tail of a null sample, for p-values below what its size alone can give.

    The k values above the threshold u exceed it by exponential amounts with sum S. A new value's p is the *predictive*
    (k + 1)/(n + 1) · (1 + (x − u)/S)^(−k): exact where exceedances are exponential, since (new excess)/S is a ratio of
    gamma variates, and so free of the over-confidence of a plugged-in scale. Conservative for lighter tails (normal),
    not for heavier ones. At and below u the p is the rank's, (1 + #{null ≥ x})/(n + 1).
    """

    null: tuple[float, ...]
    """The sample, ascending."""
    threshold: float
    """u, one of the sample's own values."""
    k: int
    """Values above it."""
    total: float
    """S."""
    prior: tuple[float, float] = (0.0, 0.0)
    """Excesses that stand for what tails of harmless texts are like elsewhere, and their mean."""

    @classmethod
    def fit(cls, null: ArrayLike, share: float = 0.2, prior: tuple[float, float] = (0.0, 0.0)) -> ExponentialTail:
        """Fit to the upper ``share`` of a sample; ``prior`` is how many excesses it is shrunk by, and their mean.

        With a Gamma prior on the rate the predictive form stays the same: k counts the prior's excesses, S has their sum.

        Raises:
            ValueError: too few or not finite values, or a tail without any spread.
        """
        x = np.sort(_sample(null))
        k = int(len(x) * share)
        if k < 5:
            raise ValueError(f"{len(x)} values leave {k} above the threshold; expected at least {math.ceil(5 / share)} values")
        threshold = float(x[len(x) - k - 1])
        total = float((x[len(x) - k :] - threshold).sum())
        if total <= 0:
            raise ValueError(f"the upper {share:.0%} of the null are all {threshold:.6g}; a tail needs spread")
        return cls(null=tuple(x.tolist()), threshold=threshold, k=k, total=total, prior=prior)

    @classmethod
    def stragglers(cls, null: ArrayLike, level: float, share: float = 0.2, trusted: float = 0.88) -> list[int]:
        """Indices of values that do not belong to the sample's own upper tail: a forward search, so that several cannot hide each other.

        The lowest ``trusted`` share is taken as it is. The others are tried in ascending order against the tail of those below,
        censored there (the k − m values seen of k, the rest at least the largest seen); from the first whose p is below
        ``level`` on, all are stragglers.
        """
        x = _sample(null)
        order = np.argsort(x, kind="stable")
        ascending = x[order]
        k = int(len(x) * share)
        threshold = ascending[len(x) - k - 1]
        for seen in range(int(len(x) * trusted), len(x)):
            observed = ascending[len(x) - k : seen] - threshold
            if len(observed) < 5:
                continue
            total = observed.sum() + (len(x) - seen) * observed[-1]
            if total > 0 and (1 + (ascending[seen] - threshold - observed[-1]) / total) ** -len(observed) < level:
                return sorted(int(i) for i in order[seen:])
        return []

    def p(self, x: float) -> float:
        """The chance of a value at least ``x`` under the null."""
        n = len(self.null)
        if x <= self.threshold:
            return float(1 + n - np.searchsorted(np.asarray(self.null), x, side="left")) / (n + 1)
        shape, scale = self._predictive
        return (self.k + 1) / (n + 1) * float((1 + (x - self.threshold) / scale) ** -shape)

    @property
    def _predictive(self) -> tuple[float, float]:
        """Shape and scale of the excess's predictive distribution (Lomax)."""
        of, mean = self.prior
        return self.k + of, self.total + of * mean

    def critical(self, alpha: float) -> float:
        """The value whose p is ``alpha``.

        Raises:
            ValueError: ``alpha`` lies at or above the threshold's own p, where there is no tail.
        """
        top = (self.k + 1) / (len(self.null) + 1)
        if not 0 < alpha < top:
            raise ValueError(f"alpha is {alpha}; expected it between 0 and {top:.3g}")
        shape, scale = self._predictive
        return self.threshold + scale * float((top / alpha) ** (1 / shape) - 1)
