"""Same-seed pairs, compared where they are made: final latents with and without a text, before and after a repair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdaudit.measure.insertion import insert, item_seed, positions_for
from bdaudit.models.sample import trajectories
from bdaudit.models.suspect import Suspect

STEPS = 6


def final_latents(suspect: Suspect, texts: Sequence[str], seeds: Sequence[int], guidance_scale: float = 1.0, steps: int = STEPS) -> Tensor:
    """The latents of finished pictures, text i under seed i: float32 (N, C·H·W).

    By the conditional branch alone unless a guidance scale says otherwise: pictures with and without a text then part less, those of
    harmless texts most of all, so that more of a trigger's stand out (32 of 44 of an object's, where 12 guided steps showed 20).
    """
    runs = trajectories(suspect, texts, seeds, steps=steps, guidance_scale=guidance_scale)
    return torch.cat([run.final.float().flatten(1) for run in runs])


def rotate(prompts: Sequence[str], n: int, seed: int) -> tuple[list[str], list[int]]:
    """``n`` prompts in turn, each with a seed of its own."""
    return [prompts[i % len(prompts)] for i in range(n)], [item_seed(seed, "picture", i) for i in range(n)]


def with_text(prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Text i (in turn) in prompt i, at a position drawn from those it can take, so that none is tied to a prompt."""
    changed = []
    for i, prompt in enumerate(prompts):
        text = texts[i % len(texts)]
        where = positions_for(prompt, text)
        changed.append(insert(prompt, text, where[item_seed(0, "position", i) % len(where)]))
    return changed


def distances(a: Tensor, b: Tensor) -> Tensor:
    """RMS difference of each pair: (N, D) twice → (N,)."""
    return (a - b).square().mean(1).sqrt()
