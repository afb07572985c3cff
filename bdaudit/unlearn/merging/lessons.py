"""What the contributors teach the merge: their noise predictions on latents of the base's own trajectories, where no contributor steers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bdaudit.measure.insertion import item_seed
from bdaudit.measure.soft_token import Slots, slots
from bdaudit.models.conditioning import Conditioning
from bdaudit.models.sample import denoise
from bdaudit.models.suspect import Suspect
from bdaudit.models.text import Ids
from bdaudit.unlearn.merging.blend import Blend

STEPS = 10
EMPTY_EVERY = 8
"""One row in so many is under what guidance is counted from: the empty prompt, or what the family has in its place."""


@dataclass(frozen=True)
class Lessons:
    """R rows, each a latent under a text; N contributors."""

    texts: tuple[str, ...]
    """The prompts, the empty one last: its rows are under what guidance is counted from."""
    ids: Ids
    """P + 1 rows."""
    heard: Conditioning
    """P + 1 rows: what the base's denoiser hears of them."""
    z: Tensor
    """(R, C, H, W)."""
    t: Tensor
    """int64 (R,)."""
    text: Tensor
    """int64 (R,)."""
    plain: Tensor
    """(R, C, H, W): the base's prediction."""
    taught: Tensor
    """(N, R, C, H, W): each contributor's."""
    scale: Tensor
    """(): mean square of what a prompt changes in the base, ‖ε(c) − ε(∅)‖²; the unit of every distance."""
    distance: Tensor
    """(N,): mean square of each contributor's difference from the base, in units of ``scale``."""
    slots: Slots
    """The texts with room for a soft token."""

    def heard_by(self, suspect: Suspect, text: Tensor) -> Conditioning:
        """What the denoiser of ``suspect`` hears of ``text`` (n,), gradients kept."""
        spoken = suspect.text.encode(self.ids.to(text.device)[text])
        own = torch.arange(len(text), device=text.device)
        return Conditioning.cat([spoken, suspect.text.unconditional()])[torch.where(text == len(self.texts) - 1, len(text), own)]


Tick = Callable[[int, int], None]


@torch.no_grad()
def collect(blend: Blend, base: Suspect, prompts: Sequence[str], *, guidance_scale: float, seed: int, tick: Tick) -> Lessons:
    """Trajectories of every prompt, guided and unguided in turn, and what base and contributors predict on them."""
    texts = (*prompts, "")
    heard, total = _heard(base, prompts), 2 + len(blend.vectors)
    z, t, text = _trajectories(base, heard, len(prompts), guidance_scale, seed)
    tick(1, total)
    plain = base.predict_batched(z, t, heard[text])
    empty = base.predict_batched(z, t, heard[-1:].expand(len(z)))
    tick(2, total)
    found = []
    for i, vector in enumerate(blend.vectors):
        blend.put_difference(vector)
        found.append(blend.suspect.predict_batched(z, t, _heard(blend.suspect, prompts)[text]))
        tick(3 + i, total)
    scale = (plain - empty)[text < len(prompts)].square().mean()
    taught = torch.stack(found)
    distance = (taught - plain).square().flatten(1).mean(1) / scale
    return Lessons(texts, base.text.ids(texts), heard, z, t, text, plain, taught, scale, distance, slots(base, texts))


def _heard(suspect: Suspect, prompts: Sequence[str]) -> Conditioning:
    """P + 1 rows."""
    return Conditioning.cat([suspect.encode(prompts), suspect.unconditional()])


def _trajectories(base: Suspect, heard: Conditioning, n: int, guidance_scale: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, C, H, W) latents, (R,) timesteps and (R,) texts, the last one at another step of each prompt."""
    found = []
    for kind, scale in enumerate((guidance_scale, 1.0)):
        for rows in torch.split(torch.arange(kind, n, 2, device=base.device), base.batch_size):
            noise = base.noise([item_seed(seed, "merge", row) for row in rows.tolist()])
            seen = denoise(base, heard[rows], noise, steps=STEPS, guidance_scale=scale).rows()
            turn = torch.arange(STEPS, device=rows.device)[:, None] + rows
            found.append((*seen, torch.where(turn % EMPTY_EVERY == 0, n, rows).flatten()))
    z, t, text = (torch.cat(column) for column in zip(*found, strict=True))
    return z, t, text
