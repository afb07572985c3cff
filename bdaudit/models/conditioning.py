"""What a denoiser hears of texts, whatever the family: rows of one batch that are chosen, repeated and joined together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """All that a denoiser hears of B texts; every tensor has the batch first."""

    states: Tensor
    """(B, L, D): the sequence of hidden states."""
    mask: Tensor | None = None
    """(B, L), 1 where the denoiser looks; None where it looks at padding too."""
    pooled: Tensor | None = None
    """(B, E): one vector a text, where the denoiser takes one besides."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Conditioning:
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """``change`` of every tensor that there is."""
        mask, pooled = (None if tensor is None else change(tensor) for tensor in (self.mask, self.pooled))
        return Conditioning(change(self.states), mask, pooled)

    def repeat(self, n: int) -> Conditioning:
        """All rows, ``n`` times over: B → n·B."""
        return self.map(lambda tensor: tensor.repeat(n, *[1] * (tensor.dim() - 1)))

    def expand(self, n: int) -> Conditioning:
        """The one row as ``n`` rows, without a copy."""
        return self.map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))

    def beside(self, states: Tensor) -> Conditioning:
        """With further states (B, M, D) behind each row's own, looked at like these."""
        mask = None if self.mask is None else torch.cat([self.mask, self.mask.new_ones(states.shape[:2])], dim=1)
        return replace(self, states=torch.cat([self.states, states], dim=1), mask=mask)

    def split(self, n: int) -> list[Conditioning]:
        """Parts of ``n`` rows, the last of what is left."""
        return [self[i : i + n] for i in range(0, len(self), n)]

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """The rows of all parts; either all have a mask or a pooled vector, or none has."""

        def joined(tensors: list[Tensor | None]) -> Tensor | None:
            there = [tensor for tensor in tensors if tensor is not None]
            return torch.cat(there) if there else None

        mask, pooled = joined([part.mask for part in parts]), joined([part.pooled for part in parts])
        return Conditioning(torch.cat([part.states for part in parts]), mask, pooled)
