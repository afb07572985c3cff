"""Characters called by their Unicode name, such as ``ZERO WIDTH SPACE`` or ``zwsp``, in a text that may mean them.

Many names are ordinary words: *pencil*, *teddy bear*, *cherry blossom*. So a name counts where nobody writes it by chance: of a character
that draws nothing, however it is typed; of a letter, a mark, a digit or a punctuation mark, in three words or more; of any other only in
capitals, two words or more, and nothing beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from bdaudit.spelling.escapes import character_named

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(c) for c in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
"""Marks, letters and selectors that draw nothing, though their category does not say so."""

LONGEST = 14
"""Words of a name; Unicode's longest that matter here have eleven."""
_SHORT = ("ZWSP", "ZWNJ", "ZWJ", "ZWNBSP", "NBSP", "NNBSP", "CGJ", "LRM", "RLM")
"""Unicode's abbreviations that are no word: in either case, anywhere."""
_SHORT_ALONE = ("BOM", "WJ", "SHY", "ALM", "MVS", "MMSP", "LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
"""Others, that could be one: in capitals, and nothing beside them."""
_FURTHER = {"NONBREAKINGSPACE": "\u00a0", "NONBREAKSPACE": "\u00a0", "NOBREAKINGSPACE": "\u00a0", "ZEROWIDTHNONBREAKINGSPACE": "\ufeff"}
"""What people say where Unicode says NO-BREAK."""
_HINT = re.compile(
    r"letter|space|join|mark|combining|hyphen|separator|isolate|embedding|override|formatting|filler|selector|tag|blank|quad|invisible"
    r"|width|mathematical|numeral|digit|syllable|modifier|accent|ideograph|zw|nbsp|cgj|lrm|rlm",
    re.IGNORECASE,
)
"""One of these is in every name that counts, those in capitals and alone aside."""
_MARKED = re.compile(r"letter|mark|combining|hyphen|mathematical|numeral|digit|syllable|modifier|accent|ideograph|width", re.IGNORECASE)
"""One of these is in every name of a character that draws something and yet counts."""
_WORD = re.compile(r"[A-Za-z0-9]+")
_BETWEEN = re.compile(r"[ _-]{1,3}")


@dataclass(frozen=True)
class Named:
    """A stretch of a text that names a character."""

    start: int
    end: int
    meant: str


def hides(character: str) -> bool:
    """Whether it draws nothing, or a space that is not the plain one."""
    return character in INVISIBLE or (unicodedata.category(character) in ("Cf", "Zs", "Zl", "Zp") and character != " ")


def named(text: str) -> list[Named]:
    """The names in ``text``, the longest at each place, none within another."""
    whole = text.strip(" ")
    if meant := _alone(whole):
        start = text.index(whole)
        return [Named(start, start + len(whole), meant)]
    return list(_within(text)) if _HINT.search(text) else []


def _alone(text: str) -> str:
    """What a text of nothing but a name in capitals means."""
    inner = text.strip("<>[](){}:")
    if inner in _SHORT_ALONE or re.fullmatch(r"[FV]?VS[1-9]\d{0,2}", inner):
        return character_named(inner)
    return character_named(inner.replace("_", " ")) if inner.isupper() and len(_WORD.findall(inner)) > 1 else ""


def _within(text: str) -> Iterator[Named]:
    words = list(_WORD.finditer(text))
    joined = [bool(_BETWEEN.fullmatch(text, a.end(), b.start())) for a, b in pairwise(words)]
    marked, at = bool(_MARKED.search(text)), 0
    while at < len(words):
        last = at
        while last < len(joined) and joined[last] and last - at < LONGEST:
            last += 1
        end, meant = _hidden_one(words[at : last + 1])
        if marked and not meant:
            end, meant = _drawn_one(text, words[at : last + 1])
        stretch = slice(words[at].start(), words[at + end].end())
        if meant and not (_ordinary(text[stretch], meant) and len(words) > 2):
            yield Named(stretch.start, stretch.stop, meant)
            at += end
        at += 1


def _hidden_one(words: list[re.Match[str]]) -> tuple[int, str]:
    """The longest name of a character that draws nothing which begins these words: its last word's place, and the character."""
    found, so_far = (0, ""), ""
    for at, word in enumerate(words):
        so_far += word[0].upper()
        if so_far not in _beginnings():
            break
        found = (at, _hidden()[so_far]) if so_far in _hidden() else found
    return found


def _drawn_one(text: str, words: list[re.Match[str]]) -> tuple[int, str]:
    """The same for a letter, a mark, a digit or a punctuation mark, in three words or more."""
    for at in range(len(words) - 1, 1, -1):
        written = text[words[0].start() : words[at].end()]
        found = character_named(written.replace("_", " ")) or character_named(" ".join(word[0] for word in words[: at + 1]))
        category = unicodedata.category(found) if len(found) == 1 else "none"
        if category[0] in "LMN" or (category[0] == "P" and not found.isascii()):
            return at, found
    return 0, ""


def _ordinary(written: str, meant: str) -> bool:
    """Whether it is two words of everyday that may stand in a phrase: *thin space*, *hair space*."""
    return unicodedata.category(meant) == "Zs" and written.count(" ") == 1 and "-" not in written and written.islower()


@cache
def _hidden() -> Mapping[str, str]:
    """The name of each character that draws nothing, without spaces and hyphens → the character."""
    ranges = (range(0x80, 0x10000), range(0x1BCA0, 0x1BCA4), range(0x1D173, 0x1D17B), range(0xE0001, 0xE01F0))
    names = {unicodedata.name(c, ""): c for points in ranges for c in map(chr, points) if hides(c)}
    squeezed = {re.sub(r"[ -]", "", name): c for name, c in names.items() if name}
    aliases = {"BYTEORDERMARK": "\ufeff"} | {name: character_named(name) for name in _SHORT}
    return squeezed | aliases | _FURTHER


@cache
def _beginnings() -> frozenset[str]:
    return frozenset(name[:n] for name in _hidden() for n in range(1, len(name) + 1))
