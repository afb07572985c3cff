r"""Stretches of a text that look as if they stood for a character: ``<U+200B>``, ``U+200B``, ``u200b`` (a shell ate the backslash),
``&#8203;``, ``&ZeroWidthSpace;``, ``%E2%80%8B``, ``0x200b``, or a character's name.

Where an ordinary word could be spelled like that, it counts only as far as someone may have meant the character: ``u2`` and ``face`` never
do, ``x86`` and ``gtx1080`` do not, ``u2022`` does.
"""

from __future__ import annotations

import html.entities
import re
import string
from collections.abc import Callable
from dataclasses import dataclass

from bdaudit.spelling.escapes import BYTE, is_character
from bdaudit.spelling.names import Named, hides, named

_H = "[0-9A-Fa-f]"
_ALONE = r"(?<![0-9A-Za-z]){}(?![0-9A-Za-z])"
_WINDOWS = {bytes([i]).decode("cp1252"): i for i in range(0x80, 0xA0) if i not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
"""What Windows' encoding has where Latin's has control characters, and the byte."""
_BRACKETS = {"<": ">", "[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True)
class Notation:
    """One such stretch."""

    start: int
    end: int
    meant: str
    """The character, or several; empty where the notation is that of a code point which no prompt can hold."""
    own: bool = False
    """Whether it is the notation of bdaudit's own tables."""


def notations(text: str) -> tuple[Notation, ...]:
    """All of them, in order, none over another. ``text`` is a shadow: what escapes made is in it as surrogates, and is in no notation."""
    codes, names = _coded(text) if _ANY.search(text) else [], named(text)
    if not codes and not names:
        return ()
    found = [_beside(text, code, names) for code in codes] + [Notation(name.start, name.end, name.meant) for name in names]
    apart: list[Notation] = []
    for item in sorted((_bracketed(text, item) for item in found), key=lambda item: (item.start, -item.end)):
        if not apart or item.start >= apart[-1].end:
            apart.append(item)
    return tuple(apart)


def ungarbled(text: str) -> str:
    """What UTF-8 stands behind ``text`` where all of it was read in Windows' or Latin's encoding, ``â€‹``; empty where it was not."""
    if text.isascii() or any(c not in _WINDOWS and ord(c) > 0xFF for c in text):
        return ""
    try:
        return bytes(_WINDOWS.get(c, ord(c) & 0xFF) for c in text).decode("utf-8")
    except UnicodeDecodeError:
        return ""


def _coded(text: str) -> list[Notation]:
    """Codes, by every pattern; some may lie over others."""
    found = []
    for kind, (pattern, meaning) in _PATTERNS.items():
        for match in pattern.finditer(text):
            meant = meaning(match)
            if meant is not None:
                found.append(Notation(match.start(), match.end(), meant, own=kind == "own"))
    return found


def _beside(text: str, code: Notation, names: list[Named]) -> Notation:
    """With what tables show beside a code point: the character before, ``ȏ (U+020F)``, or its name after, ``U+200B ZERO WIDTH SPACE``."""
    if code.own or not code.meant:
        return code
    start, end = code.start, code.end
    end = next((n.end for n in names if n.meant == code.meant and re.fullmatch(r"[ :=,;–—-]{1,3}", text[end : n.start])), end)
    before = f"{code.meant} ("
    if text[:start].endswith(before) and text[end : end + 1] == ")":
        start, end = start - len(before), end + 1
    return Notation(start, end, code.meant)


def _bracketed(text: str, item: Notation) -> Notation:
    """With the brackets right around it, and the ``N`` of ``\\N{…}``, whose backslash a shell may have eaten."""
    before, after = text[max(0, item.start - 1) : item.start], text[item.end : item.end + 1]
    if item.own or not before or _BRACKETS.get(before) != after:
        return item
    called = 2 if before == "{" and text[: item.start].endswith("N{") else 1
    return Notation(item.start - called, item.end + 1, item.meant)


def _hexadecimal(match: re.Match[str]) -> str:
    return _character(re.sub(r"^\W*(?:[uU]ni|0[xX]|[uUxX])", "", match[0]))


def _character(written: str) -> str:
    """Of a code point; empty where no prompt can hold it."""
    number = int("".join(c for c in written.removeprefix("+0x").removeprefix("+0X") if c in string.hexdigits), 16)
    return chr(number) if is_character(number) else ""


def _decimal(match: re.Match[str]) -> str:
    number = int(re.sub(r"\D", "", match[0]))
    return chr(number) if is_character(number) else ""


def _called(match: re.Match[str]) -> str:
    """``chr(8203)``, ``NCHAR(0x200B)``."""
    number = int(match[0].rpartition("(")[2][:-1], 0 if "x" in match[0].lower() else 10)
    return chr(number) if is_character(number) else ""


def _entity(match: re.Match[str]) -> str | None:
    return html.entities.html5.get(match[0][1:])


def _bytes(match: re.Match[str]) -> str | None:
    """UTF-8 that was written byte by byte; None for bytes that are none, and for printable ASCII."""
    if ord(match[0][0]) >= BYTE:
        data = bytes(ord(c) - BYTE for c in match[0])
    else:
        data = bytes.fromhex("".join(re.findall(rf"(?:0[xX]|\\?[xX]|[%=])?({_H}{{2}})", match[0])))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if text.isascii() and text.isprintable() and text != " " else text


def _spaced(match: re.Match[str]) -> str | None:
    """Bytes with nothing but spaces between them: *deaf* and *dead* would be such too, so a digit is asked for."""
    return _bytes(match) if any(c.isdecimal() for c in match[0]) else None


def _eaten(match: re.Match[str]) -> str | None:
    """``u200b``: four digits after a *u*. Inside a word, such as ``menu2024``, they count where the word would be a strange one."""
    digits, start, text = match[0][-4:], match.start(), match.string
    meant = _character(digits)
    odd = digits[0] == "0" or not (digits.isdecimal() or digits.isalpha())
    inside = start > 0 and text[start].isalnum() and text[start - 1].isalnum()
    return meant if meant and (hides(meant) or odd or not inside) else None


def _short(match: re.Match[str]) -> str | None:
    """``x200b``, and ``200b`` with nothing beside it: where it hides, or is spelled with both letters and digits and is no plain word."""
    digits = match[0].lstrip("xX")
    meant = _character(digits)
    mixed = not digits.isdecimal() and not digits.isalpha()
    odd = mixed and (digits != match[0] or digits[:2].lower() == "1f")
    return meant if meant and (odd or (hides(meant) and not digits.isdecimal())) else None


def _loose(match: re.Match[str]) -> str | None:
    """``U + 200B``, ``U-200B``: ``U-2511`` is a boat, so it counts where it hides, or its digits are no plain number."""
    digits = re.split(r"[^0-9A-Fa-f]+", match[0])[-1]
    meant = _character(digits)
    return meant if meant and (hides(meant) or digits[0] == "0" or not digits.isdecimal()) else None


def _pair(match: re.Match[str]) -> str:
    """A surrogate pair, as JSON and JavaScript write what lies above U+FFFF."""
    high, low = (int(digits, 16) for digits in re.findall(rf"[uU]({_H}{{4}})", match[0]))
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


_SEVERAL = (
    rf"(?:(?:0[xX]|\\?[xX]|[%=])[89A-Fa-f]{_H}[ ,]{{0,2}}){{1,7}}(?:0[xX]|\\?[xX]|[%=])[89A-Fa-f]{_H}"
    r"|%20|%09|%0[AaDd]|[\udc80-\udcff]{2,}"
)
_PLUS = rf"(?:10{_H}{{4}}|0{{0,4}}[1-9A-Fa-f]{_H}{{4}}(?!{_H})|{_H}{{4}}|{_H}{{2,3}}(?!{_H}))"
_WRITTEN: dict[str, tuple[str, Callable[[re.Match[str]], str | None]]] = {
    "own": (rf"<[uU]\+{_H}{{4,6}}>", _hexadecimal),
    "reference": (rf"(?:&(?:amp;)?#|[&#])[xX]{_H}{{2,6}};|&#[xX]{_H}{{1,6}}", _hexadecimal),
    "decimal": (r"(?:&(?:amp;)?#|[&#])\d{2,7};|&#\d{1,7}", _decimal),
    "call": (rf"(?:[nN]|[uU]ni)?[cC][hH][aA]?[rR]\((?:0[xX]{_H}{{2,6}}|[1-9]\d{{1,6}})\)", _called),
    "entity": (r"&[A-Za-z][A-Za-z0-9]{1,31};|&[A-Za-z]+(?![A-Za-z0-9;])", _entity),
    "braced": (rf"\\?[uUxX]\+?\{{{_H}{{1,8}}\}}", _hexadecimal),
    "pair": (rf"[/%\\]?[uU][dD][89abAB]{_H}{{2}}[/%\\]?[uU][dD][c-fC-F]{_H}{{2}}", _pair),
    "long": (rf"[/%\\]?[uU][-+]?00(?:0{_H}{{5}}|10{_H}{{4}})", _hexadecimal),
    "plus": (rf"(?<!<U\+003C>)[/%\\]?[uU]\+(?:0[xX])?{_PLUS}", _hexadecimal),
    "loose": (_ALONE.format(rf"(?![uU]\+{_H})[uUｕＵ] ?[-–+＋] ?{_H}{{4,6}}"), _loose),
    "several": (_SEVERAL, _bytes),
    "spaced": (_ALONE.format(rf"[c-fC-F]{_H}(?:[ ]?[89abAB]{_H}){{1,3}}"), _spaced),
    "astral": (rf"[/%\\]?[uU](?:1[fF]{_H}{{3}}|[eE]0[01]{_H}{{2}})", _hexadecimal),
    "eaten": (rf"[/%\\]?[uU](?:ni)?{_H}{{4}}", _eaten),
    "zero": (_ALONE.format(rf"0[xX]{_H}{{2,8}}"), _hexadecimal),
    "alone": (_ALONE.format(r"\\?[xX](?:09|0[aAdD]|20|1[bB]|7[fF]|[a-fA-F][0-9A-Fa-f])"), _hexadecimal),
    "inside": (r"[xX](?:[a-fA-F][0-9](?![0-9])|(?<!he[xX])[aA][dD])", _hexadecimal),
    "short": (_ALONE.format(rf"[xX]{_H}{{4,5}}") + rf"|(?:^|(?<=^[<\[({{])){_H}{{4,5}}(?=[>\])}}]?$)", _short),
}
_PATTERNS = {kind: (re.compile(pattern), meaning) for kind, (pattern, meaning) in _WRITTEN.items()}
_ANY = re.compile(
    rf"[&#%=<{{\udc80-\udcff]|[uUxX][-+0-9A-Fa-f]|[uUｕＵ] ?[-–+＋]|[nN][iI]{_H}{{4}}|\b[c-fC-F]{_H} ?[89abAB]{_H}"
    rf"|^[\[(]?{_H}{{4,5}}[\])]?$|[hH][aA]?[rR]\(\d"
)
"""Is in every text that has one of them, and quickly looked for: lists have half a million texts."""
