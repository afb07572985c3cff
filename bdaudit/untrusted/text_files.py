r"""Texts from a file, one a line; what no editor shows is written as an escape (``\u200b``).

Every text is taken as data: nothing is normalised, and only ASCII spaces and tabs at the ends are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bdaudit.errors import UsageError
from bdaudit.spelling.escapes import unescape
from bdaudit.untrusted.open_file import read_file

MAX_BYTES = 16 << 20
MAX_LINES = 500_000
MAX_LINE = 1000
"""Characters of one line, escapes as they are written."""

Read = Callable[[str], tuple[str, ...]]
"""From a line to its text, or to several that it may mean."""


def as_it_stands(written: str) -> tuple[str, ...]:
    """The text with its escapes read; raises ``UsageError`` for a malformed one."""
    return (unescape(written),)


def read_texts(path: Path, *, what: str = "candidates", read: Read = as_it_stands) -> tuple[str, ...]:
    r"""Read one text a line: UTF-8, escapes as in ``unescape``, duplicates dropped, the order kept.

    A line whose first character is ``#`` is a comment (``\u0023`` writes a literal one); blank lines are skipped. ``what``
    names the file in messages; ``read`` is ``spelling.reader.both`` where a line may be a trigger.

    Raises:
        UsageError: not a readable regular file, not UTF-8, NUL, a malformed escape, nothing in it, more than 16 MB,
            500,000 lines or 1000 characters a line. With the line's number where there is one.
    """
    texts: dict[str, None] = {}
    for number, line in enumerate(read_lines(path, what), 1):
        if line.startswith("#"):
            continue
        try:
            texts |= dict.fromkeys(read(_text(line)))
        except UsageError as error:
            raise UsageError(f"{what} file {_name(path)}, line {number}: {error}") from error
    texts.pop("", None)
    if not texts:
        raise UsageError(f"{what} file {_name(path)} holds no text; expected one a line")
    return tuple(texts)


def read_lines(path: Path, what: str) -> list[str]:
    """A file's lines as they stand, under the same limits; ``what`` names the file in messages.

    Raises:
        UsageError: not a readable regular file, not UTF-8, too long.
    """
    return _decode(_read(path, what), path, what).split("\n")


def _text(line: str) -> str:
    line = line.removesuffix("\r")
    if len(line) > MAX_LINE:
        raise UsageError(f"{len(line)} characters; at most {MAX_LINE} are read")
    if "\0" in line:
        raise UsageError("holds NUL, which no prompt can hold")
    if "\r" in line:
        raise UsageError("holds a carriage return; end lines with a line feed, or write it as \\u000d")
    return line.strip(" \t")


def _read(path: Path, what: str) -> bytes:
    data = read_file(path, f"{what} file {_name(path)}", MAX_BYTES)
    if data.count(b"\n") >= MAX_LINES:
        raise UsageError(f"{what} file {_name(path)} is longer than {MAX_LINES:,} lines; split it")
    return data


def _decode(data: bytes, path: Path, what: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{what} file {_name(path)}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from error


def _name(path: Path) -> str:
    return ascii(str(path))[1:-1]
