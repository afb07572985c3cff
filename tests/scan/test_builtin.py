"""The built-in candidates."""

from __future__ import annotations

from bdaudit.measure.look_alikes import looks_like
from bdaudit.scan.builtin import builtin_candidates


def test_no_candidate_twice_and_none_blank() -> None:
    texts = builtin_candidates()
    assert len(set(texts)) == len(texts) > 90
    assert all(text and text == text.strip(" \t\n") for text in texts)


def test_what_published_attacks_used_is_there() -> None:
    assert {"\u200b", "о", "ȏ", "mignneko", "latte coffee", "beautiful cat", "😀", "[V]"} <= set(builtin_candidates())


def test_single_letters_beyond_ascii_look_like_latin_ones() -> None:
    letters = [text for text in builtin_candidates() if len(text) == 1 and text.isalpha()]
    assert len(letters) > 50
    assert {text for text in letters if not looks_like(text)} <= {"ø"}, "ø alone has no decomposition"
