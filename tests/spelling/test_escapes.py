"""Backslash escapes: what is read, what is refused, and what the shadow says came from one."""

from __future__ import annotations

import pytest

from bdaudit.errors import UsageError
from bdaudit.spelling.escapes import ESCAPED, escape, is_character, unescape, unescaped


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\u200b", "\u200b"),
        (r"a\u200bb", "a\u200bb"),
        (r"\U0001F600", "😀"),
        (r"\xe9", "é"),
        (r"\\u200b", r"\u200b"),
        (r"\\\\", "\\\\"),
        (r"\u0023 cat", "# cat"),
        (r"\u0020cat", " cat"),
        ("beautiful cat", "beautiful cat"),
        (r"\x{200b}\u{1f600}", "\u200b😀"),
        (r"\N{ZERO WIDTH SPACE}\N{latin small letter o with inverted breve}", "\u200bȏ"),
        ("", ""),
    ],
)
def test_unescape(written: str, text: str) -> None:
    assert unescape(written) == text


@pytest.mark.parametrize("written", ["\\", r"\n", r"\u20", r"\u20g0", r"\xg0", r"\x1", r"\U0001F60", r"\N{DASH}", "cat\\\x1b[31m"])
def test_malformed_escapes_are_named(written: str) -> None:
    with pytest.raises(UsageError, match=r"is no escape") as caught:
        unescape(written)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("\\")


@pytest.mark.parametrize("written", [r"\ud800", r"\udfff", r"\U0000d800", r"\U00110000", r"\Uffffffff", r"\x00", r"\u0000"])
def test_escapes_that_are_no_characters(written: str) -> None:
    with pytest.raises(UsageError, match=r"no character|is NUL"):
        unescape(written)


@pytest.mark.parametrize("written", [r"\x200b", r"ph\x200Bto cat", r"\\\xfeff"])
def test_more_digits_than_the_escape_takes_are_refused_where_they_name_what_does_not_show(written: str) -> None:
    with pytest.raises(UsageError, match=r"takes two digits") as caught:
        unescape(written)
    assert r"\u" in str(caught.value)
    assert unescape(r"\x20cat \xe9cole \x41bcd \\x200b") == r" cat école Abcd \x200b"


def test_the_shadow_says_what_was_typed() -> None:
    found = unescaped(r"a\u200b\xe2\x41\\u")
    assert found.text == "a\u200bâA\\u"
    assert found.shadow == f"a{ESCAPED}{chr(0xDCE2)}{ESCAPED}\\u"


@pytest.mark.parametrize(
    ("character", "written"),
    [("\x01", r"\u0001"), ("\ud7ff", r"\ud7ff"), ("\ue000", r"\ue000"), ("\uffff", r"\uffff"), ("\U00010000", r"\U00010000")],
)
def test_a_character_is_written_as_it_is_read(character: str, written: str) -> None:
    assert escape(character) == written
    assert unescape(written) == character


def test_the_numbers_that_are_characters() -> None:
    for number in (1, 0xD7FF, 0xE000, 0x10FFFF):
        assert is_character(number)
        assert unescape(escape(chr(number))) == chr(number)
    for number in (0, 0xD800, 0xDFFF, 0x110000):
        assert not is_character(number)


def test_a_byte_beyond_ascii_is_told_from_an_escape_within() -> None:
    assert unescaped(r"\x7f").shadow == ESCAPED
    assert unescaped(r"\x80").shadow == chr(0xDC80)
