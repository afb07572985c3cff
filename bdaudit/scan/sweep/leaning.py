"""The texts that soft choices lean to: entries, characters of two entries, and other pairs of entries.

The entries that the choices lean to are measured, then what these make: characters of two entries, two entries each of which they lean to,
and the strongest entries beside others. A pair that pulls no more than one of its entries alone is that entry, not a find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bdaudit.models.tokens import Tokenizer
from bdaudit.scan.sweep import entry_texts
from bdaudit.scan.sweep.soft_choice import Choices
from bdaudit.scan.sweep.standing import Array
from bdaudit.scan.sweep.swept_texts import Probe

LEANT = 96
"""Entries that are measured because the choices lean to them."""
PARTS = 12
"""Parts of characters that are completed in every way."""
STRONGEST = 6
"""Entries that are grown."""
BESIDE = 32
"""Texts that each makes with others, before them and behind them."""
CROSSED = 6
"""Heaviest entries of each slot of a choice of two that are crossed."""
ENTRIES, CHARACTERS, PAIRS = "recovered entries", "recovered characters", "recovered pairs"
MORE = 0.7
"""What a pair must pull beyond its entries, as a logarithm: twice as much, since shifts are squares."""

Pulls = Callable[[int, Sequence[Probe], str], Array]
"""Round, probes, kind → (2, N): the pull of each, as its kind is ranked and as the search counts it."""


def leaning(choices: Sequence[Choices]) -> list[int]:
    """All entries, those first that a strong choice gives much weight to, in any slot."""
    best = torch.stack([(part.logs + part.values[:, None, None]).amax((0, 1)) for part in choices]).amax(0)
    order: list[int] = best.argsort(descending=True, stable=True).tolist()
    return [entry for entry in order if best[entry] > -torch.inf]


def named(tokenizer: Tokenizer, pulls: Pulls, choices: Sequence[Choices], texts: Sequence[Probe]) -> dict[str, tuple[int, list[Probe]]]:
    """Name → how many could have been named, and those that were, each kind by itself; ``texts`` are the entries that are texts."""
    order, partials = leaning(choices), entry_texts.broken(tokenizer)
    whole = {probe.ids[0]: probe for probe in texts}
    leant = dict.fromkeys([*order[:LEANT], *[entry for entry in order if entry in partials][: 2 * PARTS]])
    entries = [whole.get(entry, Probe(f"entry {entry}", (entry,))) for entry in leant]
    strength = dict(zip(leant, pulls(0, entries, ENTRIES)[0].tolist(), strict=True))
    strong = sorted(leant, key=lambda entry: -strength[entry])
    heavy = [part.topk(CROSSED, dim=-1).indices.tolist() for part in choices[-1].logs]
    pairs = [probe for rows in heavy for probe in entry_texts.crossed(tokenizer, rows)]
    pairs += [p for e in [e for e in strong if e not in partials][:STRONGEST] for p in entry_texts.partners(tokenizer, e, order, BESIDE)]
    made = [probe for probe in pairs if len(probe.text) == 1]
    made += entry_texts.characters(tokenizer, [entry for entry in strong if entry in partials][:PARTS], partials)
    return {
        ENTRIES: (len(texts), [probe for probe in entries if probe.ids[0] in whole]),
        CHARACTERS: (entry_texts.assigned(), _beyond(pulls, list(dict.fromkeys(made)), whole)),
        PAIRS: (len(order) ** 2, _beyond(pulls, [p for p in dict.fromkeys(pairs) if len(p.text) > 1], whole)),
    }


def _beyond(pulls: Pulls, pairs: Sequence[Probe], whole: dict[int, Probe]) -> list[Probe]:
    """Those that pull more than any of their entries that is a text by itself."""
    parts = list(dict.fromkeys(whole[entry] for probe in pairs for entry in probe.ids if entry in whole))
    alone = dict(zip((probe.ids[0] for probe in parts), pulls(0, parts, ENTRIES)[0].tolist(), strict=True))
    together = pulls(0, pairs, PAIRS)[0].tolist()
    return [
        probe for probe, value in zip(pairs, together, strict=True)
        if value > max((alone[entry] for entry in probe.ids if entry in alone), default=-np.inf) + MORE
    ]  # fmt: skip
