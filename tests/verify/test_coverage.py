"""Intervals cover, and are no wider than they need be: exactly where that is quick, else in a short run of the recorded simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from bdaudit import stats
from tests.bench import coverage


@pytest.mark.parametrize("n", coverage.SIZES)
def test_an_attack_success_rates_interval(n: int) -> None:
    found = coverage.wilson(n, 1000, 1)
    assert found["mean"] >= 0.93
    assert found["lowest_usual"] >= 0.87


@pytest.mark.parametrize("n", coverage.SIZES)
def test_the_exact_coverage_of_an_attack_success_rates_interval(n: int) -> None:
    rates, counts = np.array(coverage.RATES)[:, None], np.arange(n + 1)
    low, high = np.array([stats.wilson(k, n) for k in counts]).T
    covered = (binom.pmf(counts, n, rates) * ((low <= rates) & (rates <= high))).sum(1)
    assert 0.945 <= covered.mean() <= 0.955
    usual = (rates[:, 0] >= coverage.USUAL) & (rates[:, 0] <= 1 - coverage.USUAL)
    assert covered[usual].min() >= 0.88


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_kids_interval(apart: float) -> None:
    """The jackknife is conservative where two sets are nearly alike: too wide, never too narrow."""
    assert 0.88 <= coverage.kid(apart, 60, 100, 1) < 1


def test_the_clip_scores_interval() -> None:
    assert 0.88 <= coverage.clip_score(73, 100, 1) < 1


def test_a_wrong_truth_is_not_covered() -> None:
    real, fake = coverage.populations(1.0, 0)
    assert coverage.true_kid(real, fake) > 0.05
    assert coverage.share(5, 9.0, lambda generator: coverage.quality.clip_score(real[:50], fake[:50]), 0) == 0
