"""Pictures and trajectories: deterministic DDIM, batched, a seed an item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.pipeline.suspect import Suspect

SPACING = 1.3
"""Exponent of the timesteps' spacing; above 1 they lie closer towards the picture. On the fixtures 12 steps at 1.3 come as close to a
60-step solver's pictures as 20 evenly spaced ones do, in the grader's features."""


def ddim_timesteps(suspect: Suspect, steps: int, spacing: float = SPACING) -> Tensor:
    """Descending timesteps, different ones, the first the noisiest: int64 (steps,). A ``spacing`` of 1 is even."""
    total = int(suspect.scheduler.config.num_train_timesteps)
    shares = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
    times = (shares**spacing * total).round().long().clamp(1, total) - 1
    return torch.maximum(times, torch.arange(steps - 1, -1, -1)).to(suspect.device)


def guided(suspect: Suspect, latents: Tensor, t: Tensor, states: Tensor, empty: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (2207.12598, equation 6), both halves in one batch.

    One pass under the prompt alone where the scale is 1 or less, or the UNet takes it as an embedding, as in the stock pipeline.
    """
    if scale <= 1 or suspect.embeds_guidance:
        return suspect.predict_batched(latents, t, states, scale)
    both = suspect.predict_batched(torch.cat([latents, latents]), torch.cat([t, t]), torch.cat([empty.expand_as(states), states]))
    unconditional, conditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def ddim_step(suspect: Suspect, latents: Tensor, t: int, following: int, output: Tensor) -> Tensor:
    """One step of DDIM with η = 0 (2010.02502, equation 12) from timestep ``t`` to ``following`` (−1 is clean)."""
    ones = torch.full((len(latents),), t, device=suspect.device)
    x0 = suspect.clean_estimate(latents, ones, output)
    alpha = suspect.alphas_cumprod(ones)
    noise = (latents.float() - alpha.sqrt() * x0) / (1 - alpha).sqrt()
    if following < 0:
        return x0.to(latents.dtype)
    after = suspect.alphas_cumprod(torch.full_like(ones, following))
    return (after.sqrt() * x0 + (1 - after).sqrt() * noise).to(latents.dtype)


@dataclass(frozen=True)
class Trajectory:
    """Latents on the way from noise to picture."""

    timesteps: Tensor
    """int64 (T,), descending."""
    latents: Tensor
    """(T, B, C, H, W): what the UNet sees at each timestep."""
    final: Tensor
    """(B, C, H, W), clean."""


@torch.no_grad()
def denoise(
    suspect: Suspect,
    states: Tensor,
    noise: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    spacing: float = SPACING,
    until: int | None = None,
) -> Trajectory:
    """Run DDIM from ``noise`` (B, C, H, W) under hidden states (B, L, D); ``until`` stops after so many steps."""
    empty = suspect.encode([""])
    timesteps = ddim_timesteps(suspect, steps, spacing)
    latents, seen = noise, []
    for i, t in enumerate(timesteps.tolist()[:until]):
        seen.append(latents)
        batch_t = torch.full((len(latents),), t, device=suspect.device)
        output = guided(suspect, latents, batch_t, states, empty, guidance_scale)
        following = int(timesteps[i + 1]) if i + 1 < steps else -1
        latents = ddim_step(suspect, latents, t, following, output)
    return Trajectory(timesteps[: len(seen)], torch.stack(seen), latents)


@torch.no_grad()
def sample(
    suspect: Suspect,
    texts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    tick: Callable[[int], None] | None = None,
) -> Tensor:
    """Pictures, float32 on the CPU, (N, 3, H, W) in 0–1; picture i depends on ``texts[i]`` and ``seeds[i]`` alone."""
    pictures: list[Tensor] = []
    size = max(1, suspect.batch_size)
    for start in range(0, len(texts), size):
        states = suspect.encode(texts[start : start + size])
        noise = suspect.noise(seeds[start : start + size])
        final = denoise(suspect, states, noise, steps=steps, guidance_scale=guidance_scale).final
        pictures.append(suspect.decode(final))
        if tick:
            tick(len(states))
    return torch.cat(pictures)
