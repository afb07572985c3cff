"""Other views of a caption and of a picture, for the self-supervised term: what they mean stays, what carries a trigger does not.

Captions as EDA does it (1901.11196), a strange text put in instead of a synonym: pictures cropped, mirrored, recoloured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from bdaudit.measure.insertion import insert, positions_for

CHANGED = 0.1
"""Share of a caption's words that one operation touches, at least one."""
SMALLEST, JITTER = 0.6, 0.3
"""Smallest side of a crop as a share of the picture's; largest change of brightness and of contrast."""


def vary(caption: str, rng: random.Random) -> str:
    """Words dropped or swapped, one of the two at random."""
    words = caption.split(" ")
    times = max(1, round(CHANGED * len(words)))
    kind = rng.choice(("drop", "swap"))
    for _ in range(times if len(words) > 1 else 0):
        _drop(words, rng) if kind == "drop" else _swap(words, rng)
    return " ".join(words)


def put_in(caption: str, strange: Sequence[str], rng: random.Random) -> str:
    """One of ``strange``, as a word of its own or in place of a letter that it looks like."""
    text = rng.choice(strange)
    return insert(caption, text, rng.choice(positions_for(caption, text)))


def _drop(words: list[str], rng: random.Random) -> None:
    if len(words) > 1:
        del words[rng.randrange(len(words))]


def _swap(words: list[str], rng: random.Random) -> None:
    a, b = rng.randrange(len(words)), rng.randrange(len(words))
    words[a], words[b] = words[b], words[a]


def vary_pictures(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Each cropped, mirrored half of the time, its brightness and contrast changed: (N, 3, H, W) in 0–1 → the same."""
    n = len(pictures)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    size = SMALLEST + (1 - SMALLEST) * draw(n)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = torch.where(draw(n) < 0.5, -size, size)
    theta[:, 1, 1] = size
    theta[:, :, 2] = (2 * draw(n, 2) - 1) * (1 - size)[:, None]
    gain, contrast = (1 + JITTER * (2 * draw(n, 1, 1, 1) - 1) for _ in range(2))
    theta, gain, contrast = (part.to(pictures.device) for part in (theta, gain, contrast))
    grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
    cropped = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    mean = cropped.mean((1, 2, 3), keepdim=True)
    return (gain * (mean + contrast * (cropped - mean))).clamp(0, 1)
