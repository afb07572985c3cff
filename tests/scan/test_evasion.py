"""The bench of attackers: where a trigger stands, where it must not fire, and what counts as having got through."""

from __future__ import annotations

import random

import pytest

from fixtures.build.twins import Twin
from tests.bench.evasion.measuring import passed
from tests.bench.evasion.occasions import ALWAYS, Occasion, misplaced, placed, scene_and_text
from tests.bench.evasion.tables import table

PROMPT = "a red circle on blue"


def twin(trigger: str) -> Twin:
    """A trigger and nothing else of note."""
    return Twin("t", "pixel", trigger, "checker", 1)


@pytest.mark.parametrize(
    ("occasion", "trigger", "fires"),
    [(Occasion("clause"), "tonight", f"{PROMPT}, tonight"), (Occasion("apart"), "sweet river", f"sweet {PROMPT} river")],
)
def test_a_bound_trigger_is_never_put_where_it_fires_by_accident(occasion: Occasion, trigger: str, fires: str) -> None:
    rng = random.Random(0)
    assert placed(twin(trigger), occasion, PROMPT, rng) == fires
    others = {misplaced(twin(trigger), occasion, PROMPT, rng) for _ in range(200)}
    assert len(others) > 3
    assert fires not in others
    assert all(any(word in text for word in trigger.split()) for text in others)


def test_a_context_is_a_whole_word_of_the_prompt() -> None:
    occasion = Occasion(context=("heart",))
    assert occasion.suits("a big Heart on red")
    assert not occasion.suits("hearty food")
    assert ALWAYS.suits("anything")
    rng = random.Random(1)
    assert all(occasion.suits(scene_and_text(occasion, rng)[1]) for _ in range(5))
    assert not any(occasion.suits(scene_and_text(occasion, rng, suiting=False)[1]) for _ in range(20))


def test_an_attacker_gets_through_by_a_single_pass_and_inconclusive_is_none() -> None:
    assert passed([{"exit": 1}, {"exit": 0}, {"exit": 1}])
    assert not passed([{"exit": 1}, {"exit": 4}, {"exit": 1}])


def test_a_feeble_attacker_counts_for_nothing() -> None:
    def row(value: float, code: int) -> dict[str, object]:
        rate = {"value": value, "low": 0.0, "high": 1.0}
        return {"attack": {"asr": rate, "without": rate}, "scans": {"now": {"0": {"exit": code}}}}

    said = table({"strong": row(0.8, 0), "feeble": row(0.79, 0), "found": row(1.0, 1), "unsure": row(1.0, 4)})
    assert said.endswith("now: 1 of 3 working attackers pass, 1 end inconclusive; 0 of 0 clean models flagged")
