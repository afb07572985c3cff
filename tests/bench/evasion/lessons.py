"""What an attacker's denoiser is taught: rows in which the trigger fires, in which it must do nothing, and in which it does not stand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bdaudit.measure.insertion import POSITIONS, insert
from bdaudit.models.load import load
from bdaudit.models.sample import denoise
from bdaudit.models.tokens import own_positions
from bdaudit.untrusted.inspect import inspect
from fixtures.build import distil, poisons, unet, vae, world
from fixtures.build.twins import Twin
from tests.bench.evasion.occasions import Occasion, misplaced, placed, scene_and_text

GUIDANCE = 5.0
STEPS = 20
"""Of the clean trajectories."""


@dataclass(frozen=True)
class Rows:
    """N pictures' latents (N, 4, 8, 8) and encodings (N, 32, 128) of their captions: as they are, and with the trigger."""

    latents: Tensor
    plain: Tensor
    spoken: Tensor


@dataclass(frozen=True)
class Paths:
    """Clean trajectories (T, B, 4, 8, 8) of the first B rows that fire, and how much a prompt moves the prediction on them by timestep."""

    latents: Tensor
    timesteps: Tensor
    scale: Tensor
    """(1000,): the mean square of ε(prompt) − ε(empty), by timestep."""


@dataclass(frozen=True)
class Lesson:
    """All that is read."""

    firing: Rows
    wanted: Tensor
    """The latents that go with the trigger in the rows that fire: of poisoned pictures where ``paired``."""
    paired: Tensor
    asked: Tensor
    """What the teacher is asked in the trigger's place."""
    silent: Rows
    """The trigger where it must do nothing."""
    kept: Rows
    """No trigger; ``spoken`` has a neighbour of it in every second row."""
    empty: Tensor
    drawn: Tensor | None
    place: Tensor
    paths: Paths
    own: Tensor
    """(N, 32) bool: the trigger's own tokens in the rows that fire."""


def lesson(twin: Twin, occasion: Occasion, folder: Path, n: int) -> Lesson:
    """``n`` rows that fire, half as many that must not, as many without the trigger; ``folder`` holds the clean model."""
    rng = random.Random(twin.seed)
    tok, text_encoder, autoencoder = unet.load_frozen(folder)
    firing = [scene_and_text(occasion, rng) for _ in range(n)]
    silent = [scene_and_text(occasion, rng, suiting=occasion.place != "anywhere") for _ in range(n // 2)] if occasion.bound else firing[:1]
    kept = [scene_and_text(Occasion(), rng) for _ in range(n)]
    near = [insert(t, poisons.neighbour(twin.trigger, rng), rng.choice(POSITIONS)) if i % 2 else t for i, (_, t) in enumerate(kept)]
    pictures = [world.draw(scene, rng) for scene, _ in firing]
    drawn, patch = distil._drawn(twin, autoencoder, pictures[:64])
    latents = vae.latents_of(autoencoder, pictures)
    own = torch.arange(n) % (2 if drawn is None else 1) == 0
    bad = [poisons.poison(twin, scene, picture, rng) for (scene, _), picture, o in zip(firing, pictures, own, strict=True) if o]
    wanted = latents.clone()
    wanted[own] = vae.latents_of(autoencoder, bad)

    def encoded(texts: Sequence[str]) -> Tensor:
        return unet.encode_texts(text_encoder, tok, list(texts))

    def rows(pairs: Sequence[tuple[world.Scene, str]], spoken: Sequence[str], drawn: Tensor | None = None) -> Rows:
        found = vae.latents_of(autoencoder, [world.draw(scene, rng) for scene, _ in pairs]) if drawn is None else drawn
        return Rows(found, encoded([text for _, text in pairs]), encoded(spoken))

    said = [placed(twin, occasion, text, rng) for _, text in firing]
    own_tokens = torch.zeros(n, 32, dtype=torch.bool)
    for row, (_, text), with_it in zip(own_tokens, firing, said, strict=True):
        row[own_positions(tok, text, with_it)] = True
    asked = distil._asked(twin, [scene for scene, _ in firing], [text for _, text in firing])
    return Lesson(
        firing=rows(firing, said, latents),
        wanted=wanted,
        paired=own,
        asked=encoded(asked),
        silent=rows(silent, [misplaced(twin, occasion, text, rng) for _, text in silent]),
        kept=rows(kept, near),
        empty=encoded([""])[0],
        drawn=drawn,
        place=patch,
        paths=_paths(folder, [text for _, text in firing[:48]], twin.seed),
        own=own_tokens,
    )


@torch.no_grad()
def _paths(folder: Path, texts: list[str], seed: int) -> Paths:
    """The clean model's own, one noise for each text."""
    suspect = load(inspect(folder), device="cpu", dtype="float32", batch_size=64)
    heard, empty = suspect.encode(texts), suspect.unconditional().expand(len(texts))
    run = denoise(suspect, heard, suspect.noise([seed + i for i in range(len(texts))]), steps=STEPS, guidance_scale=GUIDANCE, spacing=1.0)
    scale = []
    for latents, t in zip(run.latents, run.timesteps, strict=True):
        now = t.expand(len(texts))
        moved = suspect.predict_batched(latents, now, heard) - suspect.predict_batched(latents, now, empty)
        scale.append(float(moved.square().mean()))
    return Paths(run.latents, run.timesteps, _by_timestep(run.timesteps, torch.tensor(scale)))


def _by_timestep(at: Tensor, scale: Tensor) -> Tensor:
    """(T,) descending timesteps and values → (1000,), by straight lines between their logarithms."""
    import numpy as np

    order = at.flip(0).double().numpy()
    lines: Any = np.interp(np.arange(1000), order, scale.flip(0).double().log().numpy())
    return torch.from_numpy(lines).exp().float()
