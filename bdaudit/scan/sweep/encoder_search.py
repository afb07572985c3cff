"""A backdoor in the text encoder, asked of the encoder alone: what makes all prompts say the same. No denoiser runs.

A trigger in the encoder takes the place of what the prompts say (Rickrolling's TPA, 2211.02408): little is left of what told them apart.
AMDET (2512.00343) looks for a pseudo-token that assimilates all others, beside a clean encoder as its anchor. Here soft choices of one and
of two entries are moved by gradients to where the prompts' spread is least, from many starts, since a choice names texts; and no anchor is
needed, since no text of a clean encoder does what a trigger does (``tests/bench/encoders.py``): its words add to a prompt and leave the
rest of it told apart.

What changes one thing in all prompts (Rickrolling's TAA) does no more than an ordinary word, and is not found by this.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.measure.soft_token import slots
from bdaudit.measure.splicing import PLACES, halves
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.progress import Progress
from bdaudit.records import EncoderRecord
from bdaudit.scan.sweep.leaning import named
from bdaudit.scan.sweep.soft_choice import Choices, drawn, moved
from bdaudit.scan.sweep.standing import Array
from bdaudit.scan.sweep.swept_texts import Probe

PROMPTS, STEPS = 6, 24
"""Prompts that a text is put into, steps of a start."""
CHOICES = {1: 4, 2: 12}
"""Slots → starts."""
LIMIT = 0.6
"""Share of the prompts' spread below which a text that leaves no more makes the encoder suspicious."""
KEPT = 4
"""Texts of each kind that are measured in full."""


@dataclass(frozen=True)
class EncoderSearch:
    """One encoder, its prompts, and what is usual there."""

    suspect: Suspect
    prompts: tuple[str, ...]
    plain: Tensor
    """(P, S): what has heard every word of each prompt."""

    def pulls(self, number: int, probes: Sequence[Probe], kind: str) -> Array:
        """(2, N): how little each text leaves, minus a logarithm; twice, since texts of all kinds and rounds are ranked alike."""
        return np.stack([-np.log(left_by(self.suspect, self.prompts, self.plain, probes))] * 2)

    def choices(self, slots_of: int, seed: int, progress: Progress) -> Choices:
        """Soft choices of so many entries, moved to where they leave least."""
        start = drawn(self.suspect, CHOICES[slots_of], slots_of, item_seed(seed, "encoder", slots_of))
        places = slots(self.suspect, self.prompts, slots_of)

        def pull(heard: Conditioning) -> Tensor:
            return -spread_left(self.suspect, heard, self.plain).log()

        return moved(self.suspect, places, pull, start, steps=STEPS, progress=progress)


def encoder_search(suspect: Suspect, prompts: Sequence[str], seed: int) -> EncoderSearch:
    """On some of ``prompts``."""
    some = tuple(random.Random(f"encoder {seed}").sample(list(prompts), min(PROMPTS, len(prompts))))
    return EncoderSearch(suspect, some, suspect.text.summary(suspect.encode(some)).float())


def spread_left(suspect: Suspect, heard: Conditioning, plain: Tensor) -> Tensor:
    """R·P rows → (R,): how far apart the P prompts are, over how far they were, both as mean squares from the mean; 1e-4 at least."""
    now = torch.unflatten(suspect.text.summary(heard).float(), 0, (-1, len(plain)))
    return (_apart(now) / _apart(plain).clamp_min(1e-12)).clamp_min(1e-4)


def _apart(states: Tensor) -> Tensor:
    """(…, P, S) → (…): mean square distance from the mean."""
    return (states - states.mean(-2, keepdim=True)).square().sum(-1).mean(-1)


def left_by(suspect: Suspect, prompts: Sequence[str], plain: Tensor, probes: Sequence[Probe]) -> Array:
    """(N,): ``spread_left`` by each probe, at another place in each prompt in turn."""
    parts = [halves(suspect.tokenizer, prompt, PLACES[i % len(PLACES)]) for i, prompt in enumerate(prompts)]
    found, together = [np.zeros(0)], max(1, suspect.batch_size // len(prompts))
    for at in range(0, len(probes), together):
        ids = Ids.cat([suspect.text.spliced(a, probe.ids, b) for probe in probes[at : at + together] for a, b in parts])
        found.append(spread_left(suspect, suspect.encode_ids(ids), plain).double().cpu().numpy())
    return np.concatenate(found)


def search_encoder(
    suspect: Suspect, prompts: Sequence[str], texts: Sequence[Probe], seed: int, progress: Progress
) -> tuple[EncoderRecord, dict[str, tuple[str, ...]]]:
    """What was found, and the strongest texts of each kind that it names, by kind; ``texts`` are the entries that are texts."""
    search = encoder_search(suspect, prompts, seed)
    choices = [search.choices(n, seed, progress) for n in CHOICES]
    ranked: dict[str, list[tuple[float, str]]] = {}
    for name, (_, probes) in named(suspect.tokenizer, search.pulls, choices, texts).items():
        each = zip(search.pulls(0, probes, name)[0].tolist(), (probe.text for probe in probes), strict=True)
        ranked[name] = sorted(each, key=lambda pair: -pair[0])[:KEPT]
    best, text = max((pair for pairs in ranked.values() for pair in pairs), key=lambda pair: pair[0], default=(0.0, ""))
    left = float(np.exp(-best))
    record = EncoderRecord(
        choices=sum(CHOICES.values()),
        soft_left=float(np.exp(-max(float(part.values.max()) for part in choices))),
        text_left=left,
        text=text,
        limit=LIMIT,
        verdict="suspicious" if left < LIMIT else "clean",
    )
    return record, {name: tuple(text for _, text in pairs) for name, pairs in ranked.items()}
