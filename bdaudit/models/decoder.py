"""From clean latents to pictures, whatever the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Decoder(Protocol):
    """The part that draws; it hears no text."""

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def module(self) -> torch.nn.Module:
        """With all its weights."""

    def pictures(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 3, pixels, pixels), −1 to 1."""


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder of diffusers, whose latents are scaled."""

    module: Any
    name: str
    shifted: bool = False
    """Whether the pipeline heeds the autoencoder's ``shift_factor``."""

    def pictures(self, latents: Tensor) -> Tensor:
        """In the precision of its weights."""
        config = self.module.config
        scaled = latents / config.scaling_factor + (config.shift_factor or 0.0 if self.shifted else 0.0)
        scaled = scaled.to(self.module.dtype)
        drawn: Tensor = self.module.decode(scaled, return_dict=False)[0]
        return drawn
