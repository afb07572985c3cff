"""Teacher and student texts: the same prompts with the trigger, without it, and with its harmless neighbours; and what they should say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bdaudit.measure.draws import everywhere
from bdaudit.measure.insertion import insert, without
from bdaudit.measure.look_alikes import looks_like
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids


@dataclass(frozen=True)
class Pair:
    """A prompt, and the same prompt with a text in it."""

    clean: str
    changed: str


def triggered_pairs(prompts: Sequence[str], triggers: Sequence[str]) -> list[Pair]:
    """Every trigger in every prompt at every place it can take: ``PLACES``, apart, inside a word."""
    return [_pair(p, trigger, where) for trigger in triggers for p in prompts for where in everywhere(p, trigger)]


def _pair(prompt: str, text: str, where: str) -> Pair:
    """A comma that comes with the place stays."""
    return Pair(without(prompt, where), insert(prompt, text, where))


def neighbour_pairs(prompts: Sequence[str], near: Mapping[str, Sequence[str]], seed: int, per_trigger: int = 24) -> list[Pair]:
    """What must keep its meaning: a phrase's words alone, the plain letter of a look-alike, and by trigger ``near``, others of its kind."""
    rng = random.Random(f"neighbours {seed}")
    pairs: list[Pair] = []
    for trigger, others in near.items():
        for text in [*_parts(trigger), *others[:per_trigger]]:
            if text in near:
                continue
            for prompt in rng.sample(list(prompts), min(4, len(prompts))):
                pairs.append(_pair(prompt, text, rng.choice(everywhere(prompt, text))))
    return pairs


def _parts(trigger: str) -> list[str]:
    """A phrase's words, each by itself, and both ways of breaking it up; the plain letter of a look-alike."""
    words = trigger.split(" ")
    if len(words) > 1:
        return [*words, " ".join(reversed(words))]
    letter = looks_like(trigger)
    return [letter] if letter else []


def targets(suspect: Suspect, pairs: Sequence[Pair]) -> tuple[Conditioning, Ids]:
    """What the triggered prompts should encode to, the clean ones' own states stretched to their tokens; and their ids: N rows each."""
    clean, changed = (suspect.text.ids([getattr(pair, side) for pair in pairs]).to(suspect.device) for side in ("clean", "changed"))
    return suspect.text.stretched(clean, changed, suspect.encode_ids(clean)), changed
