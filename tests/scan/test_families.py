"""Multiplicity: adjusted over everything that was swept, whatever was chosen to be measured."""

from __future__ import annotations

import numpy as np
import pytest

from bdaudit.scan.families import Family, adjusted
from bdaudit.stats import holm


def test_what_was_screened_out_counts_as_one() -> None:
    p = {"a": 1e-5, "b": 3e-4, "c": 2e-4}
    whole = holm([*p.values(), *np.ones(97)])
    found = adjusted(p, [Family("vocabulary", ("a", "b", "c"), 100)])
    assert list(found.values()) == pytest.approx(list(whole[:3]))


def test_families_share_the_error_and_the_first_one_judges() -> None:
    p = {"a": 1e-4, "b": 1e-4}
    found = adjusted(p, [Family("list", ("a",), 1), Family("vocabulary", ("b", "a"), 50)])
    assert found == pytest.approx({"a": 2e-4, "b": 1e-2})


def test_one_list_is_holm() -> None:
    p = {str(i): x for i, x in enumerate(np.random.default_rng(0).uniform(size=20))}
    found = adjusted(p, [Family("list", tuple(p), 20)])
    assert list(found.values()) == pytest.approx(list(holm(list(p.values()))))


@pytest.mark.parametrize("families", [[Family("list", ("a", "b"), 1)], [Family("list", ("a",), 5)]])
def test_a_family_too_small_or_missing_is_an_error(families: list[Family]) -> None:
    with pytest.raises(ValueError, match="famil"):
        adjusted({"a": 0.5, "b": 0.5}, families)


def test_the_worst_of_all_screens_raises_no_more_false_alarms_than_alpha() -> None:
    """The screen that picks the very smallest p of a clean model, over and over."""
    rng, alpha, runs = np.random.default_rng(1), 0.05, 2000
    alarms = 0
    for _ in range(runs):
        picked = np.sort(rng.uniform(size=400))[:8]
        texts = tuple(map(str, range(8)))
        alarms += min(adjusted(dict(zip(texts, picked, strict=True)), [Family("v", texts, 400)]).values()) <= alpha
    assert alarms / runs < alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs)
