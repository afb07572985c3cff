"""Whole paths beside a text's single steps: one statistic, whose p is uniform or larger on harmless texts."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.scan.followed import TAILS, Followed, Reached, followed, joint
from bdaudit.scan.tiers import FLOOR, below, threshold

N, SHARE = 120, 0.25


def reached(rng: np.random.Generator, steps: float, loud: float = 0.0) -> Reached:
    return Reached(steps, rng.normal(size=3) + loud, float(rng.normal()), "word")


def world(rng: np.random.Generator) -> tuple[Followed, float]:
    """Controls of which a quarter went so far, and the score from which they did."""
    scores = rng.chisquare(3, size=N)
    least = threshold(scores.tolist(), SHARE)
    named = {f"control {i}": float(score) for i, score in enumerate(scores)}
    return followed({text: reached(rng, score) for text, score in named.items() if score >= least}, named), least


def test_what_is_seen_in_all_parts_counts_more_than_what_is_seen_in_one() -> None:
    assert joint(*TAILS) == pytest.approx(2.0)
    assert joint(TAILS[0], -5.0) > joint(-5.0, -5.0), "and nothing is worth less than nothing"
    found, least = world(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    everywhere, once = reached(rng, least + 10, loud=4.0), reached(rng, least + 10)
    assert found.p(everywhere, selected=True) < 1e-3 < found.p(once, selected=True)


def test_one_that_was_not_selected_is_beside_those_that_were() -> None:
    found, least = world(np.random.default_rng(2))
    text = reached(np.random.default_rng(3), least + 5, loud=1.0)
    assert found.p(text, selected=False) > 4 * found.p(text, selected=True)


def test_p_of_harmless_texts_is_uniform_or_conservative() -> None:
    rng, p = np.random.default_rng(4), list[float]()
    for _ in range(40):
        found, least = world(rng)
        for steps in rng.chisquare(3, size=30).tolist():
            p.append(found.p(reached(rng, steps), selected=True) if steps >= least else found.tier.p(below(steps)))
    for level in (0.5, 0.1, 0.01):
        rate = float(np.mean(np.array(p) <= level))
        assert rate <= level + 3 * np.sqrt(level / len(p)), f"{rate} of harmless texts have p <= {level}"


def test_all_controls_have_a_place_and_those_that_did_not_go_so_far_the_lowest() -> None:
    found, _ = world(np.random.default_rng(5))
    on = [score for score in found.tier.scores if score > FLOOR]
    assert (len(found.tier.scores), len(on)) == (N, SHARE * N)
    assert found.among.p(max(on)) > found.tier.p(max(on))
