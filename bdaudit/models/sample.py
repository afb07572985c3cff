"""Pictures and trajectories: deterministic, batched, a seed an item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.models.conditioning import Conditioning
from bdaudit.models.suspect import Suspect

SPACING = 1.3
"""Exponent of the timesteps' spacing; above 1 they lie closer towards the picture. On the fixtures 12 steps at 1.3 come as close to a
60-step solver's pictures as 20 evenly spaced ones do, in the grader's features."""


def guided(suspect: Suspect, latents: Tensor, t: Tensor, heard: Conditioning, empty: Conditioning, scale: float) -> Tensor:
    """Classifier-free guidance (2207.12598, equation 6), both halves in one batch.

    One pass under the prompt alone where the scale is 1 or less, or the denoiser takes it as an input, as in the stock pipeline.
    """
    if scale <= 1 or suspect.denoiser.guidance != "classifier-free":
        return suspect.predict_batched(latents, t, heard, scale)
    both = Conditioning.cat([empty.expand(len(heard)), heard])
    unconditional, conditional = suspect.predict_batched(latents.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True)
class Trajectory:
    """Latents on the way from noise to picture."""

    timesteps: Tensor
    """(T,), descending."""
    latents: Tensor
    """(T, B, C, H, W): what the denoiser sees at each timestep."""
    final: Tensor
    """(B, C, H, W), clean."""

    def rows(self) -> tuple[Tensor, Tensor]:
        """Every latent by itself (T·B, C, H, W), all of a timestep in a row, and their timesteps (T·B,)."""
        return self.latents.flatten(0, 1), self.timesteps.repeat_interleave(self.latents.shape[1])


@torch.no_grad()
def denoise(
    suspect: Suspect,
    heard: Conditioning,
    noise: Tensor,
    *,
    steps: int,
    guidance_scale: float,
    spacing: float = SPACING,
    until: int | None = None,
) -> Trajectory:
    """From ``noise`` (B, C, H, W) under B texts to clean latents; ``until`` stops after so many steps."""
    empty = suspect.unconditional()
    timesteps = suspect.schedule.times(steps, spacing).to(suspect.device)
    latents, seen = noise, []
    for i, t in enumerate(timesteps[:until]):
        seen.append(latents)
        now = t.expand(len(latents))
        output = guided(suspect, latents, now, heard, empty, guidance_scale)
        after = timesteps[i + 1].expand(len(latents)) if i + 1 < steps else None
        latents = suspect.schedule.step(latents, now, after, output)
    return Trajectory(timesteps[: len(seen)], torch.stack(seen), latents)


def trajectories(
    suspect: Suspect, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance_scale: float
) -> Iterator[Trajectory]:
    """The trajectories of N texts, a batch at a time; the i-th depends on ``texts[i]`` and ``seeds[i]`` alone."""
    size = suspect.batch_size  # a GPU that runs out of memory shrinks it on the way
    for start in range(0, len(texts), size):
        part = slice(start, start + size)
        yield denoise(suspect, suspect.encode(texts[part]), suspect.noise(seeds[part]), steps=steps, guidance_scale=guidance_scale)


def sample(suspect: Suspect, texts: Sequence[str], seeds: Sequence[int], *, steps: int, guidance_scale: float) -> Tensor:
    """Pictures, float32 on the CPU, (N, 3, H, W) in 0–1; picture i depends on ``texts[i]`` and ``seeds[i]`` alone."""
    runs = trajectories(suspect, texts, seeds, steps=steps, guidance_scale=guidance_scale)
    return torch.cat([suspect.decode(run.final) for run in runs])
