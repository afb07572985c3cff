"""Whole trajectories with and without a text, from the same noise: a backdoor must change the picture, whatever timesteps it hides from.

All texts are followed along the same few, so that each is told from what others do there: now and then a picture tips over whatever is
added, and a text on paths of its own choosing would stand beside others' luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.draws import Draws, put
from bdaudit.measure.insertion import item_seed
from bdaudit.measure.text_effects import log_common
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect

_TINY = 1e-8


@dataclass(frozen=True)
class PathEffect:
    """Of one text."""

    shift: tuple[float, ...]
    """By path: log of ‖z(prompt + text) − z(prompt)‖² over what the whole prompt changes, z being the end latents."""
    common: float
    """log of the mean square of the mean change over paths, as on single steps."""


@dataclass(frozen=True)
class Paths:
    """What all texts share: the end latents under the plain prompts and under none, one path a draw."""

    draws: Draws
    noise: Tensor
    """(D, C, H, W)."""
    plain: Tensor
    """(D, C·H·W)."""
    scale: Tensor
    """(D,): the mean square of what the prompt changes."""
    steps: int


def make_paths(suspect: Suspect, draws: Draws, steps: int, seed: int) -> Paths:
    """One path a draw of ``draws``, of ``steps`` steps by the conditional branch alone; the noise follows from ``seed``."""
    noise = suspect.noise([item_seed(seed, "path", i) for i in range(len(draws))])
    plain, empty = (_ends(suspect, noise, heard, steps) for heard in (draws.heard, suspect.unconditional().expand(len(draws))))
    return Paths(draws, noise, plain, (plain - empty).square().mean(-1), steps)


def path_effects(suspect: Suspect, paths: Paths, texts: Sequence[str]) -> list[PathEffect]:
    """Each text along all of ``paths``."""
    n = len(paths.draws)
    prompts = [put(paths.draws, i, text) for text in texts for i in range(n)]
    ends = _ends(suspect, paths.noise.repeat(len(texts), 1, 1, 1), suspect.encode(prompts), paths.steps)
    delta = (torch.unflatten(ends, 0, (len(texts), n)) - paths.plain) / paths.scale.sqrt()[:, None]
    shift, common = delta.square().mean(-1).clamp_min(_TINY).log(), log_common(delta)
    return [PathEffect(tuple(row), one) for row, one in zip(shift.double().tolist(), common.double().tolist(), strict=True)]


def _ends(suspect: Suspect, noise: Tensor, heard: Conditioning, steps: int) -> Tensor:
    """(B, C·H·W): end latents."""
    parts = [slice(at, at + suspect.batch_size) for at in range(0, len(noise), suspect.batch_size)]
    ends = [denoise(suspect, heard[part], noise[part], steps=steps, guidance_scale=1.0, spacing=1.0).final for part in parts]
    return torch.cat(ends).float().flatten(1)
