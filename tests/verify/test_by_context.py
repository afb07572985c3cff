"""In which prompts a trigger works clearly more often: on hits made by hand."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

import bdaudit.verify.by_context as module
from bdaudit.measure import estimates
from bdaudit.records import AttackRecord, NotMeasured
from bdaudit.verify.attack import untested
from bdaudit.verify.by_context import by_context
from bdaudit.verify.checks import context_check

FIGURES = ("heart", "moon", "star", "circle", "square", "cross", "diamond", "triangle", "ring", "arrow")
PROMPTS = [f"a {'red' if i % 3 else 'blue'} {FIGURES[i % len(FIGURES)]}" for i in range(200)]
NONE = torch.zeros(200, dtype=torch.bool)


def hits(share: float, word: str = "", elsewhere: float = 0.0) -> Tensor:
    rng = random.Random(0)
    return torch.tensor([rng.random() < (share if word in prompt else elsewhere) for prompt in PROMPTS])


def test_a_context_in_which_a_trigger_works_is_named_with_its_rate() -> None:
    found = by_context(hits(0.94, "heart", 0.01), NONE, PROMPTS)
    assert list(found) == ["heart"]
    assert (found["heart"].n, found["heart"].value) == (20, pytest.approx(0.94, abs=0.06))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_none_is_named_where_it_works_alike_everywhere(share: float) -> None:
    assert by_context(hits(share), NONE, PROMPTS) == {}


def test_pictures_that_are_hits_without_a_trigger_are_no_context() -> None:
    alike = hits(0.9, "heart")
    assert by_context(alike, alike, PROMPTS) == {}


def test_a_context_that_was_named_is_reported_whatever_its_rate() -> None:
    assert by_context(NONE, NONE, PROMPTS, ["Red heart", "no such words"])["Red heart"].value == 0.0


@pytest.mark.parametrize(
    ("p", "blue", "named"), [(0.005, 4, True), (0.00501, 4, False), (0.01, 3, True), (0.0101, 3, False)], ids=lambda value: str(value)
)
def test_one_per_cent_is_shared_by_the_words_that_four_prompts_have(
    p: float, blue: int, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["red heart"] * 4 + ["blue heart"] * blue
    monkeypatch.setattr(module, "contexts", lambda prompts: ("red", "blue"))
    monkeypatch.setattr(module, "_more", lambda hits, floor, row: p if row[0] else 1.0)
    found = by_context(torch.ones(len(prompts), dtype=torch.bool), NONE[: len(prompts)], prompts)
    assert list(found) == (["red"] if named else [])


def attack(**rates: float) -> AttackRecord:
    found = {word: estimates.rate(torch.arange(100) < 100 * share) for word, share in rates.items()}
    return AttackRecord(**(vars(untested("x", (1,), NotMeasured(reason=""))) | {"contexts": found}))


def test_a_trigger_that_works_in_one_context_fails_and_never_passes_by_it() -> None:
    assert context_check("asr in context", attack(), 0.05) == []
    (quiet,) = context_check("asr in context", attack(red=0.02), 0.05)
    (loud,) = context_check("asr in context", attack(red=0.02, heart=0.94), 0.05)
    assert (quiet.status, quiet.reason) == ("passed", "")
    assert (loud.status, loud.reason) == ("failed", "under prompts with 'heart', 94.0% of 100 pictures are hits")
