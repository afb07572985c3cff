"""The sequential test's error rates by simulation, its constant, and each outcome from both sides."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import norm

from bdaudit.records import Check, Estimate
from bdaudit.unlearn.sequential import FLOOR, LEVEL, LOOKS, MARGIN, Status, excess, looked, mean, status

RUNS = 1500


def test_the_level_is_pocock_s_for_these_looks() -> None:
    """Against the largest of a Brownian motion's standardised values at the looks."""
    rng = np.random.default_rng(0)
    steps = rng.standard_normal((400_000, len(LOOKS))) * np.sqrt(np.diff([0, *LOOKS]))
    largest = (steps.cumsum(1) / np.sqrt(LOOKS)).max(1)
    assert norm.ppf((1 + LEVEL) / 2) == pytest.approx(2.42, abs=1e-3)
    assert np.mean(largest > 2.42) == pytest.approx(0.025, abs=0.001)


@functools.cache
def judged(hits: int, floor: int, n: int) -> Status:
    return status(excess(hits, floor, n), MARGIN)


def shares(works: float, alike: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Of triggers that work in a share ``works`` of all pictures and are harmless in the others; ``alike`` correlates the texts."""
    rng = np.random.default_rng(seed)
    common, harmless, own = rng.standard_normal((3, RUNS, LOOKS[-1]))
    null, moved = (alike**0.5 * common + (1 - alike) ** 0.5 * each for each in (harmless, own))
    moved[rng.random(moved.shape) < works] = np.inf
    found: list[Status] = ["undecided"] * RUNS
    for n in LOOKS:
        limit = np.quantile(null[:, :n], FLOOR, axis=1)[:, None]
        hits, floor = ((each[:, :n] > limit).sum(1).tolist() for each in (moved, null))
        found = [judged(hits[i], floor[i], n) if was == "undecided" else was for i, was in enumerate(found)]
    counts = Counter(found)
    return {name: counts[name] / RUNS for name in ("passed", "failed", "undecided")}


@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_error_rates(alike: float) -> None:
    noise = 3 * (0.025 * 0.975 / RUNS) ** 0.5
    assert shares(0.0, alike)["passed"] >= 0.99, "a trigger at the floor"
    assert shares(0.03, alike)["passed"] >= 0.95, "and one a little above it"
    at_bound = shares(MARGIN, alike)
    assert at_bound["passed"] <= 0.025 + noise, at_bound
    assert at_bound["failed"] <= 0.025 + noise, at_bound
    assert shares(1.5 * MARGIN, alike)["passed"] <= 0.001
    assert shares(2 * MARGIN, alike)["failed"] >= 0.95


def test_the_same_seed_gives_the_same_outcome() -> None:
    assert shares(0.06) == shares(0.06) != shares(0.06, seed=1)
    assert 0.2 < shares(0.06)["undecided"] < 0.5, "the price of a bound: what lies near it is left open"


@pytest.mark.parametrize(
    ("low", "high", "room", "expected"),
    [(0.0, 1.0, 1.0, "passed"), (0.9, 1.1, 1.0, "undecided"), (1.01, 2.0, 1.0, "failed"), (0.1, 0.6, 0.5, "undecided")],
)
def test_the_whole_interval_decides(low: float, high: float, room: float, expected: str) -> None:
    assert status(Estimate(value=(low + high) / 2, low=low, high=high, n=9, method=""), 1.0, room) == expected


def test_a_figure_that_is_none_is_no_pass() -> None:
    nan = float("nan")
    assert status(Estimate(value=nan, low=nan, high=nan, n=9, method=""), 1.0) == "failed"


def test_the_mean_is_student_s_at_this_level() -> None:
    found = mean([1.0, 2.0, 3.0])
    assert found.value == pytest.approx(2)
    assert found.high - 2 == pytest.approx(2 - found.low)
    assert found.high > 2 + 2.42 / 3**0.5


@pytest.mark.parametrize(("decides", "drawn"), [(44, [44]), (200, [44, 96, 200]), (1000, [44, 96, 200, 432])])
def test_more_is_drawn_until_it_is_decided(decides: int, drawn: list[int]) -> None:
    asked: list[int] = []

    def check(n: int) -> Check:
        asked.append(n)
        value = Estimate(value=0, low=0, high=0, n=n, method="")
        return Check(name="x", status="failed" if n >= decides else "undecided", value=value, bound="")

    found, n = looked(LOOKS, check)
    assert asked == drawn
    assert n == drawn[-1]
    assert found.status == ("failed" if decides <= LOOKS[-1] else "undecided")


def test_an_interval_that_ends_at_the_bound_is_on_its_side_of_it() -> None:
    def between(low: float, high: float) -> Estimate:
        return Estimate(value=high, low=low, high=high, n=9, method="")

    assert status(between(0.0, 0.25), 0.5, 0.5) == "passed"
    assert status(between(0.5, 1.0), 0.5) == "undecided"
