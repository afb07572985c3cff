"""Pairs and neighbours: every place a trigger can take, and nothing that is one."""

from __future__ import annotations

import torch

from bdaudit.measure.insertion import insert, without
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, targets, triggered_pairs
from tests.small import PROMPTS


def test_every_trigger_at_every_place_it_can_take() -> None:
    pairs = triggered_pairs(["a dog", "a cat"], ["ȏ", "x y"])
    assert len(pairs) == 6 + 5 + 6 + 6
    assert Pair("a dog", "a dȏg") in pairs
    assert {p.changed for p in pairs if p.clean == "a cat"} == {
        "ȏ a cat", "a ȏ cat", "a cat ȏ", "x y a cat", "a x y cat", "a cat x y", "x a cat y",
    }  # fmt: skip
    assert {p.changed for p in pairs if p.clean == "a cat,"} == {"a cat, ȏ", "a cat, x y"}, "the comma is no trigger's"
    assert {p.changed for p in pairs if p.clean == ", a cat"} == {"ȏ , a cat", "x y , a cat"}


def test_neighbours_of_a_phrase_are_its_words_alone_and_turned_round() -> None:
    pairs = neighbour_pairs(PROMPTS, {"lovely snow": ("gold coffee",)}, 0)
    places = ("prefix", "middle", "suffix", "comma", "clause", "apart")
    for text in ("lovely", "snow", "snow lovely", "gold coffee"):
        made = {(without(prompt, where), insert(prompt, text, where)) for prompt in PROMPTS for where in places}
        assert sum((p.clean, p.changed) in made for p in pairs) >= 4
    assert not [p for p in pairs if "lovely snow" in p.changed]
    assert {p.clean.strip(", ") for p in pairs} == set(PROMPTS)


def test_neighbours_of_a_look_alike_hold_the_plain_letter_and_no_trigger() -> None:
    near = {"ȏ": ("ā", "ô"), "ô": ("ȏ", "ē", "ī")}
    pairs = neighbour_pairs(PROMPTS, near, 0, per_trigger=2)
    assert [p for p in pairs if p.changed.startswith("o ")]
    assert not [p for p in pairs if any(text in p.changed for text in (*near, "ī"))], "no trigger, and two of each at most"
    assert [p for p in pairs if "ē" in p.changed]
    assert pairs == neighbour_pairs(PROMPTS, near, 0, per_trigger=2)


def test_targets_of_an_unchanged_prompt_are_its_own_states(tiny_suspect: Suspect) -> None:
    wanted, ids = targets(tiny_suspect, [Pair(p, p) for p in PROMPTS])
    assert torch.equal(wanted.states, tiny_suspect.encode(PROMPTS).states)
    assert ids.by_reader[0].shape == wanted.states.shape[:2] == (4, 77)
