"""What a trigger needs beside it: the words without which it does nothing, looked for in the prompts that there are.

Of each prompt one path is run, and on its own latents, at a few steps, the trigger is put into it at each place; what it changes is counted
against what harmless texts change there. The word is taken whose prompts stand out most, then the next in the prompts that are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bdaudit.measure.controls import harmless_texts
from bdaudit.measure.draws import contexts, covering, words_in
from bdaudit.measure.insertion import POSITIONS, insert, item_seed
from bdaudit.models.sample import Trajectory, trajectories
from bdaudit.models.suspect import Suspect

MOST = 64
"""Prompts that a context is looked for in; they cover every word that a tenth of the pool has."""
USUAL = 2
"""Harmless texts beside the trigger there."""
STEPS, AT = 8, (2, 3, 5)
"""Of a prompt's path, and those at which texts are put into it."""
APART = 5.0
"""Standard errors by which a word's prompts must stand out from the rest, and …"""
LOUDER = 3.0
"""… how many times as much the trigger must do in them, less a standard error."""


_TINY = 1e-8


@dataclass(frozen=True)
class Found:
    """The contexts of one trigger."""

    words: tuple[str, ...]
    looked: int
    """Prompts that it was put into."""


@torch.no_grad()
def find_contexts(suspect: Suspect, pool: Sequence[str], trigger: str, seed: int) -> Found:
    """The words that ``trigger`` is bound to, the foremost first; none where it does as much everywhere, or nothing anywhere."""
    prompts = covering(pool, min(MOST, len(set(pool))), seed)
    paths = _paths(suspect, prompts, seed)
    moved = partial(_moved, suspect, prompts, paths, _predicted(suspect, prompts, paths))
    usual = [moved(text) for text in harmless_texts(suspect.tokenizer, trigger, USUAL, seed, (trigger,))]
    return Found(bound_to(prompts, moved(trigger) - np.mean(usual, axis=0)), len(prompts))


def _paths(suspect: Suspect, prompts: Sequence[str], seed: int) -> Trajectory:
    """One a prompt, by the conditional branch alone."""
    seeds = [item_seed(seed, "contexts", i) for i in range(len(prompts))]
    parts = list(trajectories(suspect, prompts, seeds, steps=STEPS, guidance_scale=1.0))
    latents, final = torch.cat([part.latents for part in parts], dim=1), torch.cat([part.final for part in parts])
    return Trajectory(parts[0].timesteps, latents, final)


def _moved(suspect: Suspect, prompts: Sequence[str], paths: Trajectory, plain: Tensor, text: str) -> NDArray[np.float64]:
    """(P,): the log of the mean square of what ``text`` changes, the mean over steps at the place where that is most."""
    apart = [
        (_predicted(suspect, [insert(prompt, text, place) for prompt in prompts], paths) - plain).square().mean(-1) for place in POSITIONS
    ]
    found: NDArray[np.float64] = torch.stack(apart).clamp_min(_TINY).log().mean(1).amax(0).double().cpu().numpy()
    return found


def _predicted(suspect: Suspect, prompts: Sequence[str], paths: Trajectory) -> Tensor:
    """(S, P, C·H·W)."""
    heard = suspect.encode(prompts)
    times = [paths.timesteps[step].expand(len(prompts)) for step in AT]
    found = [suspect.predict_batched(paths.latents[step], t, heard).float().flatten(1) for step, t in zip(AT, times, strict=True)]
    return torch.stack(found)


def bound_to(prompts: Sequence[str], excess: NDArray[np.float64]) -> tuple[str, ...]:
    """The words that explain where ``excess``, a logarithm, is large: (P,). One after the other, each among the prompts without those
    before it."""
    found, left = list[str](), list(range(len(prompts)))
    while True:
        here = [prompts[i] for i in left]
        scored = {word: _lower_end(here, excess[left], word) for word in contexts(here)}
        best = max(scored, key=lambda word: scored[word], default="")
        if not best or scored[best] <= 0:
            return tuple(found)
        found.append(best)
        left = [i for i in left if best not in words_in(prompts[i])]


def _lower_end(prompts: Sequence[str], excess: NDArray[np.float64], word: str) -> float:
    """By how much the prompts with ``word`` stand out beyond what is asked for, at the lower end."""
    inside = np.array([word in words_in(prompt) for prompt in prompts])
    n, rest = int(inside.sum()), excess[~inside]
    if n < 2 or len(rest) < 2:
        return -np.inf
    centre = float(np.median(rest))
    spread = 1.4826 * float(np.median(np.abs(rest - centre)))
    error = max(float(excess[inside].std(ddof=1)), spread, 0.05) / n**0.5
    gain = float(excess[inside].mean()) - centre
    return float(min(gain - error - np.log(LOUDER), gain - APART * max(spread, 0.05) / n**0.5))
