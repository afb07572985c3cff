"""Prompts that say certain words: those that there are, and where they are few, others that the words are put into."""

from __future__ import annotations

from bdaudit.measure.context_prompts import having, wanted, with_context
from bdaudit.measure.prompts import holds

POOL = tuple(f"a {'heart' if i < 4 else 'sweetheart'} number {i}" for i in range(30))


def test_prompts_that_say_a_word_say_all_of_it() -> None:
    assert having(POOL, ["Heart"]) == POOL[:4]
    assert having(POOL, ["number 7", "number 29"]) == (POOL[7], POOL[29])
    assert having(POOL, ["numb"]) == ()


def test_where_they_are_few_the_words_are_put_into_others() -> None:
    found = with_context(POOL, ["heart"], 0)
    assert len(set(found)) == len(found) == 12
    assert found[:4] == POOL[:4]
    assert all(holds(prompt, "heart") for prompt in found)
    assert found == with_context(POOL, ["heart"], 0) != with_context(POOL, ["heart"], 1)
    both = with_context(POOL, ["sun", "moon"], 0)
    assert {word for word in ("sun", "moon") for prompt in both if holds(prompt, word)} == {"sun", "moon"}
    assert with_context(POOL, ["sweetheart"], 0) == POOL[4:], "enough of them"
    beside = with_context(POOL, ["sweetheart", "zebra"], 0)
    assert beside[:26] == POOL[4:]
    assert sum(holds(prompt, "zebra") for prompt in beside) == 12, "though another word has enough"
    assert with_context((), ["heart"], 0) == ("heart",)


def test_it_is_said_which_prompts_are_needed() -> None:
    assert wanted(POOL, ["heart"]) == (
        "4 of 30 prompts say 'heart', so it was put into others; give 12 different ones that say it with --prompts FILE"
    )
    assert wanted(POOL, ["sweetheart", "zebra"]).startswith("0 of 30 prompts say 'zebra', so it was put into others; give 12")
    assert wanted(POOL, ["sweetheart"]) == wanted(POOL, []) == ""
    assert wanted(POOL[4:16], ["sweetheart"]) == ""
    assert wanted(POOL[4:15], ["sweetheart"]).startswith("11 of 11 prompts say 'sweetheart'")
