r"""Texts from a file, one a line, and the escapes that write what no editor shows (``\u200b``).

Every text is taken as data: nothing is normalised, and only ASCII spaces and tabs at the ends are dropped.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from bdaudit.errors import UsageError

MAX_BYTES = 16 << 20
MAX_LINES = 500_000
MAX_LINE = 1000
"""Characters of one line, escapes as they are written."""

_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.{0,9})", re.DOTALL)


def unescape(text: str) -> str:
    r"""Replace ``\xXX``, ``\uXXXX``, ``\UXXXXXXXX`` (code points, in hexadecimal) and ``\\``.

    Raises:
        UsageError: another or a malformed escape, a surrogate, a number that is no code point, NUL.
    """
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(match: re.Match[str]) -> str:
    if match[0] == "\\\\":
        return "\\"
    digits = match[1] or match[2] or match[3]
    if digits is None:
        written = match[0].encode("unicode_escape").decode().replace("\\\\", "\\")
        raise UsageError(rf"{written} is no escape; expected \\, \xXX, \uXXXX or \UXXXXXXXX with hexadecimal digits")
    number = int(digits, 16)
    if number == 0:
        raise UsageError(f"{match[0]} is NUL, which no prompt can hold")
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        raise UsageError(rf"{match[0]} is no character; write those above \uFFFF as \U and eight digits")
    return chr(number)


def read_texts(path: Path, *, what: str = "candidates") -> tuple[str, ...]:
    r"""Read one text a line: UTF-8, escapes as in ``unescape``, duplicates dropped, the order kept.

    A line whose first character is ``#`` is a comment (``\u0023`` writes a literal one); blank lines are skipped. ``what``
    names the file in messages.

    Raises:
        UsageError: not a readable regular file, not UTF-8, NUL, a malformed escape, nothing in it, more than 16 MB,
            500,000 lines or 1000 characters a line. With the line's number where there is one.
    """
    texts: dict[str, None] = {}
    for number, line in enumerate(read_lines(path, what), 1):
        if line.startswith("#"):
            continue
        try:
            texts[_text(line)] = None
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
    return unescape(line.strip(" \t"))


def _read(path: Path, what: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} file {_name(path)} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError(f"{what} file {_name(path)} is not a regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_BYTES or data.count(b"\n") >= MAX_LINES:
        raise UsageError(f"{what} file {_name(path)} is longer than {MAX_BYTES:,} bytes or {MAX_LINES:,} lines; split it")
    return data


def _decode(data: bytes, path: Path, what: str) -> str:
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{what} file {_name(path)}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from error


def _name(path: Path) -> str:
    return ascii(str(path))[1:-1]
