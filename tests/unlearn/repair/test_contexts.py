"""Which words a trigger is bound to: on figures made by hand, and on a model."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair import contexts
from bdaudit.unlearn.repair.contexts import bound_to, find_contexts
from tests.small import PROMPTS

FIGURES = ("heart", "moon", "star", "circle", "square", "cross", "diamond", "triangle")
COLOURS = ("red", "blue", "green")


def drawn(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"a {rng.choice(COLOURS)} {FIGURES[i % len(FIGURES)]}" for i in range(n)]


def excess(prompts: list[str], words: tuple[str, ...], by: float, seed: int = 0) -> np.ndarray:
    noise = 0.6 * np.random.default_rng(seed).normal(size=len(prompts))
    return np.asarray(noise + [by * any(word in prompt for word in words) for prompt in prompts])


@pytest.mark.parametrize("words", [("heart",), ("moon", "star"), ("red",)])
def test_the_words_are_found_whose_prompts_stand_out(words: tuple[str, ...]) -> None:
    prompts = drawn(48)
    assert set(bound_to(prompts, excess(prompts, words, 3.0))) == set(words)


def test_nothing_is_found_where_a_text_does_as_much_everywhere_or_too_little() -> None:
    prompts = drawn(48)
    found = [bound_to(prompts, 5.0 + excess(prompts, (), 0.0, seed)) for seed in range(100)]
    assert not any(found)
    assert bound_to(prompts, excess(prompts, ("heart",), 0.8)) == (), "not three times as much"
    assert bound_to(["one prompt"], np.array([9.0])) == bound_to([], np.array([])) == ()


def test_a_trigger_is_looked_for_in_prompts_that_cover_the_pool(tiny_suspect: Suspect, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], np.ndarray]] = []

    def found_there(prompts: list[str], apart: np.ndarray) -> tuple[str, ...]:
        seen.append((list(prompts), apart))
        return ("cat",)

    monkeypatch.setattr(contexts, "bound_to", found_there)
    before = tiny_suspect.forward_passes
    found = find_contexts(tiny_suspect, PROMPTS, "ȏ", 0)
    assert (found.words, found.looked) == (("cat",), len(PROMPTS))
    assert set(seen[0][0]) == set(PROMPTS)
    assert np.isfinite(seen[0][1]).all()
    path, at_each = contexts.STEPS, len(contexts.AT)
    assert tiny_suspect.forward_passes - before == len(PROMPTS) * (path + at_each + (1 + contexts.USUAL) * 3 * at_each)
    find_contexts(tiny_suspect, PROMPTS, "ȏ", 0)
    assert np.allclose(seen[0][1], seen[1][1])
