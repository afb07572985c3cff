"""Nothing that acts or hides survives ``visible``; ordinary writing does."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bdaudit.report.safe import VisibleStream, inert, one_line, visible
from bdaudit.report.words import told


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", "<U+001B>[31m"),
        ("a\u200bb", "a<U+200B>b"),
        ("\u202etxt", "<U+202E>txt"),
        ("\u0301", "<U+0301>"),
        (" \u0301", "<U+0020><U+0301>"),
        ("e\u0301", "e<U+0301>"),
        ("\u0438\u0306", "\u0438<U+0306>"),
        ("x\u0301\u0302\u0303\u0304", "x\u0301\u0302<U+0303><U+0304>"),
        ("x\u0301\u0323", "x\u0301<U+0323>"),
        ("\u212b", "<U+212B>"),
        ("\u1112\u1161", "\u1112<U+1161>"),
        ("<U+200B>", "<U+003C>U+200B>"),
        ("<<U+<u+", "<<U+003C>U+<u+"),
        (" a  b ", "<U+0020>a <U+0020>b<U+0020>"),
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


@given(st.text(st.characters(max_codepoint=0x80), max_size=12))
def test_plain_ascii_takes_a_shorter_way_to_the_same(text: str) -> None:
    """Beside a letter that keeps a text off that way, and says nothing of its own."""
    assert visible(f"x{text}x") + "é" == visible(f"x{text}xé")


@pytest.mark.parametrize("text", ["a photo of a dog", "ȏ", "犬の写真", "собака", "नमस्ते", "😀", "x < y & [z]"])
def test_ordinary_writing_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


PIECES = st.sampled_from(
    ["<", "U+", "<U+", "200B>", ">", " ", "e", "\u0301", "\u0323", "é", "ȏ", "о", "\u1100", "\u1161", "\u200b", "K", "\u212a"]
)
TEXTS = st.text(st.characters(), max_size=12) | st.lists(PIECES, max_size=8).map("".join)


@given(TEXTS)
def test_nothing_unprintable_survives_and_the_net_finds_nothing_left(text: str) -> None:
    for shown in (visible(text), inert(text)):
        assert not any(unicodedata.category(c)[0] in "CZ" for c in shown if c != " ")
        assert inert(shown) == shown
        shown.encode("utf-8")


@given(TEXTS)
def test_no_two_texts_are_shown_alike(text: str) -> None:
    """What is shown gives the text back, so it is of no other; nor is what it shows as itself drawn like another."""
    shown = visible(text)
    assert re.sub(r"<U\+([0-9A-F]{4,6})>", lambda match: chr(int(match[1], 16)), shown) == text
    assert unicodedata.is_normalized("NFC", shown)
    assert "  " not in shown
    assert shown == shown.strip(" ")


@given(TEXTS, TEXTS)
def test_two_texts_are_shown_as_two(one: str, other: str) -> None:
    assert (visible(one) == visible(other)) == (one == other)
    assert (told(one) == told(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a" * 70 + "b", "a" * 70 + "c"), ("photo", "phоto"), ("cf", "cf "), ("a b", "a  b"), ("é", "e\u0301"), ("<U+200B>", "\u200b"),
        ("犬" * 70, "犬" * 69 + "大"), ("оo", "oо"),
    ],
)  # fmt: skip
def test_alike_to_the_eye_and_told_apart(one: str, other: str) -> None:
    assert unicodedata.normalize("NFKC", told(one)) != unicodedata.normalize("NFKC", told(other))


def test_a_look_alike_has_its_code_points_beside_it() -> None:
    assert told("ȏ") == "ȏ (U+020F)"
    assert told("\u200b") == "<U+200B>"
    assert told("cf") == "cf"


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
