"""Sampling: guidance by its closed form, and a picture that depends on neither order nor batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from bdaudit.models.sample import SPACING, denoise, guided, sample
from bdaudit.models.suspect import Suspect
from tests.small import PROMPTS


def test_guidance_of_one_or_less_is_the_prompt_alone(tiny_suspect: Suspect) -> None:
    z, t = tiny_suspect.noise([1]), torch.tensor([500])
    states, empty = tiny_suspect.encode(["a red cat"]), tiny_suspect.encode([""])
    prompt, nothing = tiny_suspect.predict_batched(z, t, states), tiny_suspect.predict_batched(z, t, empty)
    for scale in (0, 0.5, 1):
        assert torch.allclose(guided(tiny_suspect, z, t, states, empty, scale), prompt, atol=1e-6)
    assert torch.allclose(guided(tiny_suspect, z, t, states, empty, 3), nothing + 3 * (prompt - nothing), atol=1e-4)


def test_the_trajectory_starts_at_the_noise_and_stops_where_told(tiny_suspect: Suspect) -> None:
    noise, states = tiny_suspect.noise([1, 2]), tiny_suspect.encode(PROMPTS[:2])
    whole = denoise(tiny_suspect, states, noise, steps=4, guidance_scale=3)
    part = denoise(tiny_suspect, states, noise, steps=4, guidance_scale=3, until=2)
    assert torch.equal(whole.latents[0], noise)
    assert whole.timesteps.tolist() == tiny_suspect.schedule.times(4, SPACING).tolist()
    assert torch.equal(part.latents, whole.latents[:2])
    assert torch.equal(part.final, whole.latents[2])


def test_a_trajectorys_rows_are_its_latents_with_their_timesteps(tiny_suspect: Suspect) -> None:
    run = denoise(tiny_suspect, tiny_suspect.encode(PROMPTS), tiny_suspect.noise(range(4)), steps=5, guidance_scale=2.0, until=3)
    latents, timesteps = run.rows()
    for row, at in ((0, (0, 0)), (3, (0, 3)), (6, (1, 2)), (11, (2, 3))):
        assert torch.equal(latents[row], run.latents[at])
        assert timesteps[row] == run.timesteps[at[0]]
    assert len(latents) == len(timesteps) == 12


def test_a_picture_depends_on_its_text_and_seed_alone(tiny_suspect: Suspect) -> None:
    texts, seeds = [*PROMPTS, *PROMPTS], list(range(8))
    options: dict[str, Any] = {"steps": 3, "guidance_scale": 3.0}
    alone = torch.cat([sample(tiny_suspect, [text], [seed], **options) for text, seed in zip(texts, seeds, strict=True)])
    for size in (1, 3, 64):
        suspect = replace(tiny_suspect, batch_size=size)
        assert torch.allclose(sample(suspect, texts, seeds, **options), alone, atol=1e-4)
        backwards = sample(suspect, texts[::-1], seeds[::-1], **options)
        assert torch.allclose(backwards.flip(0), alone, atol=1e-4)
    assert alone.shape == (8, 3, 4, 4)
    assert alone.min() >= 0
    assert alone.max() <= 1
    assert (alone[0] - alone[4]).abs().max() > 1e-3, "another seed gives another picture"
