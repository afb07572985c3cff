r"""From what was typed to the text that is meant: escapes are read, and what only looks like an escape is never quietly taken as it stands.

A backslash escape is always the character. bdaudit's own ``<U+200B>``, copied from one of its tables, is the character too. Any other
notation could be either: a flag that names one text refuses it with both spellings, a list tries both. A character that an escape made is
part of no notation, so ``\u0075200b`` is the five characters ``u200b``, and there is such a spelling for every text (``spelled``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from bdaudit.errors import UsageError
from bdaudit.spelling.escapes import escape, unescaped
from bdaudit.spelling.names import hides
from bdaudit.spelling.notations import Notation, notations, ungarbled
from bdaudit.spelling.points import described

_QUOTES = "'\"`“‘„«‹"
_QUOTED = re.compile(r"(['\"`])(.+)\1|[“„](.+)[”“]|‘(.+)’|«(.+)»|‹(.+)›", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What was typed, both ways."""

    text: str
    """As it stands, escapes read."""
    notations: tuple[Notation, ...]
    """Stretches of it that look as if they stood for a character."""

    @property
    def meant(self) -> str:
        """With the characters that the notations stand for; empty where one stands for none that a prompt can hold."""
        parts, end = [], 0
        for item in self.notations:
            if not item.meant:
                return ""
            parts += [self.text[end : item.start], item.meant]
            end = item.end
        return "".join((*parts, self.text[end:]))

    @property
    def certain(self) -> bool:
        """Whether every notation is bdaudit's own."""
        return all(item.own and item.meant for item in self.notations)


def read(written: str) -> Reading:
    """Both readings of ``written``; raises ``UsageError`` as ``unescape``."""
    typed = unescaped(written)
    quoted = _QUOTED.fullmatch(typed.shadow) if typed.shadow[:1] in _QUOTES else None
    inner = typed.shadow[1:-1]
    if quoted and (inner != typed.text[1:-1] or any(map(hides, inner))):  # '"\u200b"': quotes of a shell that were quoted again
        return Reading(typed.text, (Notation(0, len(typed.text), typed.text[1:-1]),))
    garbled = ungarbled(typed.shadow)
    return Reading(typed.text, (Notation(0, len(typed.text), garbled),) if garbled else notations(typed.shadow))


def one_text(written: str, flag: str) -> str:
    """The text that ``flag`` names.

    Raises:
        UsageError: a malformed escape; or it looks like a character's code or name, and could be either.
    """
    reading = read(written)
    if reading.certain:
        return reading.meant
    literally = f"{shlex.quote(spelled(reading.text))} for the {len(reading.text)} characters as they stand"
    meant = reading.meant
    if not meant:
        raise UsageError(f"{flag} {written!a} is written like a character that no prompt can hold; type {literally}")
    means = f"{shlex.quote(spelled(meant))} for {described(meant)}"
    raise UsageError(f"{flag} {written!a} is written like a character's code or name; type {means}, or {literally}")


def both(written: str) -> tuple[str, ...]:
    """The text as it stands, and what it means where it is written like a character; raises ``UsageError`` as ``unescape``."""
    reading = read(written)
    meant = reading.meant if reading.notations else ""
    return (reading.text, meant) if meant and meant != reading.text else (reading.text,)


def read_twice(texts: Iterable[str]) -> dict[str, str]:
    """Of ``texts``, those that are written like a character → what they mean, where that is among them too."""
    known = dict.fromkeys(texts)
    pairs = ((text, Reading(text, notations(text))) for text in known)
    return {text: reading.meant for text, reading in pairs if reading.notations and reading.meant in known}


def spelled(text: str) -> str:
    """ASCII letters, digits, single spaces and escapes that read back as ``text``, whatever it holds."""
    escaped = {i for i, c in enumerate(text) if not (c.isascii() and c.isalnum()) and (c != " " or _edge(text, i))}
    while True:
        written = "".join(escape(c) if i in escaped else c for i, c in enumerate(text))
        found = read(written).notations
        if not found:
            return written
        escaped |= {item.start for item in found}


def _edge(text: str, at: int) -> bool:
    """Whether a space at ``at`` would be lost to the eye: at an end, or after another."""
    return at in (0, len(text) - 1) or text[at - 1] == " "
