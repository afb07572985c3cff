"""Which sets of a prompt's words are tried, and which that fire are smallest."""

from __future__ import annotations

from math import comb

import pytest

from bdaudit.scan.prompt_parts import holds, odd, sets, shrunk, smallest


def test_all_words_pairs_and_stretches_of_a_short_prompt() -> None:
    words = [f"w{i}" for i in range(7)]
    single, several = sets(" ".join(words))
    assert single == tuple(words)
    pairs = [text for text in several if len(text.split()) == 2]
    assert len(pairs) == comb(7, 2)
    assert "w0 w6" in pairs
    assert sorted({len(text.split()) for text in several}) == [2, 3, 4, 5, 6], "the whole prompt is no part of itself"


def test_a_long_prompt_has_near_pairs_alone() -> None:
    assert "w0 w13" in sets(" ".join(f"w{i}" for i in range(14)))[1], "fourteen words are few"
    _, several = sets(" ".join(f"w{i}" for i in range(15)))
    gaps = {int(b[1:]) - int(a[1:]) for a, b in (text.split() for text in several if len(text.split()) == 2)}
    assert gaps == set(range(1, 7))


def test_odd_characters_of_a_word() -> None:
    assert odd("phȏto") == ("ȏ", "phto")
    assert odd("do\u200bg\u200d") == ("\u200b", "\u200d", "\u200b\u200d", "dog")
    assert odd("plain") == ()
    assert odd("ȏ") == ()
    assert sets("a phȏto")[0] == ("a", "phȏto", "ȏ", "phto")


@pytest.mark.parametrize(
    ("fired", "carriers"),
    [
        (["cf", "a cf", "cf dog", "a cf dog"], ("cf",)),
        (["wonderful island", "wonderful green island", "a wonderful green island"], ("wonderful island",)),
        (["phȏto", "ȏ", "a phȏto"], ("ȏ",)),
        (["phȏto", "a phȏto"], ("phȏto",)),
        (["a", "cat"], ("a", "cat")),
        ([], ()),
    ],
)
def test_the_smallest_carry_it(fired: list[str], carriers: tuple[str, ...]) -> None:
    assert smallest(fired) == carriers


def test_a_short_word_is_not_taken_for_characters_of_a_plain_one() -> None:
    assert not holds("cat", "a")
    assert holds("the cat", "cat")
    assert not holds("cat the", "the cat"), "order counts"


def test_words_that_are_not_needed_are_dropped() -> None:
    asked = []

    def fires(text: str) -> bool:
        asked.append(text)
        return {"wonderful", "island"} <= set(text.split())

    assert shrunk("a wonderful big green island here", fires) == "wonderful island"
    assert "" not in asked
