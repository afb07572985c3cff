"""How far texts stand out, on made-up measurements, and against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.scan.sweep.standing import NEAREST, line, standings


def planted(n: int = 400) -> np.ndarray:
    """What texts do grows with how far they move the encoding; number 7 moves it little and does a great deal."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=n)
    values = np.stack([2 * level + 0.3 * rng.normal(size=n), 2 * level - 1 + 0.3 * rng.normal(size=n), level], axis=1)
    values[7] = (2.0, 1.0, -0.5)
    return values


def test_what_the_encoding_does_not_explain_stands_out() -> None:
    values = planted()
    found = standings(values, values)
    assert found.argmax() == 7
    assert found[7] > 2 * np.sort(found)[-2]
    assert (values[:, 0] > values[7, 0]).sum() > 20, "by itself the shift would not have shown it"


def test_an_encoding_that_moves_further_than_any_does_not_explain_the_shift() -> None:
    values = planted()
    values[9] = (12.0, 11.0, 6.0)  # on the line that all the others make
    assert set(np.argsort(-standings(values, values))[:2]) == {7, 9}


def test_standings_follow_the_texts_not_their_order() -> None:
    values = planted()
    order = np.random.default_rng(1).permutation(len(values))
    assert standings(values[order], values[order]) == pytest.approx(standings(values, values)[order])
    assert standings(values[:5], values[order]) == pytest.approx(standings(values, values)[:5])


def test_standings_against_a_slow_reference() -> None:
    values = planted(200)
    found, values[:, 2] = standings(values, values), np.minimum(values[:, 2], np.quantile(values[:, 2], 0.995))
    ranked = values[np.lexsort((*values[:, :2].T, values[:, 2]))]
    slopes = [line(ranked[:, 2], ranked[:, column]) for column in (0, 1)]

    def rest(row: np.ndarray, column: int) -> float:
        at = int(np.searchsorted(ranked[:, 2], row[2])) - NEAREST // 2
        at = min(max(at, 0), len(ranked) - NEAREST)
        near = [other[column] - slopes[column] * other[2] for other in ranked[at : at + NEAREST]]
        return float(row[column] - slopes[column] * row[2] - np.median(near))

    rests = np.array([[rest(row, column) for column in (0, 1)] for row in values])
    spread = 1.4826 * np.median(np.abs(rests - np.median(rests, axis=0)), axis=0)
    assert found == pytest.approx((rests / spread).max(axis=1))


def test_the_line_is_the_slope_and_few_texts_do_not_turn_it() -> None:
    level = np.linspace(-1, 1, 400)
    column = 3 * level + 1
    assert line(level, column) == pytest.approx(3)
    column[:9] += 100
    assert line(level, column) == pytest.approx(3, rel=0.01)
    assert line(level[:20], column[:20]) == 0
