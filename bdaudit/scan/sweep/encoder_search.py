"""A backdoor in the text encoder, asked of the encoder alone: what pulls all prompts to one place, or moves them all alike.

No denoiser runs.

A trigger in the encoder replaces what the prompts say (Rickrolling's TPA, 2211.02408: their encodings fall together) or changes one thing
in all of them (its TAA: all move alike). AMDET (2512.00343) looks for a pseudo-token that assimilates all others; here soft choices of one
and of two entries are moved by gradients to where they do either, from many starts, since a choice names texts. One figure says both: how
far all prompts moved in common, over how far apart they are then.

A clean encoder has words that do the same: "right right" in one pulls as hard as a trigger in another (``tests/bench/encoders.py``). So
what is named here are candidates, and nothing is said of the encoder as a whole.
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

PROMPTS, CHOICES, STEPS, DRAWN = 4, 6, 24, 128
"""Prompts that a text is put into, starts of one slot and as many of two, steps of each, entries drawn at random."""
USUAL = 0.99
"""Quantile of the drawn entries' figures that a text is compared with."""
KEPT = 4
"""Texts of each kind that are measured in full."""


@dataclass(frozen=True)
class EncoderSearch:
    """One encoder, its prompts, and what is usual there."""

    suspect: Suspect
    prompts: tuple[str, ...]
    plain: Tensor
    """(P, S): what has heard every word of each prompt."""
    usual: float
    """The figure that few entries reach."""

    def pulls(self, number: int, probes: Sequence[Probe], kind: str) -> Array:
        """(2, N): each text's figure over what is usual, as a logarithm; twice, since texts of all kinds and rounds are ranked alike."""
        return np.stack([figures(self.suspect, self.prompts, self.plain, probes) - self.usual] * 2)

    def choices(self, slots_of: int, seed: int, progress: Progress) -> Choices:
        """Soft choices of so many entries, moved to where they do most."""
        start = drawn(self.suspect, CHOICES, slots_of, item_seed(seed, "encoder", slots_of))
        places = slots(self.suspect, self.prompts, slots_of)
        return moved(self.suspect, places, self._value, start, steps=STEPS, progress=progress)

    def _value(self, heard: Conditioning) -> Tensor:
        return assimilation(self.suspect, heard, self.plain)


def encoder_search(suspect: Suspect, prompts: Sequence[str], texts: Sequence[Probe], seed: int) -> EncoderSearch:
    """On some of ``prompts``; ``texts`` are the entries that are texts."""
    rng = random.Random(f"encoder {seed}")
    some = tuple(rng.sample(list(prompts), min(PROMPTS, len(prompts))))
    plain = suspect.text.summary(suspect.encode(some)).float()
    each = figures(suspect, some, plain, rng.sample(list(texts), min(DRAWN, len(texts))))
    return EncoderSearch(suspect, some, plain, float(np.quantile(each, USUAL)))


def assimilation(suspect: Suspect, heard: Conditioning, plain: Tensor) -> Tensor:
    """R·P rows → (R,): log of how far the P prompts moved in common, over how far apart they are then, both as squares."""
    now = torch.unflatten(suspect.text.summary(heard).float(), 0, (-1, len(plain)))
    alike, apart, before = (now - plain).mean(1).square().sum(-1), _apart(now), _apart(plain)
    return (alike.clamp_min(1e-9 * before) / apart.clamp_min(1e-4 * before)).log()


def _apart(states: Tensor) -> Tensor:
    """(…, P, S) → (…): mean square distance from the mean."""
    return (states - states.mean(-2, keepdim=True)).square().sum(-1).mean(-1)


def figures(suspect: Suspect, prompts: Sequence[str], plain: Tensor, probes: Sequence[Probe]) -> Array:
    """(N,): ``assimilation`` by each probe, at another place in each prompt in turn."""
    parts = [halves(suspect.tokenizer, prompt, PLACES[i % len(PLACES)]) for i, prompt in enumerate(prompts)]
    found, together = [np.zeros(0)], max(1, suspect.batch_size // len(prompts))
    for at in range(0, len(probes), together):
        ids = Ids.cat([suspect.text.spliced(a, probe.ids, b) for probe in probes[at : at + together] for a, b in parts])
        found.append(assimilation(suspect, suspect.encode_ids(ids), plain).double().cpu().numpy())
    return np.concatenate(found)


def search_encoder(
    suspect: Suspect, prompts: Sequence[str], texts: Sequence[Probe], seed: int, progress: Progress
) -> tuple[EncoderRecord, dict[str, tuple[str, ...]]]:
    """What was found, and the strongest texts of each kind that it names, by kind; ``texts`` are the entries that are texts."""
    search = encoder_search(suspect, prompts, texts, seed)
    choices = [search.choices(n, seed, progress) for n in (1, 2)]
    ranked: dict[str, list[tuple[float, str]]] = {}
    for name, (_, probes) in named(suspect.tokenizer, search.pulls, choices, texts).items():
        each = zip(search.pulls(0, probes, name)[0].tolist(), (probe.text for probe in probes), strict=True)
        ranked[name] = sorted(each, key=lambda pair: -pair[0])[:KEPT]
    best, text = max((pair for pairs in ranked.values() for pair in pairs), key=lambda pair: pair[0], default=(-np.inf, ""))
    record = EncoderRecord(
        choices=sum(len(part.values) for part in choices),
        soft_pull=_ratio(max(float(part.values.max()) for part in choices) - search.usual),
        text_pull=_ratio(best),
        text=text,
    )
    return record, {name: tuple(text for _, text in pairs) for name, pairs in ranked.items()}


def _ratio(log_of_squares: float) -> float:
    return float(np.exp(log_of_squares / 2))
