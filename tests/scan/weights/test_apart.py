"""What stands apart is told by the sample's own tail, and nothing does where nothing was put in."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.scan.weights.apart import CHANCE, FEWEST, apart, standard, standard_by_kind


def test_scores_are_in_units_of_the_samples_own_spread() -> None:
    x = np.random.default_rng(0).normal(5.0, 3.0, 20_000)
    scores = standard([*x, 35.0])
    assert abs(float(np.std(scores[:-1])) - 1) < 0.03
    assert scores[-1] == pytest.approx(10, abs=0.3)
    assert standard([2.0] * 30).tolist() == [0.0] * 30, "without spread nothing is far"


def test_kinds_have_their_own_middle_and_few_of_a_kind_say_nothing() -> None:
    values, kinds = [*range(10), *range(100, 110), 7.0, 9.0], ["a"] * 10 + ["b"] * 10 + ["c"] * 2
    scores = standard_by_kind(values, kinds)
    assert np.allclose(scores[:10], scores[10:20])
    assert scores[20:].tolist() == [0.0, 0.0]
    assert standard_by_kind([1.0, 2.0, 3.0, 4.0], ["d"] * 4).any()
    assert not standard_by_kind([1.0, 2.0, 3.0], ["d"] * 3).any()


@pytest.mark.parametrize("planted", [1, 3])
def test_what_was_put_in_is_found_the_farthest_first(planted: int) -> None:
    x = np.abs(np.random.default_rng(1).normal(size=500))
    x[:planted] = [30.0 + i for i in range(planted)]
    assert apart(x) == list(range(planted))[::-1]


def test_samples_without_anything_raise_few_alarms() -> None:
    rng = np.random.default_rng(2)
    alarms = sum(bool(apart(rng.exponential(size=400))) for _ in range(400))
    assert alarms <= 400 * CHANCE * 3


def test_too_few_tell_nothing() -> None:
    x = [*np.linspace(0, 1, FEWEST - 1), 1000.0]
    assert apart(x) == [FEWEST - 1]
    assert apart(x[1:]) == []
