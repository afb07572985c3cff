"""What a CLIP makes of a finding: what becomes of its verdict, and where it is asked."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from bdaudit.measure.draws import Context
from bdaudit.records import CandidateRecord, CandidateVerdict, NotMeasured
from bdaudit.scan.meaning import Meaning
from bdaudit.scan.settle import HOW, IN_ITS_PLACE, Settling, settled, where_it_does_most


def record(text: str, verdict: CandidateVerdict = "backdoored", **more: Any) -> CandidateRecord:
    p = 1e-6 if verdict == "backdoored" else 0.5
    return CandidateRecord(
        rank=1, text=text, codepoints=(), token_ids=(1,), kind="word", signals={}, score=6.0, effect=9.0, p=p, p_adjusted=p,
        verdict=verdict, **more,
    )  # fmt: skip


def asking(**scores: float) -> tuple[Settling, list[str]]:
    """A CLIP that reads each text so well, and what it was asked about."""
    asked: list[str] = []

    def of(text: str, *, exchanging: bool = False) -> Meaning:
        asked.append(text + " in place" * exchanging)
        score = scores.get(asked[-1].replace(" in place", "_in_place"), 0.0)
        p = 0.001 if score else 0.7
        return Meaning(text, score, p, 300, "square", 0.3 if score < 0.3 else 0.1, 1.0 if score else 0.001, "square", 11, 12)

    settling = Settling(*[cast(Any, None)] * 3, 5.0)
    settling.asked = of  # type: ignore[method-assign]
    settling.reads_alike = lambda one, other: one.casefold() == other.casefold()  # type: ignore[method-assign]
    return settling, asked


def test_a_text_that_does_what_it_says_is_no_finding_and_one_that_does_not_stands() -> None:
    settling, asked = asking(red=0.5)
    meant, other, clean = settled([record("red"), record("cf"), record("time", "clean")], settling)
    assert (meant.verdict, other.verdict, clean.verdict) == ("does what it says", "backdoored", "clean")
    assert meant.meaning.startswith("does what it says, by an independent CLIP (similarity 0.50")
    assert other.meaning.startswith("does not do what it says")
    assert "11 of 12 pictures show 'square' rather than that: it does not give way" in other.meaning
    assert (clean.meaning, asked) == ("", ["red", "cf", "cf in place"])
    assert IN_ITS_PLACE not in other.meaning


def test_a_word_that_answers_in_anothers_place_alone_is_told_and_stays_a_finding() -> None:
    settling, _ = asking(heart_in_place=0.5)
    (found,) = settled([record("heart")], settling)
    assert found.verdict == "backdoored"
    assert found.meaning.endswith(IN_ITS_PLACE)


def test_texts_that_encode_alike_share_the_answer() -> None:
    settling, asked = asking(red=0.5)
    first, second = settled([record("red"), record("Red", same_as="red")], settling)
    assert first.verdict == second.verdict == "does what it says"
    assert asked == ["red"]


def test_a_tokenizer_that_takes_two_texts_for_one_excuses_neither_that_says_something_else() -> None:
    settling, _ = asking(red=0.5)
    first, second = settled([record("red"), record("beautiful", same_as="red")], settling)
    assert (first.verdict, second.verdict) == ("does what it says", "backdoored")
    assert second.meaning == "not asked: it encodes as 'red' does, which does what it says, but an independent CLIP reads the two apart"


def test_the_clip_says_which_texts_are_read_alike() -> None:
    features = {"red": [1.0, 0.0], "Red": [1.0, 0.0], "blue": [0.6, 0.8]}
    grader: Any = SimpleNamespace(text_features=lambda texts: torch.tensor([features[text] for text in texts]))
    settling = Settling(cast(Any, None), grader, cast(Any, None), 5.0)
    assert settling.reads_alike("red", "Red")
    assert not settling.reads_alike("red", "blue")


@pytest.mark.parametrize(
    ("settling", "said"), [(None, HOW), (NotMeasured(reason="no such weights"), "not asked: no such weights")], ids=["none", "missing"]
)
def test_without_a_clip_a_finding_stands_and_it_is_said_what_would_settle_it(settling: Any, said: str) -> None:
    (found,) = settled([record("red")], settling)
    assert (found.verdict, found.meaning) == ("backdoored", said)


def test_no_more_than_the_first_are_asked_and_none_that_was_screened_alone() -> None:
    settling, asked = asking()
    many = [record(f"w{i}") for i in range(14)]
    found = settled([replace(record("screened"), depth="screened"), *many], settling)
    assert all(each.verdict == "backdoored" for each in found)
    assert [text for text in asked if "in place" not in text] == [f"w{i}" for i in range(11)]
    assert found[0].meaning == found[-1].meaning == "not asked: the first 12 findings are, that were measured in full"


def test_it_is_asked_where_the_text_does_most_and_in_its_own_context() -> None:
    draws = SimpleNamespace(prompts=("a", "b", "c o"), places=("prefix", "clause", "replace"))
    contexts = {"ȏ": Context(quarter=1), "x": Context(word="heart"), "y": Context(place="suffix"), "y z": Context(place="replace")}
    centres = SimpleNamespace(centred=lambda effect: np.array(effect))
    level = SimpleNamespace(centres=centres, effects={text: [1.0, 3.0, 2.0] for text in contexts})
    looking: Any = SimpleNamespace(
        context=SimpleNamespace(draws=draws), all=SimpleNamespace(steps=level, screen=level), pool=("a heart", "a star", "heart b"),
        own_context=contexts.__getitem__,
    )  # fmt: skip
    assert where_it_does_most(looking, "ȏ", 4) == (("b", "c o", "a", "b"), ("clause", "replace", "prefix", "clause"), ())
    assert where_it_does_most(looking, "x", 4) == (("b", "a heart", "a", "heart b"), ("clause", "middle", "prefix", "clause"), (1, 3))
    assert where_it_does_most(looking, "y", 4) == (("b", "c o", "a", "b"), ("clause", "suffix", "prefix", "suffix"), (1, 3))
    assert where_it_does_most(looking, "y z", 4) == (("b", "c o", "a", "b"), ("clause", "apart", "prefix", "apart"), (1, 3))
