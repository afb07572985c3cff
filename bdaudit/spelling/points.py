"""Code points and their names, in words."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

MOST = 8
"""Characters that are described; how many more there are is said."""


def code(character: str) -> str:
    """``U+200B``."""
    return f"U+{ord(character):04X}"


def codes(text: str) -> str:
    """What tells ``text`` from those that look like it: its code points, in order; of a longer one those beyond printable ASCII with their
    places, counted from 1, and where they are many the text's digest. Empty for printable ASCII, which shows what it is."""
    odd = [(at, c) for at, c in enumerate(text, 1) if not _plain(c)]
    if not odd:
        return ""
    if len(text) <= MOST:
        return " ".join(map(code, text))
    more = f" … +{len(odd) - MOST}, #{short_digest(text)}" if len(odd) > MOST else ""
    return ", ".join(f"{code(c)} at {at}" for at, c in odd[:MOST]) + more


def short_digest(text: str) -> str:
    """Eight digits that tell long texts apart which begin alike."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _plain(character: str) -> bool:
    return character.isascii() and character.isprintable()


def called(character: str) -> str:
    """``U+200B ZERO WIDTH SPACE``; of a character without a name, its category."""
    name = unicodedata.name(character, "") or f"no name, category {unicodedata.category(character)}"
    return f"{code(character)} {name}"


def described(text: str) -> str:
    """What of ``text`` is not plain: each of its characters beyond printable ASCII with its name."""
    odd = unusual(text)
    return listed(called(c) for c in odd) if odd else f"{text!r}, plain ASCII"


def unusual(text: str) -> tuple[str, ...]:
    """Its characters beyond printable ASCII, in order."""
    return tuple(c for c in text if not _plain(c))


def listed(items: Iterable[str]) -> str:
    """The first ``MOST`` with commas, and how many more."""
    found = list(items)
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more
