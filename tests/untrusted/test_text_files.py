"""Candidates and prompt files: what is kept to the character, and what is refused with its line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bdaudit.errors import UsageError
from bdaudit.spelling.reader import both
from bdaudit.untrusted.text_files import Read, as_it_stands, read_texts


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


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
    ("content", "line"),
    [
        (b"a\nb\n\xff\n", 3),
        (b"a\nb\0\n", 2),
        (b"a\nb\rc\n", 2),
        (b"a\n\rb\n", 2),
        (b"a\n\n\n\\u12\n", 4),
        (b"\xc3", 1),
        (b"a\n" + b"b" * 1001, 2),
    ],
)
def test_errors_name_the_line(content: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"line {line}: "):
        read_texts(write(tmp_path, content))


def test_the_longest_line_is_read(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, "é" * 1000)) == ("é" * 1000,)


def test_messages_say_which_list_and_show_names_harmlessly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prompts file") as caught:
        read_texts(tmp_path / "\x1b[31m\u202e", what="prompts")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("read", "seconds"), [(as_it_stands, 1), (both, 4)])
def test_a_full_list_reads_within_seconds(tmp_path: Path, read: Read, seconds: int) -> None:
    path = write(tmp_path, "".join(f"word{i} \\u200b\n" for i in range(100_000)))
    start = time.process_time()
    assert len(read_texts(path, read=read)) == 100_000
    assert time.process_time() - start < seconds


def test_a_list_holds_both_readings_where_it_is_asked_to(tmp_path: Path) -> None:
    path = write(tmp_path, "<U+200B>\ncf\n\\u200c\nphu020fto\n\\u0075200b\n")
    assert read_texts(path, read=both) == ("<U+200B>", "\u200b", "cf", "\u200c", "phu020fto", "phȏto", "u200b")
    assert read_texts(path) == ("<U+200B>", "cf", "\u200c", "phu020fto", "u200b")


def test_as_many_lines_as_are_read(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, b"a\n" * 499_999 + b"b")) == ("a", "b")
    with pytest.raises(UsageError, match="longer than 500,000 lines"):
        read_texts(write(tmp_path, b"a\n" * 500_000))
