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
    """The prompts that have one of ``words``, and where there are fewer than ``ENOUGH``, others that it is put into."""
    own = having(pool, words)
    rng = random.Random(f"with context {seed}")
    others = rng.sample([prompt for prompt in pool if prompt not in own], min(ENOUGH, len(pool) - len(own)))
    made = [insert(prompt, words[i % len(words)], rng.choice(POSITIONS)) for i, prompt in enumerate(others)]
    return (*own, *made[: max(0, ENOUGH - len(own))]) or tuple(words)


def wanted(pool: Sequence[str], words: Sequence[str]) -> str:
    """Which prompts are needed in a context, where there are too few; else nothing."""
    n, said = len(having(pool, words)), " or ".join(map(ascii, words))
    put = f"{n} of {len(pool)} prompts say {said}, so it was put into others"
    return f"{put}; give {ENOUGH} different ones that say it with --prompts FILE" if words and n < ENOUGH else ""
