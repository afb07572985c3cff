"""Noise schedules: from a model's output to the clean latents, and from one timestep to the next. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


class Schedule(Protocol):
    """What a sampler and a probe ask of a model's noise levels."""

    def times(self, steps: int, spacing: float) -> Tensor:
        """Descending timesteps, the first the noisiest: (steps,). A ``spacing`` of 1 is even, above it they lie closer to the picture."""

    def clean(self, z: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """The clean latents that an output says, float32: (B, C, H, W), (B,), (B, C, H, W) → (B, C, H, W)."""

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Clean latents (B, C, H, W) with ``noise`` of the level at ``t`` (B,): (B, C, H, W)."""

    def step(self, z: Tensor, t: Tensor, after: Tensor | None, out: Tensor) -> Tensor:
        """One deterministic step from ``t`` (B,) to ``after`` (B,), or to the clean latents where that is None."""

    def unlike(self, other: Schedule) -> str:
        """Why outputs of models with these two schedules cannot be exchanged; empty where they can."""

    def same(self, other: Schedule) -> bool:
        """Whether noise levels and prediction are equal."""


@dataclass(frozen=True)
class Alphas:
    """Variance-preserving diffusion, z = √ᾱ x₀ + √(1 − ᾱ) ε, with DDIM's step at η = 0 (2010.02502, equation 12)."""

    table: Tensor
    """float32 (T,): ᾱ by timestep, falling."""
    prediction: Literal["epsilon", "v_prediction"]
    """What the model says: ε (2006.11239), or v (2202.00512)."""

    def times(self, steps: int, spacing: float) -> Tensor:
        """As the protocol says; different ones, int64."""
        total = len(self.table)
        shares = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
        times = (shares**spacing * total).round().long().clamp(1, total) - 1
        return torch.maximum(times, torch.arange(steps - 1, -1, -1)).to(self.table.device)

    def clean(self, z: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """x̂₀ from ε or from v."""
        alpha, z, out = self._level(t), z.float(), out.float()
        if self.prediction == "v_prediction":
            return alpha.sqrt() * z - (1 - alpha).sqrt() * out
        return (z - (1 - alpha).sqrt() * out) / alpha.sqrt()

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """√ᾱ x₀ + √(1 − ᾱ) ε."""
        alpha = self._level(t)
        return (alpha.sqrt() * x0.float() + (1 - alpha).sqrt() * noise.float()).to(x0.dtype)

    def step(self, z: Tensor, t: Tensor, after: Tensor | None, out: Tensor) -> Tensor:
        """DDIM's step."""
        x0 = self.clean(z, t, out)
        if after is None:
            return x0.to(z.dtype)
        alpha, following = self._level(t), self._level(after)
        noise = (z.float() - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return (following.sqrt() * x0 + (1 - following).sqrt() * noise).to(z.dtype)

    def unlike(self, other: Schedule) -> str:
        """Another kind of schedule, or another quantity that is predicted."""
        if not isinstance(other, Alphas):
            return "it has another kind of noise schedule"
        return "" if self.prediction == other.prediction else "it predicts another quantity (epsilon against v)"

    def same(self, other: Schedule) -> bool:
        """As the protocol says."""
        return isinstance(other, Alphas) and self.prediction == other.prediction and torch.equal(self.table, other.table)

    def _level(self, t: Tensor) -> Tensor:
        """ᾱ of timesteps (B,): (B, 1, 1, 1)."""
        return self.table[t].float().view(-1, 1, 1, 1)
