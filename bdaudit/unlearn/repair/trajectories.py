"""On-distribution latents: the poisoned model's own trajectories, with the trigger and without, guided and not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.models.sample import trajectories
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import Pair

STEPS = 20


@dataclass(frozen=True)
class Latents:
    """Latents to train on: row r belongs to pair ``pair[r]`` at timestep ``t[r]``."""

    z: Tensor
    """(R, C, H, W)."""
    t: Tensor
    """int64 (R,)."""
    pair: Tensor
    """int64 (R,)."""


def collect(suspect: Suspect, pairs: Sequence[Pair], *, guidance_scale: float, seed: int) -> Latents:
    """Every timestep of one trajectory a pair: a third each under the clean text, under the triggered text, and unguided."""
    found = []
    for kind in range(3):
        rows = list(range(kind, len(pairs), 3))
        texts = [pairs[i].changed if kind == 1 else pairs[i].clean for i in rows]
        scale = 1.0 if kind == 2 else guidance_scale
        seeds, left = [item_seed(seed, "unlearn", i) for i in rows], torch.tensor(rows, device=suspect.device)
        for run in trajectories(suspect, texts, seeds, steps=STEPS, guidance_scale=scale):
            own, left = left[: len(run.final)], left[len(run.final) :]
            found.append((*run.rows(), own.repeat(STEPS)))
    return Latents(*(torch.cat(column) for column in zip(*found, strict=True)))
