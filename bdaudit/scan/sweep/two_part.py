"""The sweep of texts of two entries, by crowds: one first entry, and many second ones beside one prompt at once.

Cross-attention reads a set of states. States that were encoded apart can therefore stand together beside the plain prompt's, and none
changes what another says, as the words of one prompt would. The interaction of a first entry ``a`` and a crowd ``B`` of second ones, each
encoded right behind it, is ε(a, B|a) − ε(a) − ε(B) + ε(): what they do together and not apart. A trigger of two parts is large in it,
since its effect comes through its own states, whole or nearly so. The crowds that stand out are halved until pairs are left. These are
screened as any text is, in more prompts. Each crowd is measured by itself, so that no score depends on what else is swept.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bdaudit.measure.draws import Draws, DrawsOf
from bdaudit.models.suspect import Suspect
from bdaudit.models.tokens import content_ids
from bdaudit.records import RoundRecord
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.result import SweepResult, SweepSizes
from bdaudit.scan.sweep.screen import in_blocks, screen
from bdaudit.scan.sweep.single_texts import ROUNDS
from bdaudit.scan.sweep.standing import Array, standings
from bdaudit.scan.sweep.swept_texts import Crowd, Pairing, Probe
from bdaudit.scan.tasks import CrowdsTask

CROWD = 32
"""Second entries that stand beside a prompt together, a power of two: with more, each one's own part gets lost."""
DRAWS = 2
"""Draws on which crowds are measured: of the noisier half of all, those with the shortest prompts, where a crowd has the most attention."""
SHARE = 24
"""One crowd in so many is halved, where that is more than the least, since in full crowds a pair can be half drowned."""
ROW, EACH = 64, 16
"""Crowds of one first entry that are halved, and survivors that have one entry in common: one that answers much leaves room for others."""

_TINY = 1e-12


