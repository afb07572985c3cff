"""What a character looks like: a letter, digit or sign of ASCII, by Unicode's own data. One table for whatever asks.

The table is that of Unicode's confusables (UTS #39); its file says which version, and holds its licence.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from bdaudit.untrusted.open_file import read_json

TABLE = Path(__file__).with_name("confusables.json")
_LIMITS = (1 << 20, 1000)
_NAMED = ("LATIN", "FULLWIDTH", "MATHEMATICAL", "MODIFIER", "CIRCLED", "SQUARED", "REGIONAL")
"""First words of names that end in the letter that is meant."""


@cache
def confusables() -> dict[str, str]:
    """Single character → the ASCII character that Unicode's table confuses it with: a small letter before a digit before a sign."""
    table = read_json(TABLE, "bdaudit's table of look-alikes", _LIMITS)["look_alikes"]
    return {chr(int(code, 16)): letter for letter, codes in table.items() for code in codes.split()}


def looks_like(character: str) -> str:
    """The ASCII character that ``character`` looks like, or an empty string; ASCII itself looks like nothing.

    By canonical decomposition (ȏ → o), by Unicode's confusables, or by its own name. The small form is asked first, since text encoders
    read that one, then the capital: к has the shape of К, which looks like K.
    """
    if len(character) != 1 or character.isascii():
        return ""
    forms = (character.lower(), character.upper()) if character.isalpha() else (character,)
    return next(filter(None, map(_confused, (*forms, character))), "") or _named(character)


def _confused(form: str) -> str:
    first = unicodedata.normalize("NFKD", form)[:1]
    if len(form) == 1 and first.isascii() and first.isalpha():
        return first.lower()
    return confusables().get(form, "") or confusables().get(first, "")


def _named(character: str) -> str:
    """The Latin letter that its name ends in, with or without a ``WITH …`` that says what was added to it.

    ``CYRILLIC SMALL LETTER IE`` ends in none; ``LATIN SMALL LETTER TURNED A`` and ``LATIN LETTER SMALL CAPITAL R`` do.
    """
    words = unicodedata.name(character, "").split(" WITH ")[0].split()
    one = len(words) > 1 and words[0] in _NAMED and len(words[-1]) == 1 and words[-1].isascii()
    return words[-1].lower() if one else ""
