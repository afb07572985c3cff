"""Where a trigger's own tokens look: their share of cross-attention over the picture, halfway through denoising."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bdaudit.models.attention import recorded
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.verify.gallery import Pair


@torch.no_grad()
def trigger_attention(suspect: Suspect, pairs: Sequence[Pair], steps: int, guidance_scale: float) -> Tensor:
    """The share of attention that goes to what each triggered text has and its clean one has not, (N, h, w) in 0–1.

    Of the layers with the finest map, averaged over them and their heads.
    """
    texts, seeds = [changed.text for _, changed in pairs], [changed.seed for _, changed in pairs]
    heard = suspect.encode(texts)
    halfway = denoise(suspect, heard, suspect.noise(seeds), steps=steps, guidance_scale=guidance_scale, until=steps // 2 + 1)
    t = halfway.timesteps[-1].expand(len(texts))
    with recorded(suspect.denoiser.sites()) as recording:
        suspect.predict(halfway.latents[-1], t, heard)
    found = list(recording.latest().values())
    finest = max(layer.shape[1] for layer in found)
    maps = torch.stack([layer for layer in found if layer.shape[1] == finest]).mean(0).cpu()
    own = [suspect.text.own_positions(clean.text, changed.text) for clean, changed in pairs]
    rows = _rows(suspect.denoiser.latent_shape, finest)
    return torch.stack([m[:, at].sum(1).view(rows, -1) for m, at in zip(maps, own, strict=True)])


def _rows(latent: tuple[int, int, int], places: int) -> int:
    """How many rows a map of so many places has: a latent's, halved with its columns, an odd one upwards, until they fit."""
    _, height, width = latent
    while height * width > places:
        height, width = -(-height // 2), -(-width // 2)
    return height


def coloured(heat: Tensor, most: float) -> Tensor:
    """Maps (N, h, w) as pictures (N, 3, h, w): black for nought, over red and yellow, to white for ``most``."""
    share = (heat / max(most, 1e-9)).clamp(0, 1)[:, None]
    return torch.cat([(3 * share - k).clamp(0, 1) for k in range(3)], 1)