def two_part_sweep(context: ScanContext, pairing: Pairing, sizes: SweepSizes) -> SweepResult:
    """The pairs that do most together that neither does alone; none where an end has no entries. The entries' order does not matter."""
    firsts, seconds = sorted(pairing.firsts), sorted(pairing.seconds)
    if not firsts or not seconds:
        return SweepResult((), (), 0)
    beside, rounds = replace(context, draws=_quiet(context)), list[RoundRecord]()
    crowds = [crowd for a in firsts for crowd in crowds_of(a, blocks(seconds, context.seed))]
    strengths = interactions(beside, pairing, "", crowds)
    usual = np.median(strengths, axis=0)
    while len(crowds[0][1]) > 1:
        ranked = [crowds[i] for i in np.argsort(-(strengths - usual).max(axis=1), kind="stable")]
        chosen = [ranked[i] for i in at_most([(a,) for a, _ in ranked], max(sizes.crowds, len(ranked) // SHARE), ROW)]
        rounds.append(RoundRecord(texts=len(crowds), passes=strengths.shape[1], kept=len(chosen)))
        crowds = list(dict.fromkeys(half for crowd in chosen for half in halves(crowd)))
        strengths = interactions(beside, pairing, ", halved", crowds)
    pairs = [Probe(text, (a, b)) for a, (b,) in crowds if (text := pairing.texts(a, [b])[0])]
    rounds.append(RoundRecord(texts=len(crowds), passes=strengths.shape[1], kept=len(pairs)))
    random_pairs = drawn(pairing, context.seed, sizes.sample)
    survivors = _standing_out(context, pairing.name, pairs, random_pairs, sizes.pairs)
    rounds.append(RoundRecord(texts=len(pairs), passes=len(ROUNDS[-1].of(context.draws)), kept=len(survivors)))
    return SweepResult(tuple(survivors), tuple(rounds), len(firsts) * len(seconds), tuple(random_pairs))


def drawn(pairing: Pairing, seed: int, n: int) -> list[Probe]:
    """Up to ``n`` pairs at random that some text encodes to."""
    rng, firsts, seconds = random.Random(f"pairs {seed} {pairing.name}"), sorted(pairing.firsts), sorted(pairing.seconds)
    pairs = dict.fromkeys((rng.choice(firsts), rng.choice(seconds)) for _ in range(n))
    return [Probe(text, (a, b)) for a, b in pairs if (text := pairing.texts(a, [b])[0])]


def _standing_out(context: ScanContext, name: str, pairs: Sequence[Probe], null: Sequence[Probe], n: int) -> list[Probe]:
    """The ``n`` that do most for how far they move the text encoding, beside random pairs; few with one entry in common."""
    values = screen(context, f"{name}, in more prompts", ROUNDS[-1], [*pairs, *null])
    ranks = standings(values[: len(pairs)], values[len(pairs) :]) if pairs and null else np.zeros(len(pairs))
    ranked = [pairs[i] for i in np.argsort(-ranks, kind="stable")]
    return [ranked[i] for i in at_most([tuple(enumerate(pair.ids)) for pair in ranked], n, EACH)]


def blocks(entries: Sequence[int], seed: int) -> list[tuple[int, ...]]:
    """``entries`` at random in crowds of one size, ``CROWD`` or the power of two they suffice for; the first fill up the last."""
    mixed = random.Random(f"crowds {seed}").sample(list(entries), len(entries))
    size = min(CROWD, 1 << (len(mixed).bit_length() - 1))
    filled = mixed + mixed[: -len(mixed) % size]
    return [tuple(filled[at : at + size]) for at in range(0, len(filled), size)]


def crowds_of(a: int, among: Sequence[tuple[int, ...]]) -> list[Crowd]:
    """``a`` with each block. Where a block holds ``a``, an entry of the next stands for it: apart, the block would do what the two do."""
    spare = [next((b for b in other if b != a), a) for other in (*among[1:], among[0])]
    return [(a, tuple(spare[i] if b == a else b for b in block)) for i, block in enumerate(among)]


def halves(crowd: Crowd) -> tuple[Crowd, Crowd]:
    """A crowd of two or more, parted."""
    a, members = crowd
    middle = len(members) // 2
    return (a, members[:middle]), (a, members[middle:])


def at_most(shares: Sequence[tuple[Hashable, ...]], n: int, each: int) -> list[int]:
    """Of items in order, the first ``n``, no more than ``each`` of which have one of their ``shares`` in common."""
    count, chosen = Counter[Hashable](), list[int]()
    for i, held in enumerate(shares):
        if len(chosen) < n and all(count[share] < each for share in held):
            count.update(held)
            chosen.append(i)
    return chosen


def _quiet(context: ScanContext) -> Draws:
    """``DRAWS`` of the context's."""
    draws, tokenizer = context.draws, context.suspect.tokenizer
    noisy = sorted(range(len(draws)), key=lambda i: -float(draws.timesteps[i]))[: max(DRAWS, len(draws) // 2)]
    return draws.at(sorted(noisy, key=lambda i: (len(content_ids(tokenizer, draws.prompts[i])), i))[:DRAWS])


def interactions(context: ScanContext, pairing: Pairing, halved: str, crowds: Sequence[Crowd]) -> Array:
    """(N, D): log mean square of the interaction of each crowd, all of one size."""
    draws = context.draws
    setting = f"{draws.prompts} {draws.timesteps.tolist()}"
    task = partial(_task, draws.of, pairing.name)
    return in_blocks(context, pairing.name + halved, crowds, setting, len(draws), Interactions(context.suspect, draws, pairing), task)


def _task(of: DrawsOf, pairing: str, crowds: Sequence[Crowd]) -> CrowdsTask:
    return CrowdsTask(draws=of, pairing=pairing, crowds=tuple(crowds))


class Interactions:
    """(N, D) of crowds of one size: how strongly each first entry and its second ones do together what they do not apart."""

    def __init__(self, suspect: Suspect, draws: Draws, pairing: Pairing) -> None:
        self._apart, self._pairing = _Apart(suspect, draws), pairing

    def __call__(self, crowds: Sequence[Crowd]) -> Array:
        """log mean square of the interaction of each."""
        return _together(self._apart, self._pairing, crowds)


class _Apart:
    """What entries say alone, and what groups of them do so; each is asked for many times and worked out once."""

    def __init__(self, suspect: Suspect, draws: Draws) -> None:
        self.suspect, self.draws = suspect, draws
        self._states: dict[int, Tensor] = {}
        self._predictions: dict[tuple[int, ...], Tensor] = {}

    def states(self, group: Sequence[int]) -> Tensor:
        """Of entries that are encoded alone: (M, D)."""
        new = [entry for entry in dict.fromkeys(group) if entry not in self._states]
        if new:
            self._states |= dict(zip(new, _encoded(self.suspect, [(entry,) for entry in new])[:, 0], strict=True))
        return torch.stack([self._states[entry] for entry in group])

    def predictions(self, groups: Sequence[tuple[int, ...]]) -> Tensor:
        """With each group's states beside the prompt, groups of one size: (D, N, C·H·W)."""
        new = [group for group in dict.fromkeys(groups) if group not in self._predictions]
        if new:
            predictions = _predicted(self.suspect, self.draws, torch.stack([self.states(group) for group in new]))
            self._predictions |= dict(zip(new, predictions.unbind(1), strict=True))
        return torch.stack([self._predictions[group] for group in groups], dim=1)


def _together(apart: _Apart, pairing: Pairing, crowds: Sequence[Crowd]) -> Array:
    """(N, D): log mean square of ε(a, B|a) − ε(a) − ε(B) + ε()."""
    both = _predicted(apart.suspect, apart.draws, _beside(apart, pairing, crowds))
    firsts, seconds = apart.predictions([(a,) for a, _ in crowds]), apart.predictions([members for _, members in crowds])
    interaction = both - firsts - seconds + apart.draws.plain[:, None]
    strengths: Array = torch.log(interaction.square().mean(-1) + _TINY).T.double().cpu().numpy()
    return strengths


def _beside(apart: _Apart, pairing: Pairing, crowds: Sequence[Crowd]) -> Tensor:
    """(N, 1 + M, D): the first entry's state and each second one's behind it, or alone where no text encodes to the two."""
    behind = torch.unflatten(_encoded(apart.suspect, [(a, b) for a, members in crowds for b in members])[:, 1], 0, (len(crowds), -1))
    real = torch.tensor([[bool(text) for text in pairing.texts(a, members)] for a, members in crowds], device=behind.device)
    alone = torch.stack([apart.states(members) for _, members in crowds])
    first = torch.stack([apart.states([a]) for a, _ in crowds])
    return torch.cat([first, torch.where(real[..., None], behind, alone)], dim=1)


@torch.no_grad()
def _encoded(suspect: Suspect, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """States of short texts, all of M entries: (N, M, D)."""
    ids = suspect.text.bare(rows).to(suspect.device)
    at_once = suspect.batch_size * max(1, int(suspect.tokenizer.model_max_length) // (len(rows[0]) + 2))
    parts = [suspect.text.encode(part).states[suspect.text.words(part)] for part in ids.split(at_once)]
    return torch.unflatten(torch.cat(parts), 0, (len(rows), -1))


def _predicted(suspect: Suspect, draws: Draws, states: Tensor) -> Tensor:
    """What is predicted with states (N, M, D) beside each draw's own prompt: (D, N, C·H·W) float32."""
    n = len(states)
    return torch.stack([
        suspect.predict_batched(latents.expand(n, -1, -1, -1), t.expand(n), draws.heard[[i]].expand(n).beside(states)).float().flatten(1)
        for i, (latents, t) in enumerate(zip(draws.latents, draws.timesteps, strict=True))
    ])  # fmt: skip
