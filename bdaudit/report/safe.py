"""Hostile text made inert: what a terminal, a browser or a SARIF viewer would act on is shown as its code point."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable

from bdaudit.spelling.names import INVISIBLE

_SHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidi, zero-width, tags), surrogate, private use, unassigned, line and paragraph separators."""

_JOINED = re.compile(r"[ \t]*[\r\n]+[ \t]*")


def code_point(character: str) -> str:
    """``<U+202E>``."""
    return f"<U+{ord(character):04X}>"


def _acts(character: str) -> bool:
    category = unicodedata.category(character)
    return category in _SHOWN or character in INVISIBLE or (category == "Zs" and character != " ")


def inert(text: str) -> str:
    """``text`` with every character that could act or hide written as ``<U+XXXX>``; twice is as once, and ``visible`` leaves it nothing.

    Those are control, escape, bidi, zero-width, private-use, unassigned and invisible characters, spaces other than U+0020, and combining
    marks that have no letter of their own to sit on, or more than two to a letter. For libraries' output, and as the last net: two texts
    may come out alike.
    """
    return _written(text, lambda _at, _before: False)


def visible(text: str) -> str:
    """The same, and no two texts alike, nor to the eye where they differ by composition or spaces. For every text of the model's or the
    user's, once.

    Also written as code points are the ``<`` of a literal ``<U+``, which could be taken for this notation, spaces at the ends or after
    another, and what is drawn like a composed character (``e`` with U+0301, like ``é``).
    """
    if text.isascii() and text.isprintable() and "<U+" not in text and "  " not in text and text == text.strip(" "):
        return text  # nothing below would touch it, and a page of ten thousand reports is mostly such texts

    def mistakable(at: int, before: str) -> bool:
        if text[at] == " ":
            return at in (0, len(text) - 1) or text[at - 1] == " "
        return text.startswith("<U+", at) or not unicodedata.is_normalized("NFC", before + text[at])

    return _written(text, mistakable)


def _written(text: str, mistakable: Callable[[int, str], bool]) -> str:
    """``mistakable`` is asked with a character's place, and what stands right before it as itself: a letter and its marks at most."""
    shown: list[str] = []
    free = 0  # marks that the last letter may still carry
    before = ""
    for at, character in enumerate(text):
        mark = unicodedata.category(character).startswith("M")
        hidden = _acts(character) or (mark and free == 0) or mistakable(at, before)
        shown.append(code_point(character) if hidden else character)
        carries = 2 if character.isalnum() and not hidden else 0
        free = free - 1 if mark and not hidden else carries
        before = "" if hidden else (before + character)[-3:]
    return "".join(shown)


def one_line(text: str) -> str:
    """A message of ours or of a library on one line, whatever it quotes made visible."""
    return visible(_JOINED.sub(" ", text.strip("\r\n")))


class VisibleStream(io.TextIOBase):
    """A text stream that hands each whole line on, made inert; stands in for stdout and stderr while libraries run."""

    longest = 10_000
    """Characters of a line that is handed on before it ends."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of every stream of ours; libraries ask for it."""
        return "utf-8"

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, text: str) -> int:
        """Takes any text; lines end at a line feed or a carriage return."""
        *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        for line in lines:
            if line.strip():
                self._emit(inert(line.replace("\t", "    ")))
        if len(self._rest) > self.longest:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """Hands on the last line, where it was not ended."""
        if self._rest:
            self.write("\n")
