"""Prompts that say what a trigger needs beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bdaudit.measure.insertion import POSITIONS, insert
from bdaudit.measure.prompts import holds

ENOUGH = 12
"""Prompts in a context that something can be measured on; where there are fewer, more are made of others."""


def having(pool: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    """The prompts in which one of ``words`` stands."""
    return tuple(prompt for prompt in pool if any(holds(prompt, word) for word in words))


def with_context(pool: Sequence[str], words: Sequence[str], seed: int) -> tuple[str, ...]:
    """The prompts that have one of ``words``, and for each that fewer than ``ENOUGH`` have, others that it is put into."""
    made = [prompt for word in words for prompt in _made(pool, word, seed)]
    return tuple(dict.fromkeys((*having(pool, words), *made))) or tuple(words)


def _made(pool: Sequence[str], word: str, seed: int) -> list[str]:
    """As many prompts with ``word`` put into them as ``ENOUGH`` lacks, or as there are without it."""
    rng = random.Random(f"with context {seed} {word}")
    others = [prompt for prompt in pool if not holds(prompt, word)]
    lacking = max(0, ENOUGH - (len(pool) - len(others)))
    return [insert(prompt, word, rng.choice(POSITIONS)) for prompt in rng.sample(others, min(lacking, len(others)))]


def wanted(pool: Sequence[str], words: Sequence[str]) -> str:
    """Which prompts are needed in a context, where there are too few; else nothing."""
    few = {word: n for word in words if (n := len(having(pool, [word]))) < ENOUGH}
    put = "; ".join(f"{n} of {len(pool)} prompts say {word!a}, so it was put into others" for word, n in few.items())
    return f"{put}; give {ENOUGH} different ones that say it with --prompts FILE" if few else ""
