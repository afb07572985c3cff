"""Hostile text made inert: what a terminal, a browser or a SARIF viewer would act on is shown as its code point."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable

_SHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Control, format (bidi, zero-width, tags), surrogate, private use, unassigned, line and paragraph separators."""

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(c) for c in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
"""Marks, letters and selectors that draw nothing."""


def code_point(character: str) -> str:
    """``<U+202E>``."""
    return f"<U+{ord(character):04X}>"


def _acts(character: str) -> bool:
    category = unicodedata.category(character)
    return category in _SHOWN or character in _INVISIBLE or (category == "Zs" and character != " ")


def visible(text: str) -> str:
    """``text`` with every character that could act or hide written as ``<U+XXXX>``; twice is as once.

    Those are control, escape, bidi, zero-width, private-use, unassigned and invisible characters, spaces other than U+0020, and combining
    marks that have no letter of their own to sit on, or more than two to a letter.
    """
    shown: list[str] = []
    free = 0  # marks that the last letter may still carry
    for character in text:
        mark = unicodedata.category(character).startswith("M")
        hidden = _acts(character) or (mark and free == 0)
        shown.append(code_point(character) if hidden else character)
        carries = 2 if character.isalnum() and not hidden else 0
        free = max(0, free - 1) if mark else carries
    return "".join(shown)


def one_line(text: str) -> str:
    """A message of ours or of a library on one line, whatever it quotes made visible."""
    return visible(re.sub(r"[ \t\r\n]+", " ", text).strip(" "))


class VisibleStream(io.TextIOBase):
    """A text stream that hands each whole line on, made visible; stands in for stdout and stderr while libraries run."""

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
                self._emit(visible(line.replace("\t", "    ")))
        if len(self._rest) > self.longest:
            self.finish()
        return len(text)

    def finish(self) -> None:
        """Hands on the last line, where it was not ended."""
        if self._rest:
            self.write("\n")
