"""Intervals cover: a short run of the recorded simulations, and the record itself within its limits."""

from __future__ import annotations

import json

import pytest

from tests.bench import coverage


@pytest.mark.parametrize("n", coverage.SIZES)
def test_an_attack_success_rates_interval(n: int) -> None:
    found = coverage.wilson(n, 1000, 1)
    assert found["mean"] >= 0.93
    assert found["lowest_usual"] >= 0.87


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_kids_interval(apart: float) -> None:
    assert coverage.kid(apart, 60, 100, 1) >= 0.88


def test_the_clip_scores_interval() -> None:
    assert coverage.clip_score(73, 100, 1) >= 0.88


def test_a_wrong_truth_is_not_covered() -> None:
    real, fake = coverage.populations(1.0, 0)
    assert coverage.true_kid(real, fake) > 0.05
    assert coverage.share(5, 9.0, lambda generator: coverage.quality.clip_score(real[:50], fake[:50]), 0) == 0


def test_the_recorded_run_was_long_enough_and_within_its_limits() -> None:
    recorded = json.loads(coverage.RESULTS.read_text(encoding="utf-8"))
    assert recorded["simulations"] >= 1000
    assert all(found["mean"] >= 0.93 and found["lowest_usual"] >= 0.88 for found in recorded["wilson"].values())
    assert all(0.93 <= covered <= 0.97 for covered in recorded["clip_score"].values())
    # The jackknife is conservative where two sets are nearly alike: too wide, never too narrow.
    assert all(0.93 <= covered <= 0.99 for covered in recorded["kid"].values()), recorded
