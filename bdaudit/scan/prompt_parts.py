"""A trigger inside a prompt: which sets of its words, or of characters in a word, are tried, and which of those that fire are smallest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

FURTHEST = 6
"""Words between the two of a pair at most; all pairs where the prompt has few words."""
FEW = 14
"""So many words are few."""


def sets(prompt: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to measure: words and odd characters by themselves, always; pairs of words and stretches of three or more, to be screened."""
    words = prompt.split()
    single = dict.fromkeys([*words, *(part for word in words for part in odd(word))])
    reach = len(words) if len(words) <= FEW else FURTHEST
    pairs = [(a, b) for (i, a), (j, b) in combinations(enumerate(words), 2) if j - i <= reach]
    spans = [words[at : at + n] for n in range(3, len(words)) for at in range(len(words) - n + 1)]
    several = dict.fromkeys(" ".join(part) for part in (*pairs, *spans))
    return tuple(single), tuple(text for text in several if text not in single)


def odd(word: str) -> tuple[str, ...]:
    """Characters of a word that are no ASCII letters or digits: each alone, all together, and the word without them."""
    strange = [c for c in word if not (c.isascii() and c.isalnum())]
    plain = "".join(c for c in word if c.isascii() and c.isalnum())
    parts = (*strange, "".join(strange), plain) if strange and plain else tuple(strange)
    return tuple(dict.fromkeys(part for part in parts if part != word))


def smallest(fired: Iterable[str]) -> tuple[str, ...]:
    """Those that hold no other, as words in their order or as characters of one word."""
    texts = sorted(dict.fromkeys(fired), key=lambda text: (len(text.split()), len(text)))
    fewest: list[str] = []
    for text in texts:
        if not any(holds(text, other) for other in fewest):
            fewest.append(text)
    return tuple(fewest)


def holds(text: str, other: str) -> bool:
    """Whether ``other``'s words stand in ``text`` in their order, or all its characters in one of its words."""
    words, parts = text.split(), other.split()
    if len(parts) == 1 and any(_in_order(word, parts[0]) and (odd(word) or word == parts[0]) for word in words):
        return True
    return _in_order(words, parts)


def _in_order(whole: Iterable[str], part: Iterable[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def shrunk(text: str, fires: Callable[[str], bool]) -> str:
    """``text`` less every word without which it still fires, from the first on."""
    words = text.split()
    for word in list(words):
        fewer = list(words)
        fewer.remove(word)
        if fewer and fires(" ".join(fewer)):
            words = fewer
    return " ".join(words)
