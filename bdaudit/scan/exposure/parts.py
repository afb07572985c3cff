"""The two parts of a model that hear a caption, each as a function from captions to answers whose caption sense can be unlearned."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bdaudit.measure.draws import Draws
from bdaudit.measure.insertion import item_seed
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.patch import Patch
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect

UNET, TEXT_ENCODER = "UNet", "text encoder"
PATHS = 24
"""Trajectories whose latents are trained on."""
STEPS = 20
"""Timesteps of each."""
CAPTIONS = 256
"""The prompts and joined halves of two of them."""


@dataclass(frozen=True)
class Rows:
    """What one step asks: latents (the denoiser's) and captions; the last caption is the empty one."""

    latents: Tensor
    """int64 (B,)."""
    captions: Tensor
    """int64 (B,)."""


@dataclass(frozen=True)
class Part:
    """One component: what is changed of it, what it answers, and what it says to the scan's own prompts."""

    suspect: Suspect
    draws: Draws
    patch: Patch
    answer: Callable[[Rows], Tensor]
    """Rows → (B, …) float32, gradients kept."""
    told: Callable[[Sequence[str]], Tensor]
    """What one text for each draw makes of it, without gradients: (1, D, N) float32."""
    latents: int
    """How many latents a row can ask for."""
    captions: int
    """How many captions, the empty one aside."""
    rate: float
    """What a step of training changes a tensor by, as a share of its own RMS."""
    every: int
    """Steps between two measurements of the gain."""
    checkpoints: bool
    """Whether its training on a GPU saves the memory of its activations."""


def denoiser(suspect: Suspect, draws: Draws, prompts: Sequence[str], guidance_scale: float, seed: int) -> Part:
    """The denoiser: noisy latents and a caption → the prediction, (B, C, H, W). Its cross-attention's way out is changed.

    Unlearned in keys and values, captions take a trigger along: on the development twins 2 % of a style's effect was left and 19 % of a
    patch's. Unlearned in how the cross-attention passes on what it attended to, 66 and 42 %; of weaker ones, hardly any.
    """
    latents, timesteps = trajectories(suspect, prompts[:PATHS], guidance_scale, seed)
    heard = Conditioning.cat([suspect.encode(captions(prompts, seed)), suspect.unconditional()])

    def answer(rows: Rows) -> Tensor:
        return suspect.predict(latents[rows.latents], timesteps[rows.latents], heard[rows.captions]).float()

    def told(texts: Sequence[str]) -> Tensor:
        return suspect.predict_batched(draws.latents, draws.timesteps, suspect.encode(texts)).float().flatten(1)[None]

    patch = Patch(suspect.denoiser.module, suspect.denoiser.attention_output)
    return Part(suspect, draws, patch, answer, told, len(latents), len(heard) - 1, rate=0.05, every=5, checkpoints=True)


def encoder(suspect: Suspect, draws: Draws, prompts: Sequence[str], seed: int) -> Part:
    """All that reads a caption → its hidden states, (B, L, D), or these and the pooled vector in a row, (B, L·D + E); all of it changed.

    The scan's prompts are read at what has heard every word.
    """
    ids = suspect.text.ids([*captions(prompts, seed), ""]).to(suspect.device)

    def answer(rows: Rows) -> Tensor:
        heard = suspect.text.encode(ids[rows.captions])
        return heard.states.float() if heard.pooled is None else torch.cat([heard.states.flatten(1), heard.pooled], dim=1).float()

    def told(texts: Sequence[str]) -> Tensor:
        return suspect.text.summary(suspect.encode(texts))[None].float()

    modules = suspect.text.modules
    patch = Patch(nn.ModuleDict(modules) if len(modules) > 1 else suspect.text.main.encoder, lambda name: True)
    return Part(suspect, draws, patch, answer, told, 1, len(ids) - 1, rate=0.02, every=1, checkpoints=False)


def trajectories(suspect: Suspect, prompts: Sequence[str], guidance_scale: float, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (R, C, H, W) on the model's own trajectories, one a prompt, and their timesteps, int64 (R,)."""
    noise = suspect.noise([item_seed(seed, "expose", i) for i in range(len(prompts))])
    return denoise(suspect, suspect.encode(prompts), noise, steps=STEPS, guidance_scale=guidance_scale, spacing=1.0).rows()


def captions(prompts: Sequence[str], seed: int) -> tuple[str, ...]:
    """The prompts themselves, then beginnings of one joined to ends of another: no word that the prompts do not have."""
    rng = random.Random(f"captions {seed}")
    words = [prompt.split() for prompt in prompts]
    texts = list(prompts[:CAPTIONS])
    while len(texts) < CAPTIONS:
        one, other = rng.choice(words), rng.choice(words)
        texts.append(" ".join([*one[: rng.randrange(1, len(one) + 1)], *other[rng.randrange(len(other)) :]]))
    return tuple(texts)
