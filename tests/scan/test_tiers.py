"""The p of a procedure that selects: uniform or larger on harmless texts, whatever the selection was by."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.scan.tiers import FLOOR, STEPS_PRIOR, Tier, below, threshold, tier


def test_what_did_not_go_on_stands_below_all_that_did_and_in_its_own_order() -> None:
    scores = [-0.5, 0.0, 3.0, 80.0, 1e5]
    placed = [below(score) for score in scores]
    assert placed == sorted(placed)
    assert len(set(placed)) == len(placed)
    assert max(placed) < FLOOR < -1e5
    assert below(below(3.0)) < below(below(80.0)) < FLOOR


@pytest.mark.parametrize(("share", "on"), [(0.3, 3), (0.25, 3), (0.0, 1), (1.0, 10)])
def test_the_share_that_goes_on_is_rounded_up(share: float, on: int) -> None:
    scores = list(range(10))
    assert sum(score >= threshold(scores, share) for score in scores) == on


def scored(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A first score, and one of all that is correlated with it; chi-squares as T's are."""
    first = rng.normal(size=(n, 3))
    both = 0.6 * first + 0.8 * rng.normal(size=(n, 3))
    return (np.maximum(first, 0) ** 2).sum(1), (np.maximum(both, 0) ** 2).sum(1)


def test_p_under_selection_is_uniform_or_conservative() -> None:
    rng = np.random.default_rng(0)
    p = list[float]()
    for _ in range(400):
        first, last = scored(rng, 120)
        least = threshold(first.tolist(), 0.3)
        null = tier([b if a >= least else below(a) for a, b in zip(first, last, strict=True)], (0.0, 8.0))
        for a, b in zip(*scored(rng, 20), strict=True):
            p.append(null.p(b if a >= least else below(a)))
    for level in (0.5, 0.1, 0.01, 0.001):
        rate = float(np.mean(np.array(p) <= level))
        assert rate <= level + 3 * np.sqrt(level / len(p)), f"{rate} of harmless texts have p <= {level}"
    assert np.mean(np.array(p) <= 0.1) > 0.07


def test_a_strong_text_gets_a_p_far_beyond_the_number_of_controls() -> None:
    first, last = scored(np.random.default_rng(1), 120)
    least = threshold(first.tolist(), 0.3)
    null = tier([b if a >= least else below(a) for a, b in zip(first, last, strict=True)], STEPS_PRIOR)
    assert null.p(300.0) < 1e-9 < 1e-4 < null.p(25.0) < 0.05
    assert null.p(below(0.0)) > 0.5


def test_a_control_that_stands_apart_counts_and_one_that_was_made_loud_hides_nothing() -> None:
    first, last = scored(np.random.default_rng(2), 120)
    least = threshold(first.tolist(), 0.3)
    scores = [b if a >= least else below(a) for a, b in zip(first, last, strict=True)]
    at = int(np.argmax(scores))

    def with_one_at(score: float) -> Tier:
        return tier([score if i == at else other for i, other in enumerate(scores)], STEPS_PRIOR)

    usual, apart, made = tier(scores, STEPS_PRIOR), with_one_at(600.0), with_one_at(1e9)
    assert (usual.loud, apart.loud, made.loud) == ((), (at,), (at,))
    assert usual.p(100.0) < 1e-3 < apart.p(100.0), "the next harmless text that stands apart is no trigger for it"
    assert made.p(2000.0) < 1e-4
    assert made.p(600.0) == pytest.approx(with_one_at(1e6).p(600.0))
