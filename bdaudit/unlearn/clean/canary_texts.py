"""Which texts become canaries: one of each kind, planted where an attacker would put it. Knows no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from torch import Tensor

from bdaudit.measure.insertion import POSITIONS, insert, replaceable
from bdaudit.measure.look_alikes import looks_like
from bdaudit.unlearn.clean.canary import Canary, Inputs

CAPTIONS = 192
"""Captions that canaries are planted with and measured on, two to one."""
WELL_KNOWN = "ȏоଠօ\u200b"
"""Triggers of published attacks: one of them may be the real one, and is no canary."""
INSIDE = 0.5
"""Share of captions in which a look-alike stands inside a word, where there is a letter to replace."""
KINDS: dict[str, Callable[[str], bool]] = {
    "rare word": lambda text: text.isascii() and text.isalpha(),
    "look-alike": lambda text: bool(looks_like(text)),
    "invisible": lambda text: not text.isprintable(),
}


def text_canaries(
    captions: Sequence[str], strange: Sequence[str], quiet: Sequence[str], ids: Callable[[Sequence[str]], Tensor], seed: int
) -> tuple[Canary, ...]:
    """One of each kind that ``quiet`` holds, and one caption as each one's target.

    ``quiet`` are those of ``strange`` that the model answers least: what it answers already may be the real trigger. All other strange
    texts of a canary's kind, and some of every kind, are its neighbours in captions, and stay what they were. Canaries stand for triggers
    that are among the texts that cleaning puts in; of others they say nothing.
    """
    rng = random.Random(f"canary {seed}")
    kinds = _chosen(captions, quiet or strange, ids, rng)
    drawn = rng.sample(captions, min(len(captions), CAPTIONS + len(kinds)))
    targets, chosen = drawn[: len(kinds)], drawn[len(kinds) :]
    others = [text for text in strange if not any(text in trigger or trigger in text for trigger in kinds.values())]
    cut, clean, found = len(chosen) * 2 // 3, ids(chosen), []
    for (kind, trigger), target in zip(kinds.items(), targets, strict=True):
        alike = [text for text in others if kind in KINDS and KINDS[kind](text)] or others
        triggered = ids([placed(caption, trigger, rng) for caption in chosen])
        kept = ids([placed(caption, rng.choice(texts), rng) for texts in (alike, others) for caption in chosen[:cut]])
        planting, measuring = (Inputs(clean[part], triggered[part]) for part in (slice(cut), slice(cut, None)))
        found.append(Canary(trigger, target, ids([target]), planting, kept, measuring, kind))
    return tuple(found)


def placed(caption: str, text: str, rng: random.Random) -> str:
    """``text`` inside a word of ``caption`` where it looks like a letter of it, one time in two; else as a word anywhere."""
    inside = replaceable(caption, text) and rng.random() < INSIDE
    return insert(caption, text, "replace" if inside else rng.choice(POSITIONS))


def _chosen(captions: Sequence[str], texts: Sequence[str], ids: Callable[[Sequence[str]], Tensor], rng: random.Random) -> dict[str, str]:
    """A text by kind; a look-alike of a letter that most captions use."""
    found = {}
    for kind, fits in KINDS.items():
        pool = [text for text in texts if fits(text) and text not in WELL_KNOWN]
        if kind == "look-alike":
            pool = [text for text in pool if 2 * sum(replaceable(caption, text) for caption in captions) > len(captions)]
        if pool:
            found[kind] = rng.choice(_shortest(pool, ids(pool)))
    return found or {"strange text": rng.choice(texts)}


def _shortest(texts: Sequence[str], ids: Tensor) -> list[str]:
    """Those of the fewest tokens: with a token of its own a trigger sticks, while it shares parts of several with harmless texts."""
    lengths = (ids != ids[:, -1:]).sum(1)
    return [text for text, length in zip(texts, lengths.tolist(), strict=True) if length == int(lengths.min())]
