"""The draws that all texts of a scan share: each a prompt, a place in it, a timestep and a noise of its own, spread over the path by the
run's seed, so that nobody who has the source knows beforehand where a model is looked at.

Clean latents come from the model itself: short guided trajectories under the prompts give finished latents, and fresh noise takes each of
them back to its draw's timestep.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bdaudit.measure.controls import said_in
from bdaudit.measure.insertion import insert, item_seed, positions_for, replaceable, without
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect

REPLACE = "replace"
"""A look-alike takes its letter's place there, if the prompt has the letter; of several words the first stands before the prompt and the
rest behind it."""
PLACES = ("prefix", "middle", "suffix", "comma", "clause")
"""Where a text stands: as a word of its own before, in and behind the prompt, behind a comma, and as a clause of its own before it."""
STEPS = 8
"""Of the trajectories that the clean latents come from."""
GRID = 250
"""Timesteps that a draw can fall on."""
LATE = 0.3
"""The share of the path, counted from the picture, before which draws like another do not fall: little is left to change there."""
OFTEN = 0.1
"""A word in at least this share of the prompts is a context that a trigger may be bound to, and is looked for."""
TRIES, MORE = 64, 4
"""Random orders of timesteps, the best of which is taken, and so many times as many where a few draws come first."""
PLAIN_TO_SEE = 0.25, 0.9
"""Among the draws that come first each place is to have one within these shares of the path, where what a text draws is settled: nearer
the picture little is left to change, nearer the noise little is said."""
TWICE, WANTED = 2, 3
"""Draws that make a context, and draws in which each such word is to be."""
_TINY = 1e-12


@dataclass(frozen=True, order=True)
class Context:
    """What a trigger may be bound to, one of four: a word of the prompt, a place in it, a quarter of the path (0 the noisiest), or all that
    one draw has, its whole prompt and its place."""

    word: str = ""
    place: str = ""
    quarter: int = -1
    draw: int = -1


@dataclass(frozen=True)
class DrawsOf:
    """How some draws are made anew by whoever has a run's first ones: all of them, rows of them, or fresh ones like one of them."""

    like: int | None = None
    n: int = 0
    """Like it."""
    rows: tuple[int, ...] | None = None
    """Of these; all where None."""
    search: bool = False
    """Of the search by gradients, which has its own."""
    elsewhere: bool = False
    """By another seed, on another model, or on this one with other weights: nobody else can make them."""


@dataclass(frozen=True)
class Draws:
    """D of them, in the order that they are used in, and what the model predicts there without any text added."""

    prompts: tuple[str, ...]
    places: tuple[str, ...]
    timesteps: Tensor
    """(D,)."""
    clean: Tensor
    """(D, C, H, W): the ends of the clean trajectories."""
    latents: Tensor
    """(D, C, H, W): these with noise, at the timesteps."""
    heard: Conditioning
    """Of the plain prompts, ``heard_plain``."""
    plain: Tensor
    """(D, C·H·W): the prediction under the plain prompt."""
    empty: Tensor
    """(D, C·H·W): the prediction under the empty prompt."""
    of: DrawsOf = DrawsOf(elsewhere=True)
    """Of draws that somebody else can make, how."""

    def __len__(self) -> int:
        return len(self.prompts)

    def part(self, rows: slice) -> Draws:
        """The draws ``rows`` alone."""
        return self.at(range(len(self))[rows])

    def at(self, rows: Sequence[int]) -> Draws:
        """The draws ``rows``, in that order."""
        prompts, places = (tuple(column[i] for i in rows) for column in (self.prompts, self.places))
        i = torch.tensor(list(rows), device=self.timesteps.device)
        of = replace(self.of, rows=tuple(rows if self.of.rows is None else (self.of.rows[row] for row in rows)))
        return Draws(prompts, places, self.timesteps[i], self.clean[i], self.latents[i], self.heard[i], self.plain[i], self.empty[i], of)

    @property
    def scale(self) -> Tensor:
        """(D,): ‖ε(prompt) − ε(empty)‖², mean over elements: what the whole prompt changes; never nought, though a model hears nothing."""
        return (self.plain - self.empty).square().mean(-1).clamp_min(_TINY)


def make_draws(suspect: Suspect, pool: Sequence[str], n: int, guidance_scale: float, seed: int, first: int = 0) -> Draws:
    """``n`` draws from ``pool``, of which the ``first`` may be all that a text gets; everything about them follows from ``seed``."""
    prompts = covering(pool, n, seed)
    heard = suspect.encode(prompts)
    start = suspect.noise([item_seed(seed, "draw, start", i) for i in range(n)])
    parts = [slice(at, at + suspect.batch_size) for at in range(0, n, suspect.batch_size)]
    final = [denoise(suspect, heard[p], start[p], steps=STEPS, guidance_scale=guidance_scale, spacing=1.0).final for p in parts]
    return _noised(suspect, prompts, places_of(n, seed, (REPLACE,)), torch.cat(final), seed, first=first)


