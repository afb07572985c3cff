"""Two-word phrases by group testing: one prompt holds many words, and a pair of words is in many prompts.

The words run in an order in which each stands beside each other, both ways round, exactly once; a prompt holds a stretch of it. So
every ordered pair of neighbours is in some prompt, and every two words come together in several, further apart. What the words do by
themselves is taken off by least squares over all prompts: what is left is what they do together, which is what a composite trigger
is. A pair is looked at by itself where the prompts that hold both words stand out on the whole, or where it stands in one that
stands out far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bdaudit.measure.probe import Stage
from bdaudit.measure.splicing import halves, spliced
from bdaudit.pipeline.tokens import content_ids
from bdaudit.scan.halving import BLOCK, Halved, RoundDone, Screen, digest
from bdaudit.scan.screen import encode_ids
from bdaudit.scan.sources import Probe

LONGEST = 20
"""Words in one prompt at most: with more, each word's own part gets lost."""
TOGETHER = 256
"""Pairs of words, in either order, that are looked at by themselves because the prompts that hold both stand out."""
STRONGEST = 128
"""Prompts whose neighbours are looked at by themselves."""
KEPT = 48
"""Pairs that are measured in full."""
SIDE = 16
"""A prediction is averaged down to at most so many pixels a side: a pair that fires moves more than single pixels."""

_TINY = 1e-12
PART = 4096
"""Prompts whose word counts are in memory at a time."""

Array = NDArray[np.floating[Any]]


def circuit(n: int) -> list[int]:
    """0…n−1, n a prime, in a closed walk in which every ordered pair of two is neighbours once: n·(n − 1) + 1 long.

    The walk of stride d (1 ≤ d < n) goes through all and ends where it began, where the next stride's begins.
    """
    return [i * stride % n for stride in range(1, n) for i in range(n)] + [0]


def prime_at_most(n: int) -> int:
    """The largest prime up to ``n``.

    Raises:
        ValueError: ``n`` is below 2.
    """
    return next(p for p in range(n, 1, -1) if all(p % q for q in range(2, int(p**0.5) + 1))) if n >= 2 else _none(n)


def _none(n: int) -> int:
    raise ValueError(f"got {n} words; pairs need at least 2")


def stretches(walk: Sequence[int], length: int) -> list[tuple[int, ...]]:
    """The walk in pieces of ``length`` that overlap by one word, so that no neighbours are parted."""
    cut = [tuple(walk[at : at + length]) for at in range(0, len(walk) - 1, length - 1)]
    short = length - len(cut[-1])
    return [*cut[:-1], cut[-1] + tuple(walk[:short])] if short else cut


@dataclass(frozen=True)
class _Pool:
    """Words and the entry of each, and the part of the stage that they are put into: one prompt at the noisiest timestep."""

    words: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    stage: Stage


def sweep_pairs(screen: Screen, words: Sequence[str]) -> tuple[Halved, int]:
    """The pairs that do together what neither does alone; and how many ordered pairs were in some prompt.

    Uses the largest prime number of ``words``, from the first on.

    Raises:
        ValueError: fewer than two words.
    """
    words = words[: prime_at_most(len(words))]
    pool = _pool(screen, words)
    packs = stretches(circuit(len(words)), _length(screen, pool))
    seen = _predictions(screen, f"pairs of {len(words)} words", pool, packs)
    rest = _together(packs, seen, len(words))
    couples = list(dict.fromkeys([*_often(packs, rest, len(words)), *_neighbours(packs, rest)]))
    left = _best(couples, _beyond(screen, pool, couples), KEPT)
    done = (RoundDone(len(packs), 1, len(couples)), RoundDone(len(couples), 1, len(left)))
    pairs = tuple(Probe(" ".join(words[i] for i in pair), tuple(entry for i in pair for entry in pool.ids[i])) for pair in left)
    return Halved(pairs, done, pairs), len(words) * (len(words) - 1)


def _pool(screen: Screen, words: Sequence[str]) -> _Pool:
    """The shortest of the prompts leaves most room."""
    tokenizer, stage = screen.suspect.tokenizer, screen.stage
    i = min(range(len(stage.prompts)), key=lambda i: (len(content_ids(tokenizer, stage.prompts[i])), i))
    part = replace(
        stage, prompts=(stage.prompts[i],), timesteps=stage.timesteps[:1], latents=stage.latents[:1, i : i + 1],
        states=stage.states[i : i + 1], plain=stage.plain[:1, i : i + 1], empty=stage.empty[:1, i : i + 1],
    )  # fmt: skip
    return _Pool(tuple(words), tuple(content_ids(tokenizer, word) for word in words), part)


def _length(screen: Screen, pool: _Pool) -> int:
    """Words in a prompt: as many as fit beside it, up to ``LONGEST``."""
    tokenizer = screen.suspect.tokenizer
    room = int(tokenizer.model_max_length) - 2 - len(content_ids(tokenizer, pool.stage.prompts[0]))
    return max(2, min(LONGEST, room))


