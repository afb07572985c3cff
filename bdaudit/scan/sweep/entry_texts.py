"""Texts that entries make: single ones, characters of two entries neither of which is a text, and any other two that some text gives."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice, product

from bdaudit.models.tokens import Tokenizer, frame, text_of
from bdaudit.scan.sweep.swept_texts import Probe

BROKEN = "\ufffd"
"""What bytes decode to that are only a part of a character."""
Ids = tuple[int, ...]


def broken(tokenizer: Tokenizer) -> frozenset[int]:
    """Entries that hold a part of a character: two of them may make one."""
    entries = [i for i in tokenizer.get_vocab().values() if i not in frame(tokenizer)]
    return frozenset(i for i in entries if BROKEN in tokenizer.decode([i], clean_up_tokenization_spaces=False))


def characters(tokenizer: Tokenizer, parts: Iterable[int], others: Iterable[int]) -> list[Probe]:
    """Every single character that is one of ``parts`` and one of ``others``, in either order."""
    both = list(others)
    tried = dict.fromkeys(pair for a in parts for b in both for pair in ((a, b), (b, a)))
    return [probe for probe in named(tokenizer, tried) if len(probe.text) == 1]


def partners(tokenizer: Tokenizer, entry: int, others: Sequence[int], n: int) -> list[Probe]:
    """The first ``n`` texts of ``entry`` before one of ``others``, and the first ``n`` of it behind one."""
    before, after = (named(tokenizer, pairs) for pairs in (((entry, b) for b in others), ((b, entry) for b in others)))
    return [*islice(before, n), *islice(after, n)]


def crossed(tokenizer: Tokenizer, slots: Sequence[Sequence[int]]) -> list[Probe]:
    """The texts that one entry of each slot makes, in the slots' order."""
    return list(named(tokenizer, product(*slots)))


def named(tokenizer: Tokenizer, every: Iterable[Ids]) -> Iterable[Probe]:
    """Those that some text encodes to."""
    return (Probe(text, ids) for ids in every if (text := text_of(tokenizer, ids)))


@cache
def assigned() -> int:
    """How many characters Unicode has: no more can be named, whatever they encode to."""
    return sum(unicodedata.category(chr(c)) not in ("Cs", "Co", "Cn") for c in range(0x110000))
