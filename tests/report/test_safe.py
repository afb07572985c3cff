"""Nothing that acts or hides survives ``visible``; ordinary writing does."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.report.safe import VisibleStream, one_line, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "<U+001B>[31m"),
        ("a\u200bb", "a<U+200B>b"),
        ("\u202etxt", "<U+202E>txt"),
        ("\u0301", "<U+0301>"),
        (" \u0301", " <U+0301>"),
        ("e\u0301", "e\u0301"),
        ("e\u0301\u0302\u0303\u0304", "e\u0301\u0302<U+0303><U+0304>"),
        ("\ue000", "<U+E000>"),
        ("\u00a0", "<U+00A0>"),
        ("\u3164", "<U+3164>"),
        ("\U000e0041", "<U+E0041>"),
        ("❤\ufe0f", "❤<U+FE0F>"),
        ("\ud800", "<U+D800>"),
        ("a\nb", "a<U+000A>b"),
    ],
)
def test_hidden_characters_become_their_code_points(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["a photo of a dog", "ȏ", "犬の写真", "собака", "नमस्ते", "😀", "x < y & [z]"])
def test_ordinary_writing_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


@given(st.text(st.characters()))
def test_nothing_unprintable_survives_and_twice_is_as_once(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(c)[0] in "CZ" for c in shown if c != " ")
    assert visible(shown) == shown
    shown.encode("utf-8")


def test_one_line_joins_lines_and_keeps_what_a_message_quotes() -> None:
    assert one_line("two\n  lines of \u200b\r\n") == "two lines of <U+200B>"


def test_a_stream_hands_on_whole_lines_made_visible() -> None:
    lines: list[str] = []
    stream = VisibleStream(lines.append)
    print("\x1b]0;title\x07", "half", file=stream, end="")
    assert lines == []
    stream.write(" more\r\n\nlast")
    stream.finish()
    assert lines == ["<U+001B>]0;title<U+0007> half more", "last"]


def test_a_stream_holds_no_endless_line() -> None:
    lines: list[str] = []
    stream = VisibleStream(lines.append)
    for _ in range(30_000):
        stream.write(".")
    assert [len(line) for line in lines] == [10_001, 10_001]
    assert stream.encoding == "utf-8"