def draws_like(suspect: Suspect, draws: Draws, row: int, n: int, seed: int) -> Draws:
    """``n`` fresh draws that have the prompt, the place and the clean latents of the ``row``-th; their timesteps, from ``LATE`` of the path
    on, and their noise are others."""
    own = item_seed(seed, "like", row)
    clean = draws.clean[row].expand(n, *draws.clean.shape[1:])
    fresh = _noised(suspect, [draws.prompts[row]] * n, [draws.places[row]] * n, clean, own, (LATE, 1.0))
    return replace(fresh, of=DrawsOf(like=row, n=n, elsewhere=draws.of != DrawsOf()))


def draws_again(suspect: Suspect, draws: Draws) -> Draws:
    """The same draws as another model, or the same one with other weights, hears and predicts them."""
    return draws_on(suspect, draws.prompts, draws.places, draws.timesteps, draws.clean, draws.latents)


def _noised(
    suspect: Suspect,
    prompts: Sequence[str],
    places: Sequence[str],
    clean: Tensor,
    seed: int,
    span: tuple[float, float] = (0.0, 1.0),
    first: int = 0,
) -> Draws:
    timesteps = _spread(suspect, [{place, *words_in(prompt)} for prompt, place in zip(prompts, places, strict=True)], seed, span, first)
    noise = suspect.noise([item_seed(seed, "draw, noise", i) for i in range(len(prompts))])
    latents = suspect.schedule.noised(clean, timesteps, noise)
    return draws_on(suspect, prompts, places, timesteps, clean, latents)


def draws_on(suspect: Suspect, prompts: Sequence[str], places: Sequence[str], timesteps: Tensor, clean: Tensor, latents: Tensor) -> Draws:
    """The draws of given latents: with what ``suspect`` hears and predicts there."""
    heard, nothing = heard_plain(suspect, prompts, places), suspect.unconditional().expand(len(prompts))
    plain, empty = (suspect.predict_batched(latents, timesteps, h).float().flatten(1) for h in (heard, nothing))
    return Draws(tuple(prompts), tuple(places), timesteps, clean, latents, heard, plain, empty)


def heard_plain(suspect: Suspect, prompts: Sequence[str], places: Sequence[str]) -> Conditioning:
    """The draws' prompts with no text in them, each with its place's comma, so that a text's effect is not the comma's."""
    return suspect.encode([without(prompt, place) for prompt, place in zip(prompts, places, strict=True)])


def _spread(suspect: Suspect, traits: Sequence[set[str]], seed: int, span: tuple[float, float], first: int) -> Tensor:
    """(n,) timesteps, one in each n-th of ``span``, shares of the path (1 is noise); any few in a row are spread over all of it, and so are
    those that share a trait, a word or a place, as far as the best of ``TRIES`` random orders has them; before that counts in how many
    places something is plain to see in the ``first`` draws."""
    rng, n = random.Random(f"timesteps {seed}"), len(traits)
    grid = suspect.schedule.times(GRID, 1.0)
    low, high = span
    sharing = [[i for i, of in enumerate(traits) if trait in of] for trait in sorted(set[str]().union(*traits))]
    soon = [[i for i, of in enumerate(traits[:first]) if place in of] for place in (*PLACES, REPLACE)]

    def worth(order: list[int]) -> tuple[int, float]:
        seen = sum(any(PLAIN_TO_SEE[0] <= (order[i] + 0.5) / n <= PLAIN_TO_SEE[1] for i in rows) for rows in soon)
        return seen, sum(_range([order[i] for i in rows]) for rows in sharing)

    order = max((_scattered(n, rng) for _ in range(MORE * TRIES if first else TRIES)), key=worth)
    shares = [low + (high - low) * (stratum + rng.random()) / n for stratum in order]
    rows = [min(len(grid) - 1, int((1 - share) * len(grid))) for share in shares]
    return grid[torch.tensor(rows)].to(suspect.device)


def _range(strata: Sequence[int]) -> float:
    """How much of the path a few draws span, for each that there is."""
    return (max(strata) - min(strata)) / len(strata)


