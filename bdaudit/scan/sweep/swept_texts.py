"""Texts that nobody listed: the tokenizer's own entries, characters that look like others or like nothing, and its commonest words.

Every source is derived: from the vocabulary, from Unicode's properties and confusables, from the merges' order. None is chosen by hand.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from bdaudit.measure.look_alikes import confusables, looks_like
from bdaudit.models.tokens import Tokenizer, content_ids, contents, expanded, frame, word_of

MARKS = range(0x300, 0x370)
"""Combining marks that are tried on the prompts' letters and alone."""
_INVISIBLE = ("Cf", "Zs", "Zl", "Zp", "Cc")
_LETTERLIKE = ("Ll", "Lu", "Lo", "Lm", "So", "No")
_PRIVATE = ("Cs", "Co", "Cn")
_PICTOGRAPHS = (range(0x2600, 0x27C0), range(0x2B00, 0x2C00), range(0x1F300, 0x1FB00))
"""Unicode's blocks of emoji and their kin."""


@dataclass(frozen=True)
class Probe:
    """Something to screen: a text and what it encodes to; an entry that no text reaches has an empty text."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """What a sweep goes through."""

    name: str
    probes: tuple[Probe, ...]
    """Texts, no two that encode alike."""
    unreachable: tuple[Probe, ...] = ()
    """Entries that no text encodes to alone: pieces of words."""
    dropped: tuple[str, ...] = ()
    """Texts that encode to nothing."""


def vocabulary(tokenizer: Tokenizer) -> Source:
    """Every entry of the vocabulary as the text that encodes to that entry alone, or to all its vectors where it has several."""
    outer = frame(tokenizer)
    reached: list[Probe] = []
    pieces: list[Probe] = []
    for piece, entry in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if entry in outer:
            continue
        text = tokenizer.decode([entry], clean_up_tokenization_spaces=False).strip(" ")
        found = _reaching(tokenizer, text, entry) or _reaching(tokenizer, piece, entry)  # an added token may begin with a space
        (reached if found else pieces).append(found or Probe(piece, (entry,)))
    return Source("vocabulary", tuple(reached), tuple(pieces))


def _reaching(tokenizer: Tokenizer, text: str, entry: int) -> Probe | None:
    """``text``, where it is ``entry`` alone, or all the vectors that begin with it."""
    ids = content_ids(tokenizer, text) if text else ()
    return Probe(text, ids) if ids == (entry,) or (ids[:1] == (entry,) and expanded(tokenizer, text) != text) else None


def characters(tokenizer: Tokenizer, prompts: Sequence[str]) -> Source:
    """What looks like a letter, digit or sign, what does not show, marks on letters, pictographs; each encoding once.

    All that Unicode confuses with ASCII is there; of what its decomposition or name alone says, and of letters with marks, that of the
    prompts' letters.
    """
    letters = {c for prompt in prompts for c in prompt.lower() if c.isascii() and c.isalpha()}
    by_ids: dict[tuple[int, ...], str] = {}
    dropped = []
    every = dict.fromkeys((*_assigned(frozenset(letters)), *_marked(sorted(letters))))
    for text in sorted(every, key=lambda text: text != text.lower()):  # a capital encodes like its small letter: name that one
        ids = content_ids(tokenizer, text)
        if ids:
            by_ids.setdefault(ids, text)
        else:
            dropped.append(text)
    return Source("unicode", tuple(Probe(text, ids) for ids, text in by_ids.items()), dropped=tuple(dropped))


@cache
def _assigned(letters: frozenset[str]) -> tuple[str, ...]:
    """Single characters of interest, by code point."""
    return tuple(c for c in map(chr, range(0x80, sys.maxunicode + 1)) if _of_interest(c, letters))


def _of_interest(c: str, letters: frozenset[str]) -> bool:
    if c in confusables():
        return True  # whatever its category: the table may be newer than this Python's
    category = unicodedata.category(c)
    if category in _PRIVATE:
        return False
    if category in _INVISIBLE or ord(c) in MARKS:
        return True
    if category in _LETTERLIKE and looks_like(c) in letters:
        return True
    return category == "So" and any(ord(c) in block for block in _PICTOGRAPHS)


def _marked(letters: Iterable[str]) -> list[str]:
    """Each letter under each combining mark, composed as the tokenizer would see it."""
    return [unicodedata.normalize("NFC", letter + chr(mark)) for letter in letters for mark in MARKS]


def common_words(tokenizer: Tokenizer, n: int) -> tuple[str, ...]:
    """The tokenizer's ``n`` commonest whole words of three letters or more, in the order of its entries, which is that of its merges."""
    entries = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    whole = (word_of(piece) for piece, _ in entries)
    fitting = (word for word in whole if len(word) >= 3 and word.isascii() and word.isalpha() and word.islower())
    return tuple([word for word in fitting if len(content_ids(tokenizer, word)) == 1][:n])


Crowd = tuple[int, tuple[int, ...]]
"""A first entry and second ones."""


@dataclass(frozen=True)
class Pairing:
    """Two-part texts: every first entry with every second one."""

    name: str
    firsts: tuple[int, ...]
    seconds: tuple[int, ...]
    texts: Callable[[int, Sequence[int]], Sequence[str]]
    """The text of a first entry with each of some second ones; empty where no text encodes to just the two."""


def phrases(tokenizer: Tokenizer, n: int) -> Pairing:
    """Two words each, of the tokenizer's ``n`` commonest, both ways round."""
    return two_of(tokenizer, common_words(tokenizer, n))


def two_of(tokenizer: Tokenizer, words: Iterable[str]) -> Pairing:
    """Phrases of two of ``words``, each of which is one entry."""
    of = {content_ids(tokenizer, word)[0]: word for word in words}
    return Pairing("pairs", tuple(of), tuple(of), lambda a, seconds: [f"{of[a]} {of[b]}" for b in seconds])


def joined_words(tokenizer: Tokenizer, n: int) -> Pairing:
    """Words of two entries: the ``n`` rarest that a word can begin with before the ``n`` rarest that one can end with.

    An entry is the rarer, the later it was merged. Letters and digits alone, since anything else would stand beside a word.
    """
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: -item[1])
    plain = [text.isalnum() for text in _decoded(tokenizer, [(entry,) for _, entry in pieces])]
    starts, ends = (
        tuple(entry for (piece, entry), fits in zip(pieces, plain, strict=True) if fits and piece.endswith("</w>") is ending)[:n]
        for ending in (False, True)
    )

    def texts(a: int, seconds: Sequence[int]) -> list[str]:
        decoded = _decoded(tokenizer, [(a, b) for b in seconds])
        encoded = contents(tokenizer, decoded)
        return [text if text.isalnum() and ids == (a, b) else "" for text, ids, b in zip(decoded, encoded, seconds, strict=True)]

    return Pairing("joined words", starts, ends, texts)


PAIRINGS: dict[str, Callable[[Tokenizer, int], Pairing]] = {"pairs": phrases, "joined words": joined_words}
"""Name → the pairing of ``n`` parts."""


def _decoded(tokenizer: Tokenizer, rows: Sequence[tuple[int, ...]]) -> list[str]:
    return [text.strip(" ") for text in tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)]
