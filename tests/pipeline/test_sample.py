"""Sampling against diffusers' own scheduler and the closed form, and its independence of order and batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from bdaudit.pipeline.sample import ddim_step, ddim_timesteps, denoise, guided, sample
from bdaudit.pipeline.suspect import Suspect
from tests.small import PROMPTS


def with_scheduler(suspect: Suspect, prediction: str) -> Suspect:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=True,
        timestep_spacing="trailing", prediction_type=prediction,
    )  # fmt: skip
    return replace(suspect, scheduler=scheduler)


def fake_output(latents: Tensor, t: int) -> Tensor:
    return torch.tanh(latents.roll(1, -1)) * (0.5 + t / 1000)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [10, 50])
def test_evenly_spaced_it_is_the_stock_scheduler(tiny_suspect: Suspect, prediction: str, steps: int) -> None:
    suspect = with_scheduler(tiny_suspect, prediction)
    suspect.scheduler.set_timesteps(steps)
    mine = stock = suspect.noise([1, 2])
    times = suspect.scheduler.timesteps.tolist()
    for t, following in zip(times, [*times[1:], -1], strict=True):
        mine = ddim_step(suspect, mine, t, following, fake_output(mine, t))
        stock = suspect.scheduler.step(fake_output(stock, t), t, stock, eta=0.0).prev_sample
        assert torch.allclose(mine, stock, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 12, 50, 999, 1000])
def test_timesteps_fall_from_the_noisiest_ever_more_slowly(tiny_suspect: Suspect, steps: int) -> None:
    times = ddim_timesteps(tiny_suspect, steps)
    assert times[0] == 999
    assert times[-1] >= 0
    assert (times[:-1] > times[1:]).all(), "all different"
    if 2 < steps < 100:
        assert times[0] - times[1] > times[-2] - times[-1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_clean_estimate_inverts_the_noising(tiny_suspect: Suspect, prediction: str) -> None:
    suspect = with_scheduler(tiny_suspect, prediction)
    x0, noise = suspect.noise([1, 2, 3]), suspect.noise([4, 5, 6])
    t = torch.tensor([0, 400, 999])
    alpha = suspect.alphas_cumprod(t)
    noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    output = noise if prediction == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    assert torch.allclose(suspect.clean_estimate(noisy, t, output), x0, atol=1e-3)


def test_the_last_step_is_the_clean_estimate_and_finite_at_zero(tiny_suspect: Suspect) -> None:
    z, output = tiny_suspect.noise([1]), tiny_suspect.noise([2])
    last = ddim_step(tiny_suspect, z, 0, -1, output)
    assert torch.equal(last, tiny_suspect.clean_estimate(z, torch.tensor([0]), output))
    assert torch.isfinite(last).all()


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
    assert whole.timesteps.tolist() == ddim_timesteps(tiny_suspect, 4).tolist()
    assert torch.equal(part.latents, whole.latents[:2])
    assert torch.equal(part.final, whole.latents[2])


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


def test_tick_hears_of_every_picture(tiny_suspect: Suspect) -> None:
    heard: list[int] = []
    sample(replace(tiny_suspect, batch_size=3), PROMPTS, range(4), steps=1, guidance_scale=1, tick=heard.append)
    assert heard == [3, 1]
