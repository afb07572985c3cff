r"""Backslash escapes: what ``\u200b`` and its kin stand for, and which characters of a text came from one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from bdaudit.errors import UsageError

ESCAPED = "\ud800"
"""Stands in ``Unescaped.shadow`` where an escape made the character; no prompt can hold it."""
BYTE = 0xDC00
"""Added to the number of an ``\\xXX`` above 0x7F in the shadow: several of them may have been meant as UTF-8."""

_ESCAPE = re.compile(
    r"\\(?:(?P<slash>\\)|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8})"
    r"|[xu]\{(?P<braced>[0-9a-fA-F]{1,8})\}|N\{(?P<name>[A-Za-z0-9 _-]{1,100})\}|.{0,9})",
    re.DOTALL,
)
_MORE = re.compile("[0-9a-fA-F]{2}(?![0-9a-fA-F])")


@dataclass(frozen=True)
class Unescaped:
    """A text, and beside it what of each character was typed."""

    text: str
    shadow: str
    """As long as ``text``: the character itself where it was typed as such, ``ESCAPED`` or above ``BYTE`` where an escape made it."""


def unescape(written: str) -> str:
    r"""Replace ``\xXX``, ``\uXXXX``, ``\UXXXXXXXX``, ``\x{X…}``, ``\u{X…}`` (code points), ``\N{NAME}`` and ``\\``.

    Raises:
        UsageError: another or a malformed escape, a surrogate, a number that is no code point, NUL, a name that is none, ``\xXX`` with two
            digits more that make another character's number.
    """
    return _ESCAPE.sub(lambda match: _made(match)[0], written) if "\\" in written else written


def unescaped(written: str) -> Unescaped:
    """The same with its shadow; raises as ``unescape``."""
    if "\\" not in written:
        return Unescaped(written, written)
    texts, shadows, end = [], [], 0
    for match in _ESCAPE.finditer(written):
        plain = written[end : match.start()]
        text, shadow = _made(match)
        texts += [plain, text]
        shadows += [plain, shadow]
        end = match.end()
    return Unescaped("".join((*texts, written[end:])), "".join((*shadows, written[end:])))


def _made(match: re.Match[str]) -> tuple[str, str]:
    """What one escape stands for, and its shadow."""
    kind = match.lastgroup or _refuse(match)
    if kind == "slash":
        return "\\", "\\"
    if kind == "name":
        text = character_named(match["name"]) or _refuse(match)
        return text, ESCAPED * len(text)
    whole = match.string[match.start() : match.end() + 2]
    if kind == "x" and _MORE.match(match.string, match.end()) and unicodedata.category(chr(int(whole[2:], 16))) != "Cn":
        said = rf"could be \u{whole[2:]} or \u00{match['x']} and {whole[4:]!r}"
        raise UsageError(f"{whole} {said}; \\x takes two digits: write one of these")
    text = _character(match[0], int(match[kind], 16))
    return text, chr(BYTE + ord(text)) if kind == "x" and ord(text) > 0x7F else ESCAPED


def character_named(name: str) -> str:
    """What Unicode calls by that name, empty where there is none."""
    try:
        return unicodedata.lookup(name.strip().upper()) if name.isascii() else ""
    except KeyError:
        return ""


def _refuse(match: re.Match[str]) -> str:
    written = match[0].encode("unicode_escape").decode().replace("\\\\", "\\")
    expected = r"expected \\, \xXX, \uXXXX or \UXXXXXXXX with hexadecimal digits, \u{X}, or \N{NAME} with a name of Unicode's"
    raise UsageError(f"{written} is no escape; {expected}")


def _character(written: str, number: int) -> str:
    if number == 0:
        raise UsageError(f"{written} is NUL, which no prompt can hold")
    if not is_character(number):
        raise UsageError(rf"{written} is no character; write those above \uFFFF as \U and eight digits")
    return chr(number)


def is_character(number: int) -> bool:
    """Whether a prompt can hold that code point: no NUL, no surrogate, nothing beyond Unicode."""
    return 0 < number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF


def escape(character: str) -> str:
    r"""``\u200b``, ``\U0001f600``."""
    point = ord(character)
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
