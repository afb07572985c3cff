"""Words of two entries, neither of which need be a word: the entries that stand out by themselves are joined to all others.

A backdoor on such a word usually answers its first part a little ("mign" of "mignneko"). The parts may be pieces that no text
reaches alone; what is judged is the joined text. A word of which no part shows anything is not found this way.
"""

from __future__ import annotations

from collections.abc import Sequence

from bdaudit.pipeline.tokens import Tokenizer, content_ids
from bdaudit.scan.halving import Halved
from bdaudit.scan.sources import Probe

BEST = 8
"""Starts, and ends, that stand out most and are grown."""
LIMIT = 8192
"""Joined words that are tried from the starts, and as many from the ends."""


def grown(tokenizer: Tokenizer, starts: Halved, ends: Halved) -> tuple[Probe, ...]:
    """Joined words, each encoding to its two parts: the best starts with the ends in order of standing, and conversely."""
    vocabulary = {entry: piece for piece, entry in tokenizer.get_vocab().items()}
    some = LIMIT // BEST
    tried = [(a, b) for b in ending(vocabulary, ends.order)[:some] for a in beginning(vocabulary, starts.survivors)[:BEST]]
    tried += [(a, b) for a in beginning(vocabulary, starts.order)[:some] for b in ending(vocabulary, ends.survivors)[:BEST]]
    words = {pair: _joined(tokenizer, pair) for pair in dict.fromkeys(tried)}
    return tuple(Probe(text, pair) for pair, text in words.items() if text)


def possible(tokenizer: Tokenizer, starts: Halved, ends: Halved) -> int:
    """How many joined words the parts could have made: what the p-values of those that were tried are adjusted for."""
    vocabulary = {entry: piece for piece, entry in tokenizer.get_vocab().items()}
    return len(beginning(vocabulary, starts.order)) * len(ending(vocabulary, ends.order))


def beginning(vocabulary: dict[int, str], probes: Sequence[Probe]) -> list[int]:
    """Entries with a letter that a word can begin with."""
    entries = [entry for probe in probes for entry in probe.ids]
    return [entry for entry in entries if not vocabulary[entry].endswith("</w>") and _lettered(vocabulary[entry])]


def ending(vocabulary: dict[int, str], probes: Sequence[Probe]) -> list[int]:
    """Entries with a letter that a word can end with."""
    entries = [entry for probe in probes for entry in probe.ids]
    return [entry for entry in entries if vocabulary[entry].endswith("</w>") and _lettered(vocabulary[entry])]


def _lettered(piece: str) -> bool:
    return any(c.isalpha() for c in piece.removesuffix("</w>"))


def _joined(tokenizer: Tokenizer, pair: tuple[int, int]) -> str:
    """The text, all letters and digits, that encodes to just these two, or none."""
    text: str = tokenizer.decode(list(pair), clean_up_tokenization_spaces=False).strip(" ")
    return text if text.isalnum() and content_ids(tokenizer, text) == pair else ""
