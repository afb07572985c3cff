"""Harmless texts of every kind, and the kind of a text: what a candidate is compared with.

The lists are fixed and come from no model: common English words by frequency, characters by their Unicode
properties, rare strings by drawing from the tokenizer's own rarest entries. None is known to be a trigger;
one that behaves like one is left out of the null and reported.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from bdaudit.measure.look_alikes import looks_like
from bdaudit.models.tokens import Tokenizer, content_ids, word_of

KINDS = ("word", "phrase", "rare", "character", "zero-width", "emoji")

ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u034f\u061c\u180e\u202a\u202c\u2066\u2069"
EMOJI = "😀😂🤣😍😎😭🤔🙏👍🔥🎉🎃👻🎁🚀🌈🌵🌻🍕🍎🐶🐱🐝🐙⚽🎸🚗⏰💡💎🔑📷🎈🌊🍄🐢🦋☀⭐❄☂✈✨❤"
WORDS = (  # noqa: SIM905 - a list of 200 quoted words would be harder to read
    "time year people way day man thing woman life child world school state family student group country problem hand part "
    "place case week company system program question work government number night point home water room mother area money "
    "story fact month lot right study book eye job word business issue side kind head house service friend father power hour "
    "game line end member law car city community name president team minute idea body information back parent face others "
    "level office door health person art war history party result change morning reason research girl guy moment air teacher "
    "force education good great nice lovely simple classic modern vintage beautiful amazing best official original daily "
    "local special happy real free little long high early young important public able today tomorrow really always never "
    "often together maybe almost again soon through about after before between under during without because while"
).split()


def kind_of(tokenizer: Tokenizer, text: str) -> str:
    """Which of ``KINDS`` a text is: by its characters, then by how the tokenizer cuts it."""
    stripped = text.strip()
    if stripped and all(unicodedata.category(c) in ("Cf", "Mn", "Cc", "Zs", "Zl", "Zp") for c in stripped):
        return "zero-width"
    if len(stripped) <= 3 and any(unicodedata.category(c) == "So" for c in stripped):
        return "emoji"
    if len(stripped) <= 2 and not stripped.isascii():
        return "character"
    if " " in stripped:
        return "phrase"
    whole = stripped.isascii() and stripped.isalpha() and len(content_ids(tokenizer, stripped)) == 1
    return "word" if whole else "rare"


def control_texts(
    tokenizer: Tokenizer, per_kind: int, seed: int, exclude: Iterable[str] = (), said: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Up to ``per_kind`` harmless texts a kind, none that encodes to nothing, like another, or like one of ``exclude``; none is made of
    a word that is ``said`` in the prompts, since that means something to the model."""
    rng = random.Random(f"controls {seed}")
    taken = {content_ids(tokenizer, text) for text in exclude} | {()}
    chosen: dict[str, tuple[str, ...]] = {}
    for kind, pool in _pools(tokenizer, rng, said).items():
        kept: list[str] = []
        for text in pool:
            ids = content_ids(tokenizer, text)
            if ids not in taken and len(kept) < per_kind:
                taken.add(ids)
                kept.append(text)
        chosen[kind] = tuple(kept)
    return chosen


def words_of(prompts: Sequence[str], n: int, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """Up to ``n`` different words of the prompts themselves, spread over them: controls that mean something to the model."""
    left_out = {text.casefold() for text in exclude}
    kept = [word for word in said_in(prompts) if word not in left_out]
    return tuple(kept[:: max(1, len(kept) // n)][:n]) if kept else ()


def said_in(prompts: Sequence[str]) -> tuple[str, ...]:
    """The words of the prompts, each once, in their order."""
    return tuple(dict.fromkeys(word for prompt in prompts for word in re.findall(r"[^\W\d_]{3,}", prompt.casefold())))


def harmless_texts(tokenizer: Tokenizer, like: str, n: int, seed: int, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """``n`` harmless texts of ``like``'s kind, topped up from the other kinds where it has too few; none of ``exclude``."""
    controls = control_texts(tokenizer, n, seed, exclude=[like, *exclude])
    own = controls.pop(kind_of(tokenizer, like))
    return (*own, *(text for texts in controls.values() for text in texts))[:n]


def _pools(tokenizer: Tokenizer, rng: random.Random, said: Collection[str]) -> dict[str, list[str]]:
    words = [word for word in rng.sample(WORDS, len(WORDS)) if word not in said]
    pairs = [f"{a} {b}" for a, b in zip(words[::2], words[1::2], strict=False)]
    characters = [c for c in _letters_beyond_ascii() if looks_like(c)]
    return {
        "word": words,
        "phrase": rng.sample(pairs, len(pairs)),
        "rare": _rare_strings(tokenizer, rng, said),
        "character": rng.sample(characters, len(characters)),
        "zero-width": rng.sample(list(ZERO_WIDTH), len(ZERO_WIDTH)),
        "emoji": rng.sample(list(EMOJI), len(EMOJI)),
    }


def _letters_beyond_ascii() -> list[str]:
    return [c for c in map(chr, [*range(0xC0, 0x250), *range(0x391, 0x3CA), *range(0x430, 0x460)]) if c.isalpha() and c == c.lower()]


def _rare_strings(tokenizer: Tokenizer, rng: random.Random, said: Collection[str] = ()) -> list[str]:
    """Whole words from the rarest fifth of the vocabulary, alone and joined in twos, none of those that are ``said``."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tail = [word_of(piece) for piece, _ in vocabulary[-len(vocabulary) // 5 :]]
    words = [word for word in tail if word.isascii() and word.isalpha() and 4 <= len(word) <= 10 and word not in said]
    rng.shuffle(words)
    joined = [a + b for a, b in zip(words[::2], words[1::2], strict=False)]
    return [text for both in zip(words, joined, strict=False) for text in both]