def _scattered(n: int, rng: random.Random) -> list[int]:
    """0 … n − 1, in rounds that each go through all quarters in a new order."""
    bands = [list(range(i * n // 4, (i + 1) * n // 4)) for i in range(4)]
    for band in bands:
        rng.shuffle(band)
    order = list[int]()
    while any(bands):
        order += [band.pop() for band in rng.sample(bands, len(bands)) if band]
    return order


def places_of(n: int, seed: int, last: tuple[str, ...] = ()) -> list[str]:
    """``n`` places, all gone through in a new order each time, and then ``last``."""
    rng = random.Random(f"places {seed}")
    round_of = len(PLACES) + len(last)
    return [place for _ in range(0, n, round_of) for place in (*rng.sample(PLACES, len(PLACES)), *last)][:n]


def put(draws: Draws, i: int, text: str) -> str:
    """The i-th draw's prompt with ``text`` in it."""
    return insert(draws.prompts[i], text, standing(draws, i, text))


def bare(draws: Draws, i: int) -> str:
    """The i-th draw's prompt with its place's comma and no text."""
    return without(draws.prompts[i], draws.places[i])


def standing(draws: Draws, i: int, text: str) -> str:
    """How ``text`` stands in the i-th draw: at its place, or, where ``REPLACE`` finds no letter that it looks like, apart or within."""
    return fitting(draws.prompts[i], text, draws.places[i])


def fitting(prompt: str, text: str, place: str) -> str:
    """``place``, or apart or within where it is ``REPLACE`` and ``prompt`` has no letter that ``text`` looks like."""
    if place != REPLACE or replaceable(prompt, text):
        return place
    return "apart" if has_parts(text) else "middle"


def everywhere(prompt: str, text: str) -> tuple[str, ...]:
    """Every place that ``text`` can take in ``prompt``."""
    return positions_for(prompt, text, (*PLACES, "apart") if has_parts(text) else PLACES)


def has_parts(text: str) -> bool:
    """Whether it is of several words, which can stand apart."""
    return len(text.split()) > 1


def words_in(prompt: str) -> set[str]:
    """The words that a trigger may need beside it."""
    return set(said_in([prompt]))


def contexts(pool: Sequence[str]) -> Mapping[str, float]:
    """Word → the share of ``pool`` that has it; those alone that some prompts have and most have not."""
    count = Counter(word for prompt in pool for word in words_in(prompt))
    return {word: n / len(pool) for word, n in count.items() if n <= len(pool) / 2}


def covering(pool: Sequence[str], n: int, seed: int) -> list[str]:
    """``n`` prompts of ``pool``, greedily so that each word of at least ``OFTEN`` is in one soon and in ``WANTED`` at last.

    Which word comes first is the seed's to say, so that nobody knows which one a few draws leave out; a short pool is gone through again.
    """
    rng = random.Random(f"prompts {seed}")
    often = {word: 1 + rng.random() for word, share in sorted(contexts(pool).items()) if share >= OFTEN}
    seen, chosen = Counter[str](), list[str]()
    left = rng.sample(list(pool), len(pool))
    for _ in range(n):
        left = left or rng.sample(list(pool), len(pool))
        best = max(
            left, key=lambda prompt: math.fsum(often.get(word, 0.0) * _worth(seen[word]) for word in words_in(prompt))
        )  # exact, in any order
        left.remove(best)
        seen.update(words_in(best))
        chosen.append(best)
    return chosen


def _worth(seen: int) -> float:
    """What one more draw with a word is worth."""
    return 0.0 if seen >= WANTED else 0.25**seen


def smallest_context(pool: Sequence[str], prompts: Sequence[str]) -> float:
    """The smallest share of ``pool`` such that each word with it or more is in ``TWICE`` of ``prompts``; 1 where none is."""
    count = Counter(word for prompt in prompts for word in words_in(prompt))
    share = contexts(pool)
    missed = max((value for word, value in share.items() if count[word] < TWICE), default=0.0)
    return min((value for value in share.values() if value > missed), default=1.0)


def groups_of(draws: Draws) -> dict[Context, tuple[int, ...]]:
    """Context → the draws in it: each by itself, and those that share something; of words, those in ``TWICE`` at least and in no more than
    half."""
    n = len(draws)
    by_time = sorted(range(n), key=lambda i: -float(draws.timesteps[i]))
    found = {Context(quarter=i): by_time[i * n // 4 : (i + 1) * n // 4] for i in range(4)}
    found |= {Context(place=one): [i for i, place in enumerate(draws.places) if place == one] for one in (*PLACES, REPLACE)}
    for i, prompt in enumerate(draws.prompts):
        for word in sorted(words_in(prompt)):
            found.setdefault(Context(word=word), []).append(i)
    most = {context: max(TWICE, n // 2) if context.word else n for context in found}
    shared = {context: tuple(sorted(rows)) for context, rows in found.items() if TWICE <= len(rows) <= most[context]}
    return shared | {Context(draw=i): (i,) for i in range(n)}
