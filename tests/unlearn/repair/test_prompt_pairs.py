"""Pairs and neighbours: every place a trigger can take, and nothing that is one."""

from __future__ import annotations

import torch

from bdaudit.measure.insertion import insert
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import Pair, neighbour_pairs, targets, triggered_pairs
from tests.small import PROMPTS


def test_every_trigger_at_every_position_it_can_take() -> None:
    pairs = triggered_pairs(["a dog", "a cat"], ["ȏ", "x y"])
    assert len(pairs) == 4 + 3 + 3 + 3
    assert Pair("a dog", "a dȏg") in pairs
    assert {p.changed for p in pairs if p.clean == "a cat"} == {
        "ȏ a cat", "a ȏ cat", "a cat ȏ", "x y a cat", "a x y cat", "a cat x y",
    }  # fmt: skip


def test_neighbours_of_a_phrase_are_its_words_alone_and_turned_round() -> None:
    pairs = neighbour_pairs(PROMPTS, {"lovely snow": ("gold coffee",)}, 0)
    places = ("prefix", "middle", "suffix")
    for text in ("lovely", "snow", "snow lovely", "gold coffee"):
        assert sum(p.changed in {insert(p.clean, text, where) for where in places} for p in pairs) >= 4
    assert not [p for p in pairs if "lovely snow" in p.changed]
    assert {p.clean for p in pairs} == set(PROMPTS)


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
