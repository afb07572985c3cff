"""Code points in words."""

from __future__ import annotations

import pytest

from bdaudit.spelling.points import called, codes, described, listed


def test_names() -> None:
    assert called("\u200b") == "U+200B ZERO WIDTH SPACE"
    assert called("\ue000") == "U+E000 no name, category Co"
    assert described("pho\u200bto ȏ") == "U+200B ZERO WIDTH SPACE, U+020F LATIN SMALL LETTER O WITH INVERTED BREVE"
    assert described("cf") == "'cf', plain ASCII"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("cf", ""), ("ȏ", "U+020F"), ("phоto", "U+0070 U+0068 U+043E U+0074 U+006F"), ("beautiful cаt", "U+0430 at 12"),
     ("a\tb", "U+0061 U+0009 U+0062")],
)  # fmt: skip
def test_codes(text: str, shown: str) -> None:
    assert codes(text) == shown


def test_long_texts_that_begin_alike_have_other_codes() -> None:
    one, other = "犬" * 9 + "o", "犬" * 9 + "о"
    assert codes(one) != codes(other)
    assert codes("犬" * 20 + "o") != codes("犬" * 20 + "0")


def test_lists_are_cut() -> None:
    assert listed(map(str, range(8))) == "0, 1, 2, 3, 4, 5, 6, 7"
    assert listed(map(str, range(9))) == "0, 1, 2, 3, 4, 5, 6, 7 and 1 more"


def test_from_nine_characters_on_the_odd_ones_stand_with_their_places() -> None:
    assert codes("aaaaaaaȏ") == " ".join(["U+0061"] * 7 + ["U+020F"])
    assert codes("aaaaaaaaȏ") == "U+020F at 9"


def test_from_nine_odd_characters_on_a_digest_stands_for_the_rest() -> None:
    eight = ", ".join(f"U+72AC at {at}" for at in range(2, 10))
    assert codes("a" + "犬" * 8) == eight
    assert codes("a" + "犬" * 9).startswith(f"{eight} … +1, #")
