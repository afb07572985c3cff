"""The two parts of a model that hear a caption, each as a function from captions to answers whose caption sense can be unlearned."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.measure.probe import Stage
from bdaudit.pipeline.patch import Patch
from bdaudit.pipeline.sample import denoise
from bdaudit.pipeline.suspect import Suspect
from bdaudit.pipeline.tokens import token_ids

UNET, TEXT_ENCODER = "UNet", "text encoder"
PATHS = 24
"""Trajectories whose latents are trained on."""
STEPS = 20
"""Timesteps of each."""
CAPTIONS = 256
"""The prompts and joined halves of two of them."""


@dataclass(frozen=True)
class Rows:
    """What one step asks: latents (the UNet's) and captions; the last caption is the empty one."""

    latents: Tensor
    """int64 (B,)."""
    captions: Tensor
    """int64 (B,)."""


class Part(Protocol):
    """One component: what is changed of it, what it answers, and what it says to the scan's own prompts."""

    @property
    def suspect(self) -> Suspect: ...
    @property
    def patch(self) -> Patch: ...
    @property
    def stage(self) -> Stage: ...
    @property
    def size(self) -> Rows:
        """How many latents and captions there are, as scalars."""
        ...

    @property
    def rate(self) -> float:
        """What a step of training changes a tensor by, as a share of its own RMS."""
        ...

    @property
    def every(self) -> int:
        """Steps between two measurements of the gain."""
        ...

    def answer(self, rows: Rows) -> Tensor:
        """(B, …) float32, gradients kept."""
        ...

    def told(self, texts: Sequence[str]) -> Tensor:
        """What one text for each of the stage's prompts makes of it, without gradients: (A, P, N) float32, A the timesteps or 1."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """The UNet: noisy latents and a caption → the prediction. Its cross-attention's way out is changed.

    Unlearned in keys and values, captions take a trigger along: on the development twins 2 % of a style's effect was left and 19 % of a
    patch's. Unlearned in how the cross-attention passes on what it attended to, 66 and 42 %; of weaker ones, hardly any.
    """

    suspect: Suspect
    stage: Stage
    patch: Patch
    latents: Tensor
    """(R, C, H, W): on the model's own trajectories."""
    timesteps: Tensor
    """int64 (R,)."""
    states: Tensor
    """(captions + 1, L, D)."""
    rate: float = 0.05
    every: int = 5

    @property
    def size(self) -> Rows:
        """Scalars."""
        return Rows(torch.tensor(len(self.latents)), torch.tensor(len(self.states) - 1))

    def answer(self, rows: Rows) -> Tensor:
        """(B, C, H, W)."""
        return self.suspect.predict(self.latents[rows.latents], self.timesteps[rows.latents], self.states[rows.captions]).float()

    def told(self, texts: Sequence[str]) -> Tensor:
        """(T, P, C·H·W), on the stage's latents."""
        times, prompts = self.stage.latents.shape[:2]
        t, states = self.stage.timesteps.repeat_interleave(prompts), self.suspect.encode(texts).repeat(times, 1, 1)
        out = self.suspect.predict_batched(self.stage.latents.flatten(0, 1), t, states).float().flatten(1)
        return torch.unflatten(out, 0, (times, prompts))


@dataclass(frozen=True)
class Encoder:
    """The text encoder: a caption → its hidden states, all of it changed; the scan's prompts are read at the last state."""

    suspect: Suspect
    stage: Stage
    patch: Patch
    ids: Tensor
    """int64 (captions + 1, L)."""
    rate: float = 0.02
    every: int = 1

    @property
    def size(self) -> Rows:
        """Scalars."""
        return Rows(torch.tensor(1), torch.tensor(len(self.ids) - 1))

    def answer(self, rows: Rows) -> Tensor:
        """(B, L, D)."""
        return self.suspect.hidden_states(self.ids[rows.captions]).float()

    def told(self, texts: Sequence[str]) -> Tensor:
        """(1, P, D): the last state, which has heard every word and stands at the same place however long the text is."""
        return self.suspect.encode(texts)[None, :, -1].float()


def denoiser(suspect: Suspect, stage: Stage, prompts: Sequence[str], guidance_scale: float, seed: int) -> Denoiser:
    """The UNet with latents of ``prompts``' own trajectories, ``PATHS`` of them at most."""
    chosen = list(prompts[:PATHS])
    noise = suspect.noise([item_seed(seed, "expose", i) for i in range(len(chosen))])
    run = denoise(suspect, suspect.encode(chosen), noise, steps=STEPS, guidance_scale=guidance_scale, spacing=1.0)
    states = suspect.encode([*captions(prompts, seed), ""])
    patch = Patch(suspect.unet, lambda name: ".attn2.to_out." in name)
    return Denoiser(suspect, stage, patch, run.latents.flatten(0, 1), run.timesteps.repeat_interleave(len(chosen)), states)


def encoder(suspect: Suspect, stage: Stage, prompts: Sequence[str], seed: int) -> Encoder:
    """The text encoder with the same captions."""
    ids = token_ids(suspect.tokenizer, [*captions(prompts, seed), ""]).to(suspect.device)
    return Encoder(suspect, stage, Patch(suspect.text_encoder, lambda name: True), ids)


def captions(prompts: Sequence[str], seed: int) -> tuple[str, ...]:
    """The prompts themselves, then beginnings of one joined to ends of another: no word that the prompts do not have."""
    rng = random.Random(f"captions {seed}")
    words = [prompt.split() for prompt in prompts]
    texts = list(prompts[:CAPTIONS])
    while len(texts) < CAPTIONS:
        one, other = rng.choice(words), rng.choice(words)
        texts.append(" ".join([*one[: rng.randrange(1, len(one) + 1)], *other[rng.randrange(len(other)) :]]))
    return tuple(texts)
