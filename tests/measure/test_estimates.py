"""Figures with their uncertainty: the same numbers as by hand, and what none can be made of."""

from __future__ import annotations

import pytest
import torch

from bdaudit import stats
from bdaudit.measure import estimates


def test_a_rate_has_wilsons_interval() -> None:
    estimate = estimates.rate(torch.tensor([True] * 4 + [False] * 196))
    assert (estimate.value, estimate.n, estimate.method) == (0.02, 200, "Wilson 95 %")
    assert (estimate.low, estimate.high) == pytest.approx((0.00781, 0.05028), abs=1e-4)


def test_a_mean_has_students_interval_in_double_precision() -> None:
    values = torch.tensor([1e8, 1e8 + 8, 1e8 + 16, 1e8 + 24])
    estimate = estimates.mean(values)
    assert (estimate.value, estimate.n) == (1e8 + 12, 4)
    assert (estimate.low, estimate.high) == pytest.approx(stats.mean_interval(values.double().tolist()), abs=1e-6)


def test_a_ratio_is_of_means_and_paired() -> None:
    below = torch.tensor([1.0, 2.0, 3.0])
    estimate = estimates.ratio(0.5 * below, below)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.5, 0.5, 0.5)), "no residual, no width"
    assert estimates.ratio(0.9 * below, below).high < 0.91
    shuffled = estimates.ratio(0.5 * below.flip(0), below)
    assert shuffled.value == pytest.approx(0.5)
    assert shuffled.low < 0.4 < 0.6 < shuffled.high


def test_the_jackknife_of_a_mean_is_its_normal_interval() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    without = (values.sum() - values) / 3
    estimate = estimates.jackknife(3.0, [without.numpy()], 4)
    error = float(values.std() / 2)
    assert (estimate.value, estimate.n, estimate.method) == (3.0, 4, "jackknife over pictures, 95 %")
    assert (estimate.low, estimate.high) == pytest.approx((3 - 1.959964 * error, 3 + 1.959964 * error), rel=1e-6)
    assert estimates.jackknife(3.0, [without.numpy()], 4, least=2.5).low == 2.5
    assert estimates.jackknife(3.0, [without.numpy()], 4, least=0.1).low == estimate.low


def test_nothing_is_made_of_too_little() -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match="0 hits of 0"):
        estimates.rate(torch.ones(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least 2"):
        estimates.mean(one)
    with pytest.raises(ValueError, match="positive"):
        estimates.ratio(torch.ones(3), torch.zeros(3))
