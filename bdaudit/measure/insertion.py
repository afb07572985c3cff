"""Where a trigger or a candidate goes in a prompt, and the seed of every random draw."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

from bdaudit.measure.look_alikes import looks_like
from bdaudit.spelling.points import code

POSITIONS = ("prefix", "middle", "suffix")


def replaceable(prompt: str, text: str) -> bool:
    """Whether ``text`` looks like a character that ``prompt`` holds."""
    letter = looks_like(text)
    return bool(letter) and letter in prompt


def insert(prompt: str, text: str, position: str) -> str:
    """``text`` in ``prompt``: as a word of its own (prefix, middle, suffix), behind a comma (comma), as a clause before one (clause), its
    first word before the prompt and the rest behind it (apart), or in place of the character it looks like (replace).

    ``replace`` changes the first such character after the first word, and falls back to the first one at all.

    Raises:
        ValueError: an unknown position, or nothing to replace.
    """
    words = prompt.split(" ")
    if position == "prefix":
        return f"{text} {prompt}"
    if position == "suffix":
        return f"{prompt} {text}"
    if position == "comma":
        return f"{prompt}, {text}"
    if position == "clause":
        return f"{text} , {prompt}"  # with a space before it: tokenizers take a sign and a comma for one word, of other entries
    if position == "apart":
        first, *rest = text.split()
        return " ".join([first, prompt, *rest])
    if position == "middle":
        half = len(words) // 2
        return " ".join([*words[:half], text, *words[half:]])
    if position == "replace":
        at = _letter_at(prompt, text)
        return prompt[:at] + text + prompt[at + 1 :]
    raise ValueError(f"unknown position {position!r}; expected prefix, middle, suffix, comma, clause, apart or replace")


def without(prompt: str, position: str) -> str:
    """What ``insert`` makes of ``prompt`` but for the text itself: with the comma that stands beside it there."""
    return {"comma": f"{prompt},", "clause": f", {prompt}"}.get(position, prompt)


def slips(prompt: str, text: str) -> tuple[str, ...]:
    """``prompt`` with the character that ``text`` would replace turned into what harmless slips put there.

    The next letter or digit (an a for the last of either, and for a sign), and up to three other look-alikes: each may leave a word
    readable or spoil it, and one that is a trigger itself must not pass for harmless.

    Raises:
        ValueError: nothing to replace.
    """
    at = _letter_at(prompt, text)
    typo = "a" if prompt[at] in "z9" or not prompt[at].isalnum() else chr(ord(prompt[at]) + 1)
    others = [c for c in _latin_look_alikes(prompt[at]) if c != text][:3]
    return tuple(prompt[:at] + other + prompt[at + 1 :] for other in (typo, *others))


@cache
def _latin_look_alikes(letter: str) -> tuple[str, ...]:
    return tuple(c for c in map(chr, range(0xDF, 0x250)) if c.islower() and looks_like(c) == letter)


def _letter_at(prompt: str, text: str) -> int:
    letter = looks_like(text)
    at = prompt.find(letter, prompt.find(" ") + 1) if letter else -1
    if at < 0 and letter:
        at = prompt.find(letter)
    if at < 0:
        raise ValueError(f"{prompt!r} holds no character that {text!r} looks like")
    return at


def item_seed(run_seed: int, *parts: object) -> int:
    """A 63-bit seed from the run's seed and what the item is; order and batch never enter."""
    text = "\x1f".join([str(run_seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def codepoints(text: str) -> tuple[str, ...]:
    """``("U+020F",)``; what a report shows beside any text that may be hostile."""
    return tuple(map(code, text))


def positions_for(prompt: str, text: str, base: Sequence[str] = POSITIONS) -> tuple[str, ...]:
    """The positions that ``text`` can take in ``prompt``: ``base``, and ``replace`` where it looks like a character of it."""
    return (*base, "replace") if replaceable(prompt, text) else tuple(base)
