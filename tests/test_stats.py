"""Every statistic against a hand-computed case, a second implementation, or its own promise by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from bdaudit import stats


@pytest.mark.parametrize(("hits", "n"), [(0, 73), (1, 10), (5, 200), (199, 200), (200, 200)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_rate_intervals_agree_with_scipy(hits: int, n: int, level: float) -> None:
    test = scipy_stats.binomtest(hits, n)
    if hits in (0, n) or 3 < hits < n - 3:
        assert stats.wilson(hits, n, level) == pytest.approx(tuple(test.proportion_ci(level, "wilson")), abs=1e-12)


def test_wilson_covers_as_promised() -> None:
    # exact summation over the binomial; rates from 0.05 % to 99.95 %
    rates = np.linspace(0.0005, 0.9995, 1999)
    for n in (73, 200, 1000):
        k = np.arange(n + 1)
        ends = np.array([stats.wilson(int(hits), n) for hits in k])
        chance = scipy_stats.binom.pmf(k[None], n, rates[:, None])
        covered = (ends[None, :, 0] <= rates[:, None]) & (rates[:, None] <= ends[None, :, 1])
        coverage = (chance * covered).sum(1)
        assert coverage.mean() >= 0.93
        assert coverage.min() >= 0.88, rates[coverage.argmin()]


def test_few_hits_or_misses_leave_room_towards_them() -> None:
    plain = scipy_stats.binomtest(1, 100).proportion_ci(0.95, "wilson")
    assert stats.wilson(1, 100) == pytest.approx((0.05129 / 100, plain.high), rel=1e-3)
    assert stats.wilson(99, 100) == pytest.approx((1 - plain.high, 1 - 0.05129 / 100), rel=1e-3)
    assert stats.wilson(4, 100) == pytest.approx(tuple(scipy_stats.binomtest(4, 100).proportion_ci(0.95, "wilson")))


def test_zero_hits_bound_the_rate_from_the_known_sizes() -> None:
    assert [stats.needed(0.0, bound) for bound in (0.05, 0.02, 0.01)] == [73, 189, 381]
    assert stats.needed(0.0, 0.0) is None
    assert stats.needed(0.05, 0.05) is None
    assert (stats.needed(0.3, 1.0), stats.needed(1.0, 1.0), stats.needed(0.3, 1.5)) == (1, 1, 1)


@given(st.integers(0, 20), st.floats(0.01, 0.5))
def test_needed_is_where_wilson_reaches_the_bound(hits: int, bound: float) -> None:
    n = stats.needed(hits / 1000, bound)
    if n is None:
        assert hits / 1000 >= bound
        return
    # with a rate that n·rate makes whole: scale n up to a multiple of 1000
    whole = -(-n // 1000) * 1000
    assert stats.wilson(hits * whole // 1000, whole)[1] <= bound + 1e-9


@pytest.mark.parametrize(("counts", "expected"), [((56, 70, 48, 80), (0.0524, 0.3339)), ((10, 10, 0, 20), (0.6791, 1.0))])
def test_the_difference_of_two_rates_is_newcombe_s(counts: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    """Table II of Newcombe (1998), method 10."""
    assert stats.difference_interval(*counts) == pytest.approx(expected, abs=1e-4)


def test_fisher_agrees_with_scipy_and_with_a_case_by_hand() -> None:
    assert stats.fisher_greater(3, 3, 0, 3) == pytest.approx(1 / 20)
    for a, n_a, b, n_b in ((7, 20, 2, 30), (0, 5, 0, 5), (50, 200, 2, 200)):
        expected = scipy_stats.fisher_exact([[a, n_a - a], [b, n_b - b]], alternative="greater").pvalue
        assert stats.fisher_greater(a, n_a, b, n_b) == pytest.approx(expected)


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= hits"):
        stats.wilson(hits, n)


def test_one_trial_is_enough_and_misses_are_treated_as_hits_are() -> None:
    assert stats.wilson(1, 1)[1] == 1.0
    for hits in range(7):
        low, high = stats.wilson(hits, 40)
        assert stats.wilson(40 - hits, 40) == pytest.approx((1 - high, 1 - low))


def test_mean_interval_agrees_with_scipy() -> None:
    x = np.random.default_rng(0).normal(3, 2, 40)
    expected = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert stats.mean_interval(x) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="at least 2 finite"):
        stats.mean_interval([1.0])
    assert np.mean(stats.mean_interval([1.0, 3.0])) == pytest.approx(2)
    with pytest.raises(ValueError, match="at least 2 finite"):
        stats.mean_interval([1.0, float("nan")])


def test_ratio_interval_covers_a_known_ratio() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        shared = rng.normal(0, 0.2, 200)
        above, below = 0.9 + shared + rng.normal(0, 0.1, 200), 1.0 + shared + rng.normal(0, 0.1, 200)
        _, low, high = stats.ratio_interval(above, below)
        covered += low <= 0.9 <= high
    assert 930 <= covered <= 970


def test_ratio_of_a_thing_to_itself_is_one_and_a_dead_denominator_is_refused() -> None:
    x = np.random.default_rng(2).uniform(1, 2, 50)
    assert stats.ratio_interval(x, x) == pytest.approx((1, 1, 1))
    with pytest.raises(ValueError, match="positive"):
        stats.ratio_interval(x, -x)
    with pytest.raises(ValueError, match="positive"):
        stats.ratio_interval(x, 0 * x)
    with pytest.raises(ValueError, match="pairs"):
        stats.ratio_interval(x, x[1:])


def test_jackknife_of_a_mean_is_its_squared_standard_error() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=30), rng.normal(size=50)
    without = [(x.sum() - x) / 29, (y.sum() - y) / 49]
    assert stats.jackknife_variance(without[:1]) == pytest.approx(x.var(ddof=1) / 30)
    assert stats.jackknife_variance(without) == pytest.approx(x.var(ddof=1) / 30 + y.var(ddof=1) / 50)
    assert stats.normal_interval(1.0, 4.0) == pytest.approx((1 - 2 * 1.959964, 1 + 2 * 1.959964), abs=1e-5)


@pytest.mark.parametrize("n", [60, 200])
@pytest.mark.parametrize("alpha", [1e-2, 1e-3])
def test_tail_p_values_hold_their_level(n: int, alpha: float) -> None:
    # the critical value's exceedance is known in closed form, so that 2,000 fits give the rate precisely
    rng = np.random.default_rng(5)
    beyond = {"exponential": scipy_stats.expon.sf, "normal": scipy_stats.norm.sf}
    draw = {"exponential": rng.exponential, "normal": rng.normal}
    rate = {
        name: np.mean([beyond[name](stats.ExponentialTail.fit(draw[name](size=n)).critical(alpha)) for _ in range(2000)]) for name in draw
    }
    assert rate["exponential"] == pytest.approx(alpha, rel=0.15)
    assert rate["normal"] <= alpha * 1.05


def test_tail_is_continuous_falls_and_inverts() -> None:
    tail = stats.ExponentialTail.fit(np.random.default_rng(6).exponential(size=200))
    assert tail.k == 40
    xs = np.linspace(0, 10, 400)
    p = np.array([tail.p(x) for x in xs])
    assert (np.diff(p) <= 1e-15).all()
    assert tail.p(tail.threshold + 1e-9) == pytest.approx(41 / 201, rel=1e-6)
    assert tail.p(tail.critical(1e-4)) == pytest.approx(1e-4)
    assert tail.p(-1) == 1.0


def test_at_the_threshold_the_rank_counts_and_above_it_the_tail() -> None:
    tail = stats.ExponentialTail.fit(range(25))
    assert tail.p(tail.threshold) == (1 + 6) / 26, "itself and the five above it"
    assert tail.p(tail.threshold + 1e-12) == pytest.approx(6 / 26)
    top = 6 / 26
    for alpha in (0.0, top):
        with pytest.raises(ValueError, match="expected it between 0 and"):
            tail.critical(alpha)
    assert tail.critical(top * (1 - 1e-12)) == pytest.approx(tail.threshold)


def test_tail_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="expected at least 25"):
        stats.ExponentialTail.fit(range(24))
    assert stats.ExponentialTail.fit(range(25)).k == 5
    with pytest.raises(ValueError, match="needs spread"):
        stats.ExponentialTail.fit([1.0] * 100)
    with pytest.raises(ValueError, match="expected it between"):
        stats.ExponentialTail.fit(range(100)).critical(0.5)


@pytest.mark.parametrize("n", [60, 200])
def test_clean_samples_seldom_have_stragglers(n: int) -> None:
    rng = np.random.default_rng(7)
    found = [bool(stats.ExponentialTail.stragglers(rng.exponential(size=n), 1 / (10 * n))) for _ in range(1000)]
    assert np.mean(found) <= 0.01


def test_stragglers_hold_the_level_they_were_given() -> None:
    # the last value alone has exactly this chance, being memoryless; the earlier ones, each the smallest of several, much less
    rng = np.random.default_rng(8)
    rate = np.mean([bool(stats.ExponentialTail.stragglers(rng.exponential(size=100), 0.02)) for _ in range(2000)])
    assert 0.015 <= rate <= 0.03


@pytest.mark.parametrize("planted", [1, 3, 8])
def test_several_stragglers_are_found_together(planted: int) -> None:
    rng = np.random.default_rng(9)
    for _ in range(20):
        x = rng.exponential(size=120)
        at = sorted(rng.choice(120, planted, replace=False).tolist())
        x[at] = 100 + rng.exponential(size=planted)
        assert stats.ExponentialTail.stragglers(x, 1 / 1200) == at


def test_a_sample_without_spread_or_too_small_has_no_stragglers() -> None:
    assert stats.ExponentialTail.stragglers([1.0] * 100, 0.001) == []
    assert stats.ExponentialTail.stragglers([*np.arange(24.0), 1e6], 0.001) == []


def test_five_values_are_enough_to_tell_a_straggler_and_a_chance_of_exactly_the_level_is_none() -> None:
    tail = [0.0] * 40 + [1.0] * 5 + [11.0] * 5  # of 45 values five lie above 0, and the next has the chance (1 + 10 / 10) ** -5
    assert stats.ExponentialTail.stragglers(tail, 0.04) == [45, 46, 47, 48, 49]
    assert stats.ExponentialTail.stragglers(tail, 2**-5) == []
    assert stats.ExponentialTail.stragglers([0.0] * 40 + [1.0] * 4 + [11.0] * 6, 0.04) == [], "four are not"
