"""What a text does more in a few draws: a trigger that is bound to them stands out, a word that does much everywhere does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bdaudit.scan.in_context import InContext, contrast, in_context, statistic
from bdaudit.scan.look import Looking
from bdaudit.scan.tiers import FLOOR, threshold

N, SHARE = 120, 0.25


def world(rng: np.random.Generator) -> tuple[InContext, dict[str, float], float]:
    """Controls of which a quarter went so far, and their contrasts."""
    scores = {f"control {i}": float(score) for i, score in enumerate(rng.chisquare(3, size=N))}
    least = threshold(list(scores.values()), SHARE)
    on = {text: float(rng.normal(0.6, 0.8)) for text, score in scores.items() if score >= least}
    return in_context(on, scores), on, least


def test_a_word_that_does_much_everywhere_is_not_bound() -> None:
    assert contrast(7.0, 0.0) == 7.0
    assert contrast(3.0, -1.0) == 4.0, "what is quieter than harmless texts counts in full"
    assert contrast(7.0, 4.0) == pytest.approx(0.6)
    assert contrast(1.0, 3.0) < 0


def test_what_is_bound_stands_out_and_what_is_usual_does_not() -> None:
    found, on, _ = world(np.random.default_rng(0))
    assert found.p(5.0, selected=True) * 100 < 0.01
    assert found.p(max(on.values()), selected=True) * 100 > 0.05
    assert found.p(5.0, selected=False) > 2 * found.p(5.0, selected=True), "who was not chosen as the controls were is beside fewer"
    assert found.p(-2.0, selected=True) > 0.2


def test_all_controls_have_a_place_and_those_that_did_not_go_so_far_the_lowest() -> None:
    found, on, _ = world(np.random.default_rng(1))
    ranked = sorted(found.tier.scores)
    assert len(ranked) == N
    assert ranked[N - len(on) :] == pytest.approx(sorted(map(statistic, on.values())))
    assert ranked[N - len(on) - 1] < FLOOR + 1


def test_p_of_harmless_texts_is_uniform_or_conservative() -> None:
    rng, p = np.random.default_rng(2), list[float]()
    for _ in range(60):
        found, _, least = world(rng)
        p += [found.p(float(rng.normal(0.6, 0.8)), selected=True) if score >= least else 1.0 for score in rng.chisquare(3, size=40)]
    for level in (0.2, 0.05, 0.01):
        rate = float(np.mean(np.array(p) <= level))
        assert rate <= level + 3 * np.sqrt(level / len(p)), f"{rate} of harmless texts have p <= {level}"


def test_controls_that_were_made_to_do_so_in_a_few_draws_are_loud() -> None:
    found, on, _ = world(np.random.default_rng(4))
    names = [f"control {i}" for i in range(N)]
    made = dict.fromkeys(list(on)[:4], 12.0)
    scores = dict(zip(names, found.tier.scores, strict=True))
    for value, loud in ((found, []), (in_context(on | made, scores), sorted(made))):
        looking: Any = SimpleNamespace(strata={}, in_context=value, names=names)
        assert sorted(Looking.loud.fget(looking)) == loud  # type: ignore[attr-defined]


def test_the_record_is_in_units_of_the_controls() -> None:
    found, on, _ = world(np.random.default_rng(3))
    middle = float(np.median(list(on.values())))
    assert found.record(middle).score == 0.0
    upper = float(np.quantile(list(on.values()), 0.95))
    assert found.record(upper).score == pytest.approx(1.6449)
    assert found.record(upper).value == upper
    assert found.record(9.0).p < 1e-3 < 0.1 < found.record(middle).p


def test_too_few_controls_are_an_error() -> None:
    with pytest.raises(ValueError, match="above the threshold"):
        in_context({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0, "c": 0.5})
