"""The two towers of a CLIP while they are cleaned: the suspect's text encoder, and a vision tower where there is one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bdaudit.unlearn.clean.losses import MAX_SCALE

WAYS = 32
"""Captions that a picture's own one is told from; chance is 1 in 32."""


@dataclass(frozen=True)
class Vision:
    """A vision tower, and what places the text encoder's pooled state beside its features."""

    visual: Any
    """A module, normalised pictures (B, 3, H, W) → (B, D)."""
    projection: nn.Parameter
    """(W, D), from the text encoder's pooled state."""
    mean: Tensor
    """(1, 3, 1, 1), of the normalisation."""
    std: Tensor


@dataclass
class Towers:
    """What is trained. Without ``vision`` the pooled states themselves are the texts' features."""

    encoder: Any
    eos: int
    """The token at whose first place the pooled state lies."""
    vision: Vision | None = None
    log_scale: nn.Parameter = field(default_factory=lambda: nn.Parameter(torch.tensor(math.log(MAX_SCALE))))
    """ln s of the contrastive loss."""

    def states(self, ids: Tensor) -> Tensor:
        """Hidden states as the denoiser gets them: int64 (B, L) → (B, L, W)."""
        found: Tensor = self.encoder(input_ids=ids).last_hidden_state
        return found.float()

    def texts(self, ids: Tensor, states: Tensor) -> Tensor:
        """Features of texts from their states: (B, L), (B, L, W) → (B, D)."""
        pooled = states[torch.arange(len(ids), device=ids.device), (ids == self.eos).int().argmax(1)]
        return pooled if self.vision is None else pooled @ self.vision.projection

    def pictures(self, pictures: Tensor) -> Tensor:
        """Features of pictures (B, 3, H, W) in 0–1, of the tower's own size: (B, D)."""
        assert self.vision is not None
        found: Tensor = self.vision.visual((pictures - self.vision.mean) / self.vision.std)
        return found.float()

    def parameters(self) -> dict[str, nn.Parameter]:
        """All that training moves, by name; the text encoder's begin with ``text.``."""
        named = {f"text.{name}": p for name, p in self.encoder.named_parameters()}
        if self.vision is not None:
            named |= {f"visual.{name}": p for name, p in self.vision.visual.named_parameters()}
            named |= {"projection": self.vision.projection, "log_scale": self.log_scale}
        return {name: p for name, p in named.items() if p.is_floating_point()}

    def snapshot(self) -> dict[str, Tensor]:
        """Copies of all parameters."""
        return {name: p.detach().clone() for name, p in self.parameters().items()}

    @torch.no_grad()
    def restore(self, kept: dict[str, Tensor]) -> None:
        """Put a snapshot back."""
        for name, p in self.parameters().items():
            p.copy_(kept[name])

    @contextmanager
    def training(self) -> Iterator[None]:
        """Gradients on for the block's length; dropout and running averages stay as in use."""
        try:
            for p in self.parameters().values():
                p.requires_grad = True
            yield
        finally:
            for p in self.parameters().values():
                p.requires_grad, p.grad = False, None


def ranked_first(features: Tensor, texts: Tensor, ways: int = WAYS) -> Tensor:
    """Whether each row's own text is nearer than every other of its group of ``ways``: (N, D) twice → bool (N,).

    N must be a multiple of ``ways``. Where all are alike, as in a collapsed model, none is the nearest.
    """
    a, b = (functional.normalize(x, dim=1).view(-1, ways, x.shape[1]) for x in (features, texts))
    similarity = a @ b.transpose(1, 2)
    own = similarity.diagonal(dim1=1, dim2=2)
    others = similarity.masked_fill(torch.eye(ways, dtype=torch.bool, device=a.device), -2.0).amax(2)
    return (own > others + 1e-6).flatten()
