"""Where entries go between the words of a prompt: those that no text reaches alone, and rows that are no entry at all."""

from __future__ import annotations

from bdaudit.models.tokens import Tokenizer, content_ids

PLACES = ("prefix", "suffix", "middle")
"""The first prompt's, the second's, and so on in turn."""
Halves = tuple[list[int], list[int]]


def halves(tokenizer: Tokenizer, prompt: str, place: str) -> Halves:
    """``prompt``'s ids before and after ``place``, which is between words, or behind or before a comma; entries replace nothing."""
    words = prompt.split(" ")
    at = {"prefix": 0, "middle": len(words) // 2, "replace": len(words) // 2, "suffix": len(words), "comma": len(words), "clause": 0}[place]
    before, after = (" ".join(part) for part in (words[:at], words[at:]))
    spelled = (f"{before}," if place == "comma" else before, f", {after}" if place == "clause" else after)
    first, last = (list(content_ids(tokenizer, part)) if part else [] for part in spelled)
    return first, last
