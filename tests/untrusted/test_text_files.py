"""Candidates and prompt files: what is kept to the character, and what is refused with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bdaudit.errors import UsageError
from bdaudit.untrusted.text_files import MAX_LINE, read_texts, unescape


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


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


def test_one_a_line_in_order_without_comments_blanks_and_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path, "# rare\nzebra\n\n  cat \t\n\t\nzebra\n\\u007aebra\nlatte coffee\r\nlast")
    assert read_texts(path) == ("zebra", "cat", "latte coffee", "last")


@pytest.mark.parametrize(
    "text", ["\u200b", "\u00a0", "\u3000", "a\u2028b", "\x0b", "\x85", "\u200bcat\u200b", "ȏ", "o\u0311", "\x1b[31m", "\u202ecat"]
)
def test_what_may_be_a_trigger_is_kept_to_the_character(text: str, tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, f" {text} \n")) == (text,)


def test_spaces_written_as_escapes_stay(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, "\\u0020cat\\x20\n")) == (" cat ",)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, b"\xef\xbb\xbf# comment\ncat\n")) == ("cat",)


@pytest.mark.parametrize(
    ("content", "line"), [(b"a\nb\n\xff\n", 3), (b"a\nb\0\n", 2), (b"a\n\n\n\\u12\n", 4), (b"\xc3", 1), (b"a\n" + b"b" * (MAX_LINE + 1), 2)]
)
def test_errors_name_the_line(content: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"line {line}: "):
        read_texts(write(tmp_path, content))


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, "é" * MAX_LINE)) == ("é" * MAX_LINE,)


def test_messages_say_which_list_and_show_names_harmlessly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompts file") as caught:
        read_texts(tmp_path / "\x1b[31m\u202e", what="prompts")
    assert str(caught.value).isprintable()


def test_a_full_list_reads_within_a_second(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f"word{i} \\u200b\n" for i in range(100_000)))
    start = time.perf_counter()
    assert len(read_texts(path)) == 100_000
    assert time.perf_counter() - start < 1
