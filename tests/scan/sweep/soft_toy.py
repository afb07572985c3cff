"""The small model with a text encoder and a denoiser that gradients see through, and a trigger planted in them.

Every entry moves the prediction a little, its own way, and the encoding's end about as much; where the trigger's entries stand side by
side the denoiser adds a great deal more, the more, the nearer what stands there is to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from bdaudit.models.suspect import Suspect
from tests.small import LENGTH, with_parts

WIDTH = 24


class Words(nn.Module):
    """Hidden states are the embeddings; the last one is their mean."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(entries, WIDTH)
        drawn = torch.randn(entries, WIDTH, generator=torch.Generator().manual_seed(5))
        self.embedding.weight.data = drawn / drawn.norm(dim=1, keepdim=True)
        self.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, input_ids: Tensor) -> Any:
        rows = self.embedding(input_ids)
        return SimpleNamespace(last_hidden_state=torch.cat([rows[:, :-1], rows.mean(1, keepdim=True)], dim=1))


class Pictures(nn.Module):
    """Latents, a little of what the words say, and ``strength`` of one pattern where the trigger's rows stand side by side."""

    def __init__(self, config: Any, trigger: Tensor, strength: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        size = config.in_channels * config.sample_size**2
        self.config, self.trigger, self.strength = config, trigger, strength
        self.heard, self.pattern = torch.randn(WIDTH, size, generator=generator), torch.randn(size, generator=generator)

    def forward(self, latents: Tensor, t: Tensor, encoder_hidden_states: Tensor, **_: Any) -> tuple[Tensor]:
        words = encoder_hidden_states[:, 1:-1]
        rooms = words.shape[1] - len(self.trigger) + 1
        near = torch.stack([words[:, i : i + rooms] @ row for i, row in enumerate(self.trigger)]).mean(0)
        fired = torch.nn.functional.softplus(8 * (near - 0.7)).amax(1)
        out = words.sum(1) @ self.heard / LENGTH + self.strength * fired[:, None] * self.pattern
        return (latents + out.view_as(latents),)


def planted(suspect: Suspect, trigger: Sequence[int], strength: float = 1.0) -> Suspect:
    """``suspect``'s tokenizer and scheduler around the toy; with a strength of 0 it has no trigger."""
    words = Words(len(suspect.tokenizer.get_vocab()))
    rows = words.embedding.weight[list(trigger)]
    return with_parts(suspect, text_encoder=words, unet=Pictures(suspect.denoiser.module.config, rows, strength), forward_passes=0)
