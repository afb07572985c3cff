"""Texts of two entries, by crowds: what many second entries say after one first entry, put beside a prompt's own states at once.

Cross-attention reads a set of states. So states that were encoded apart can stand together beside the plain prompt's, and none changes
what another says, as the words of one prompt would. What a first entry ``a`` and a crowd ``B`` of second ones, each encoded right behind
it, do beyond what they do apart, ε(a, B|a) − ε(a) − ε(B) + ε(), is what a trigger of two parts does; a trigger's effect comes through its
own states, whole or nearly so. The crowds that stand out are halved until pairs are left, and these are screened as any text is, in more
prompts. Each crowd is measured by itself, so that no score depends on what else is swept.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bdaudit.measure.probe import Stage
from bdaudit.pipeline.tokens import content_ids
from bdaudit.scan.halving import BLOCK, ROUNDS, SAMPLE, Halved, RoundDone, Screen, digest, measure
from bdaudit.scan.screen import Array, standings
from bdaudit.scan.sources import Pairing, Probe

CROWD = 32
"""Second entries that stand beside a prompt together, a power of two: with more, each one's own part gets lost."""
TIMESTEPS = 2
"""The stage's noisiest timesteps: fixed pictures show at the first, patches, styles and objects at the second."""
KEPT, SHARE = 256, 24
"""Crowds that are halved: so many at least, and one in so many where that is more, since in full crowds a pair can be half drowned."""
SURVIVORS = 64
"""Pairs that are measured in full."""
ROW, EACH = 64, 16
"""Crowds of one first entry that are halved, and survivors that have one entry in common: one that answers much leaves room for others."""

_TINY = 1e-12
Crowd = tuple[int, tuple[int, ...]]
"""A first entry and second ones."""


@dataclass(frozen=True)
class _Room:
    """One prompt of the stage, at the timesteps used."""

    screen: Screen
    stage: Stage
    pairing: Pairing


@dataclass(frozen=True)
class Swept(Halved):
    """What came through a sweep of pairs."""

    drawn: tuple[Probe, ...]
    """Pairs at random, whatever they do."""
    size: int
    """Pairs that were in some crowd."""


