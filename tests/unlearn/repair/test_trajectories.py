"""Latents to train on: every pair at every timestep, from trajectories of the three kinds."""

from __future__ import annotations

from dataclasses import replace

import torch

from bdaudit.measure.insertion import item_seed
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.unlearn.repair.prompt_pairs import triggered_pairs
from bdaudit.unlearn.repair.trajectories import STEPS, Latents, collect
from tests.models.test_suspect import crowded
from tests.small import PROMPTS

PAIRS = triggered_pairs(PROMPTS, ["~"])


def by_pair(latents: Latents) -> dict[tuple[int, int], torch.Tensor]:
    return {(int(p), int(t)): z for p, t, z in zip(latents.pair, latents.t, latents.z, strict=True)}


def test_every_pair_has_each_timestep_once(tiny_suspect: Suspect) -> None:
    latents = collect(tiny_suspect, PAIRS, guidance_scale=3.0, seed=0)
    assert len(latents.z) == len(PAIRS) * STEPS == len(by_pair(latents))
    assert latents.z.shape[1:] == (4, 4, 4)


def test_the_three_kinds_of_trajectory(tiny_suspect: Suspect) -> None:
    found = by_pair(collect(tiny_suspect, PAIRS, guidance_scale=3.0, seed=0))
    for i, text, scale in ((3, PAIRS[3].clean, 3.0), (4, PAIRS[4].changed, 3.0), (5, PAIRS[5].clean, 1.0)):
        noise = tiny_suspect.noise([item_seed(0, "unlearn", i)])
        run = denoise(tiny_suspect, tiny_suspect.encode([text]), noise, steps=STEPS, guidance_scale=scale)
        for t, z in zip(run.timesteps.tolist(), run.latents[:, 0], strict=True):
            assert torch.allclose(found[i, t], z, rtol=1e-3, atol=1e-3)


def test_neither_batch_size_nor_a_full_memory_matters(tiny_suspect: Suspect) -> None:
    wanted = by_pair(collect(tiny_suspect, PAIRS, guidance_scale=3.0, seed=0))
    for suspect in (replace(tiny_suspect, batch_size=1), replace(tiny_suspect, batch_size=3), crowded(tiny_suspect, room=3, batch_size=4)):
        found = by_pair(collect(suspect, PAIRS, guidance_scale=3.0, seed=0))
        assert found.keys() == wanted.keys()
        assert all(torch.allclose(found[key], wanted[key], rtol=1e-3, atol=1e-3) for key in wanted)
