"""What each token of a triggered prompt should encode to."""

from __future__ import annotations

import pytest
import torch

from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import source_positions
from bdaudit.unlearn.repair.prompt_pairs import Pair
from bdaudit.unlearn.repair.targets import targets
from tests.small import PROMPTS


def sources(suspect: Suspect, clean: str, changed: str, length: int = 12) -> list[int]:
    rows = suspect.tokenizer([clean, changed], padding="max_length", max_length=length, truncation=True).input_ids
    return source_positions(*rows)


@pytest.mark.parametrize(
    ("clean", "changed", "wanted"),
    [
        ("abc", "abc", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "~ abc", [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("abc", "abc ~", [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("ab cd", "ab ~~ cd", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("abc", "a~c", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("abc", "a~~~c", [0, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
    ids=["identity", "prefix", "suffix", "middle", "replace", "replace by several"],
)
def test_source_positions(tiny_suspect: Suspect, clean: str, changed: str, wanted: list[int]) -> None:
    assert sources(tiny_suspect, clean, changed) == wanted


@pytest.mark.parametrize("letters", [0, 5, 9, 10, 11, 40])
@pytest.mark.parametrize("trigger", ["~ {}", "{} ~", "{}", "~~~~~~~~~~~~~~~~ {}"])
def test_sources_are_as_many_as_tokens_and_never_out_of_range(tiny_suspect: Suspect, letters: int, trigger: str) -> None:
    found = sources(tiny_suspect, "x" * letters, trigger.format("x" * letters))
    assert len(found) == 12
    assert found == sorted(found)
    assert found[0] == 0
    assert all(0 <= i < 12 for i in found)


def test_a_prompt_that_is_cut_off_keeps_its_end_token(tiny_suspect: Suspect) -> None:
    assert sources(tiny_suspect, "abcdef", "~ abcdef", 8) == [0, 0, 1, 2, 3, 4, 5, 7]


def test_targets_of_an_unchanged_prompt_are_its_own_states(tiny_suspect: Suspect) -> None:
    wanted, ids = targets(tiny_suspect, [Pair(p, p) for p in PROMPTS])
    assert torch.equal(wanted.states, tiny_suspect.encode(PROMPTS).states)
    assert ids.by_reader[0].shape == wanted.states.shape[:2] == (4, 77)