def sweep_crowds(screen: Screen, pairing: Pairing) -> Swept:
    """The pairs that do most together that neither does alone; none where an end has no entries. The entries' order does not matter."""
    firsts, seconds = sorted(pairing.firsts), sorted(pairing.seconds)
    if not firsts or not seconds:
        return Swept((), (), (), 0)
    room, done = _room(screen, pairing), list[RoundDone]()
    crowds = [crowd for a in firsts for crowd in crowds_of(a, blocks(seconds, screen.seed))]
    strengths = _measured(room, pairing.name, crowds)
    usual = np.median(strengths, axis=0)
    while len(crowds[0][1]) > 1:
        order = [crowds[i] for i in np.argsort(-(strengths - usual).max(axis=1), kind="stable")]
        chosen = [order[i] for i in at_most([(a,) for a, _ in order], max(KEPT, len(order) // SHARE), ROW)]
        done.append(RoundDone(len(crowds), strengths.shape[1], len(chosen)))
        crowds = list(dict.fromkeys(half for crowd in chosen for half in halves(crowd)))
        strengths = _measured(room, f"{pairing.name}, halved", crowds)
    pairs = [Probe(text, (a, b)) for a, (b,) in crowds if (text := pairing.texts(a, [b])[0])]
    random_pairs = drawn(pairing, screen.seed)
    left = _standing_out(screen, pairing.name, pairs, random_pairs)
    times, prompts = ROUNDS[-1].stage(screen.stage).latents.shape[:2]
    done += [RoundDone(len(crowds), strengths.shape[1], len(pairs)), RoundDone(len(pairs), times * prompts, len(left))]
    return Swept(tuple(left), tuple(done), tuple(random_pairs), len(firsts) * len(seconds))


def drawn(pairing: Pairing, seed: int) -> list[Probe]:
    """Up to ``SAMPLE`` pairs at random that some text encodes to."""
    rng, firsts, seconds = random.Random(f"pairs {seed} {pairing.name}"), sorted(pairing.firsts), sorted(pairing.seconds)
    pairs = dict.fromkeys((rng.choice(firsts), rng.choice(seconds)) for _ in range(SAMPLE))
    return [Probe(text, (a, b)) for a, b in pairs if (text := pairing.texts(a, [b])[0])]


def _standing_out(screen: Screen, name: str, pairs: Sequence[Probe], null: Sequence[Probe]) -> list[Probe]:
    """Those that do most for how far they move the text encoding, beside random pairs; few with one entry in common."""
    values = measure(screen, f"{name}, in more prompts", ROUNDS[-1], [*pairs, *null])
    ranks = standings(values[: len(pairs)], values[len(pairs) :]) if pairs and null else np.zeros(len(pairs))
    order = [pairs[i] for i in np.argsort(-ranks, kind="stable")]
    return [order[i] for i in at_most([tuple(enumerate(pair.ids)) for pair in order], SURVIVORS, EACH)]


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
    for i, own in enumerate(shares):
        if len(chosen) < n and all(count[what] < each for what in own):
            count.update(own)
            chosen.append(i)
    return chosen


def _room(screen: Screen, pairing: Pairing) -> _Room:
    """Beside the shortest prompt a crowd has the most of the attention."""
    tokenizer, stage, t = screen.suspect.tokenizer, screen.stage, slice(TIMESTEPS)
    i = min(range(len(stage.prompts)), key=lambda i: (len(content_ids(tokenizer, stage.prompts[i])), i))
    part = replace(
        stage, prompts=(stage.prompts[i],), timesteps=stage.timesteps[t], latents=stage.latents[t, i : i + 1],
        states=stage.states[i : i + 1], plain=stage.plain[t, i : i + 1], empty=stage.empty[t, i : i + 1],
    )  # fmt: skip
    return _Room(screen, part, pairing)


def _measured(room: _Room, name: str, crowds: Sequence[Crowd]) -> Array:
    """(N, T): log mean square of what each crowd, all of one size, does with its first entry that they do not apart. Kept in the state."""
    screen, parts, apart = room.screen, list[Array](), _Apart(room)
    for at in range(0, len(crowds), BLOCK):
        block = crowds[at : at + BLOCK]
        key = digest(f"{screen.seed} {room.stage.prompts} {block}")
        rows = screen.state.read_json(key, list[list[float]])
        if rows is None:
            rows = _together(room, block, apart).tolist()
            screen.state.write_json(key, rows)
        with screen.state.fitting(key):
            parts.append(np.asarray(rows, dtype=np.float64).reshape(len(block), len(room.stage.timesteps)))
        screen.progress(f"screening {name}", min(at + BLOCK, len(crowds)), len(crowds))
    return np.concatenate(parts)


class _Apart:
    """What entries say alone, and what groups of them do so; each is asked for many times and worked out once."""

    def __init__(self, room: _Room) -> None:
        self.room = room
        self._states: dict[int, Tensor] = {}
        self._predictions: dict[tuple[int, ...], Tensor] = {}

    def states(self, group: Sequence[int]) -> Tensor:
        """Of entries that are encoded alone: (M, D)."""
        new = [entry for entry in dict.fromkeys(group) if entry not in self._states]
        if new:
            self._states |= dict(zip(new, _encoded(self.room, [(entry,) for entry in new])[:, 0], strict=True))
        return torch.stack([self._states[entry] for entry in group])

    def predictions(self, groups: Sequence[tuple[int, ...]]) -> Tensor:
        """With each group's states beside the prompt, groups of one size: (T, N, C·H·W)."""
        new = [group for group in dict.fromkeys(groups) if group not in self._predictions]
        if new:
            found = _predicted(self.room, torch.stack([self.states(group) for group in new]))
            self._predictions |= dict(zip(new, found.unbind(1), strict=True))
        return torch.stack([self._predictions[group] for group in groups], dim=1)


def _together(room: _Room, crowds: Sequence[Crowd], apart: _Apart) -> Array:
    """(N, T): log mean square of ε(a, B|a) − ε(a) − ε(B) + ε()."""
    both = _predicted(room, _beside(room, crowds, apart))
    left = both - apart.predictions([(a,) for a, _ in crowds]) - apart.predictions([members for _, members in crowds]) + room.stage.plain
    found: Array = torch.log(left.square().mean(-1) + _TINY).T.double().cpu().numpy()
    return found


def _beside(room: _Room, crowds: Sequence[Crowd], apart: _Apart) -> Tensor:
    """(N, 1 + M, D): the first entry's state and each second one's behind it, or alone where no text encodes to the two."""
    behind = torch.unflatten(_encoded(room, [(a, b) for a, members in crowds for b in members])[:, 1], 0, (len(crowds), -1))
    real = torch.tensor([[bool(text) for text in room.pairing.texts(a, members)] for a, members in crowds], device=behind.device)
    alone = torch.stack([apart.states(members) for _, members in crowds])
    first = torch.stack([apart.states([a]) for a, _ in crowds])
    return torch.cat([first, torch.where(real[..., None], behind, alone)], dim=1)


@torch.no_grad()
def _encoded(room: _Room, rows: Sequence[tuple[int, ...]]) -> Tensor:
    """States of short texts, all of M entries: (N, M, D)."""
    suspect = room.screen.suspect
    ids = torch.tensor([[suspect.tokenizer.bos_token_id, *row, suspect.tokenizer.eos_token_id] for row in rows], device=suspect.device)
    at_once = suspect.batch_size * max(1, int(suspect.tokenizer.model_max_length) // ids.shape[1])
    return torch.cat([suspect.hidden_states(part)[:, 1:-1] for part in torch.split(ids, at_once)])


def _predicted(room: _Room, states: Tensor) -> Tensor:
    """What is predicted with states (N, M, D) beside the prompt's own: (T, N, C·H·W) float32."""
    suspect, stage, n = room.screen.suspect, room.stage, len(states)
    beside = torch.cat([stage.states.expand(n, -1, -1), states], dim=1)
    return torch.stack([
        suspect.predict_batched(latents.expand(n, -1, -1, -1), t.expand(n), beside).float().flatten(1)
        for latents, t in zip(stage.latents, stage.timesteps, strict=True)
    ])  # fmt: skip
