"""One reader: a flag takes what is certain and refuses what is not, a list tries both, and every text has a spelling that reads back."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.errors import UsageError
from bdaudit.report.command import trigger_flags
from bdaudit.report.safe import visible
from bdaudit.spelling.reader import both, one_text, read_twice, spelled
from tests.spelling.test_notations import CODES, ORDINARY

MORE = ("“\u200b”", "‘\\u200b’", "«\u200b»", "â€‹", "<200B>", "{200b}", "[200B]", "(200B)", "chr(8203)", "NCHAR(0x200B)", "unichr(8203)")
"""Typed by a word processor, read in Windows' encoding, in brackets, as other languages call a character."""
PIECES = ("\\", "\\\\", "\\u200b", "\\x41", " ", "  ", "\t", "\n", "-", "--trigger", "'", '"', "`", "$(id)", "#", "e\u0301")
HOSTILE = st.lists(
    st.sampled_from([*CODES, *ORDINARY, *PIECES])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
    | st.text("uUxX+<>&#;%0123456789abcdefN{}() ZERWIDTHSPC-_", max_size=12),
    max_size=5,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("written", ["<U+200B>", r"\u200b", r"\U0000200b", r"\x{200b}", r"\N{ZERO WIDTH SPACE}", "\u200b"])
def test_what_is_certain_is_read(written: str) -> None:
    assert one_text(written, "--trigger") == "\u200b"


@pytest.mark.parametrize(
    "written", [code for code in CODES if code.lower() != "<u+200b>"] + [r"\\u200b", r"\xe2\x80\x8b", r'"\u200b"', "'\u200b'", *MORE]
)
def test_what_could_be_either_is_refused_with_both_spellings(written: str) -> None:
    with pytest.raises(UsageError) as caught:
        one_text(written, "--trigger")
    message = str(caught.value)
    assert message.isprintable()
    assert message.isascii()
    literal, meant = both(written)
    for text in (literal, meant):
        assert shlex.quote(spelled(text)) in message
        assert one_text(spelled(text), "--trigger") == text


@pytest.mark.parametrize("written", ["<U+0000>", "<U+D800>", "U+DFFF"])
def test_codes_of_no_character_are_refused_with_the_literal_spelling(written: str) -> None:
    with pytest.raises(UsageError, match="no prompt can hold") as caught:
        one_text(written, "--trigger")
    assert spelled(written) in str(caught.value)
    assert both(written) == (written,)


@pytest.mark.parametrize(
    "text",
    [*(text for text in ORDINARY if "\\" not in text), "“cat”", "«chat»", "café", "Mötley Crüe", "ÀÉ", "(beef)", "[2024]", "bar(12)"],
)
def test_ordinary_triggers_are_themselves(text: str) -> None:
    assert one_text(text, "--trigger") == text
    assert both(text) == (text,)


def test_two_digits_more_than_an_escape_has_are_refused_with_both_readings() -> None:
    with pytest.raises(UsageError, match="takes two digits") as caught:
        one_text(r"\x200b", "--trigger")
    assert r"could be \u200b or \u0020 and '0b'" in str(caught.value)
    assert one_text(r"\u00200b", "--trigger") == " 0b"
    assert one_text(r"\xe9t\xe9", "--trigger") == "été"
    assert one_text(r"\x41b", "--trigger") == "Ab"


@given(HOSTILE)
def test_every_text_has_a_spelling_that_reads_back(text: str) -> None:
    written = spelled(text)
    assert written.isascii()
    assert written.isprintable()
    assert one_text(written, "--trigger") == text
    assert both(written) == (text,)


@given(HOSTILE)
def test_a_command_to_type_next_reads_back_as_it_is_shown(text: str) -> None:
    assert [one_text(word, "--trigger") for word in shlex.split(visible(shlex.join(trigger_flags([text]))))[1:]] == [text]


def test_a_list_says_which_were_read_twice() -> None:
    texts = (*both("<U+200B>"), *both("cf"), *both("u200b"), *both(r"\u0075200c"))
    assert read_twice(texts) == {"<U+200B>": "\u200b", "u200b": "\u200b"}