def _often(packs: Sequence[tuple[int, ...]], rest: Array, n: int) -> list[tuple[int, ...]]:
    """The pairs, both ways round, whose prompts together stand out most: the sum of ``rest`` over the root of their number."""
    table = np.asarray(packs)
    total, count = np.zeros(n * n), np.zeros(n * n)
    for i, j in combinations(range(table.shape[1]), 2):
        low, high = np.minimum(table[:, i], table[:, j]), np.maximum(table[:, i], table[:, j])
        at = low * n + high
        total += np.bincount(at, rest, n * n)
        count += np.bincount(at, minlength=n * n)
    total[:: n + 1] = 0.0  # a word with itself
    strongest = np.argsort(-total / np.sqrt(np.maximum(count, 1)), kind="stable")[: min(TOGETHER, n * (n - 1) // 2)]
    found = [(int(i) // n, int(i) % n) for i in strongest if i // n != i % n]
    return [pair for low, high in found for pair in ((low, high), (high, low))]


def _neighbours(packs: Sequence[tuple[int, ...]], rest: Array) -> list[tuple[int, ...]]:
    """The neighbours in the prompts that stand out most."""
    return [pair for pack in _best(packs, rest, STRONGEST) for pair in pairwise(pack) if pair[0] != pair[1]]


def _beyond(screen: Screen, pool: _Pool, couples: Sequence[tuple[int, ...]]) -> Array:
    """(N,): mean square of ε(a b) − ε(a) − ε(b) + ε(), what two words do beyond what each does."""
    single = {i: row for row, i in enumerate(sorted({i for pair in couples for i in pair}))}
    seen = _predictions(screen, "pairs", pool, [*((i,) for i in single), *couples])
    alone, both = seen[: len(single)], seen[len(single) :]
    first, second = (alone[[single[pair[k]] for pair in couples]] for k in (0, 1))
    (nothing,) = _predictions(screen, "the prompt alone", pool, [()])
    strength: Array = np.square(both - first - second + nothing).mean(axis=1)
    return strength


def _predictions(screen: Screen, name: str, pool: _Pool, packs: Sequence[tuple[int, ...]]) -> Array:
    """What the model predicts for the prompt with each stretch before it, averaged over pixels: (N, D). From the state where it is."""
    parts = []
    for at in range(0, len(packs), BLOCK * 8):
        block = packs[at : at + BLOCK * 8]
        key = digest(f"{pool.words} {block}")
        kept = screen.state.read_tensors(key)
        if kept is None:
            found = _predicted(screen, pool, block)
            screen.state.write_tensors(key, {"predictions": found}, len(block))
        else:
            found = kept[0]["predictions"]
        parts.append(found.numpy())
        screen.progress(f"screening {name}", min(at + BLOCK * 8, len(packs)), len(packs))
    return np.concatenate(parts)


def _predicted(screen: Screen, pool: _Pool, packs: Sequence[tuple[int, ...]]) -> Tensor:
    """(N, D) float32 on the CPU."""
    suspect, stage = screen.suspect, pool.stage
    entries = [[entry for i in pack for entry in pool.ids[i]] for pack in packs]
    around = halves(suspect.tokenizer, stage.prompts[0], "prefix")
    states = encode_ids(suspect, torch.stack([spliced(suspect.tokenizer, around, row) for row in entries]))
    n = len(packs)
    out = suspect.predict_batched(stage.latents[0].expand(n, -1, -1, -1), stage.timesteps.expand(n), states).float()
    if max(out.shape[-2:]) > SIDE:
        out = functional.adaptive_avg_pool2d(out, SIDE)
    return out.flatten(1).cpu()


def _effects(packs: Sequence[tuple[int, ...]], seen: Array, n: int) -> Array:
    """What each word adds by itself, least squares with a little ridge: (n + 1, D), the last row what is there without any."""
    gram, moment = 1e-2 * np.eye(n + 1), np.zeros((n + 1, seen.shape[1]))
    for at in range(0, len(packs), PART):
        counts = _counts(packs[at : at + PART], n)
        gram += counts.T @ counts
        moment += counts.T @ seen[at : at + PART]
    effects: Array = np.linalg.solve(gram, moment)
    return effects


def _counts(packs: Sequence[tuple[int, ...]], n: int) -> Array:
    """(N, n + 1): how often each word stands in each stretch, and a one."""
    counts = np.zeros((len(packs), n + 1))
    rows = np.repeat(np.arange(len(packs)), [len(pack) for pack in packs])
    np.add.at(counts, (rows, np.fromiter(chain.from_iterable(packs), dtype=np.intp)), 1.0)
    counts[:, n] = 1.0
    return counts


def _together(packs: Sequence[tuple[int, ...]], seen: Array, n: int) -> Array:
    """(N,): log mean square of what the words' own effects do not explain, less what is usual in prompts that hold these words."""
    strength = np.log(np.square(_unexplained(packs, seen, n)).mean(axis=1, keepdims=True) + _TINY)
    rest: Array = _unexplained(packs, strength, n)[:, 0]
    return rest


def _unexplained(packs: Sequence[tuple[int, ...]], seen: Array, n: int) -> Array:
    """``seen`` (N, D) less what each prompt's words add by themselves."""
    effects, left = _effects(packs, seen, n), np.empty(seen.shape)
    for at in range(0, len(packs), PART):
        part = slice(at, at + PART)
        left[part] = seen[part] - _counts(packs[part], n) @ effects
    return left


def _best(packs: Sequence[tuple[int, ...]], strength: Array, n: int) -> list[tuple[int, ...]]:
    """The ``n`` strongest, the strongest first."""
    return [packs[i] for i in np.argsort(-strength, kind="stable")[:n]]
