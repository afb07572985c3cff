"""Noise schedules: from a model's output to the clean latents, and from one timestep to the next. Knows no model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from bdaudit.errors import BdauditError

_SHIFTS = (1e-3, 100.0)
"""Of a flow, as its config may set them; FLUX.1's largest picture has 25."""


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


@dataclass(frozen=True)
class Flow:
    """Rectified flow (2209.03003), z = (1 − σ) x₀ + σ ε, of which a model says ε − x₀; Euler's step, as ``FlowMatchEulerDiscrete`` has it.

    Timesteps are σ times ``total``, float32. Noise levels are shifted towards noise as in SD 3 (2403.03206, section 5.3.2).
    """

    total: float
    shift: float
    terminal: float = 0.0
    """The last level of a walk, to which all its levels are stretched; 0 where none are."""

    def times(self, steps: int, spacing: float) -> Tensor:
        """As the protocol says: σ = s·u / (1 + (s − 1)·u) of u from 1 down, each apart from the next."""
        shares = (torch.arange(steps, 0, -1, dtype=torch.float64) / steps) ** spacing
        levels = self.shift * shares / (1 + (self.shift - 1) * shares)
        if self.terminal and steps > 1:
            levels = 1 - (1 - levels) * (1 - self.terminal) / (1 - levels[-1])
        return (levels * self.total).float()

    def clean(self, z: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """z − σ (ε − x₀)."""
        return z.float() - self._level(t) * out.float()

    def noised(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(1 − σ) x₀ + σ ε."""
        level = self._level(t)
        return ((1 - level) * x0.float() + level * noise.float()).to(x0.dtype)

    def step(self, z: Tensor, t: Tensor, after: Tensor | None, out: Tensor) -> Tensor:
        """Along the velocity."""
        here = self._level(t)
        there = torch.zeros_like(here) if after is None else self._level(after)
        return (z.float() + (there - here) * out.float()).to(z.dtype)

    def unlike(self, other: Schedule) -> str:
        """Another kind of schedule."""
        return "" if isinstance(other, Flow) else "it has another kind of noise schedule"

    def same(self, other: Schedule) -> bool:
        """As the protocol says; the shift is but where one looks."""
        return isinstance(other, Flow) and self.total == other.total

    def _level(self, t: Tensor) -> Tensor:
        """σ of timesteps (B,): (B, 1, 1, 1)."""
        return (t.float() / self.total).view(-1, 1, 1, 1)


def flow_of(config: Any, tokens: int) -> Flow:
    """The flow of a ``FlowMatchEulerDiscreteScheduler``'s config, of a picture of so many ``tokens``: dynamic shifting grows with them.

    exp(μ) is the shift that the pipelines' ``calculate_shift`` and the scheduler's ``time_shift`` come to; μ itself where it is linear.

    Raises:
        BdauditError: at that size all of its noise levels are all noise, or none, or it has none at all.
    """
    total, shift = float(config.get("num_train_timesteps", 1000)), float(config.get("shift") or 1.0)
    if config.get("use_dynamic_shifting"):
        low, high = (int(config.get(f"{end}_image_seq_len") or usual) for end, usual in (("base", 256), ("max", 4096)))
        least, most = (float(config.get(f"{end}_shift") or usual) for end, usual in (("base", 0.5), ("max", 1.15)))
        mu = least + (most - least) * (tokens - low) / (high - low)
        shift = mu if config.get("time_shift_type") == "linear" else math.exp(min(mu, _SHIFTS[1]))
    if not _SHIFTS[0] <= shift <= _SHIFTS[1]:
        said = f"the scheduler shifts the noise levels of a picture of {tokens:,} tokens by {shift:g}"
        raise BdauditError(f"{said}; expected {_SHIFTS[0]:g} to {_SHIFTS[1]:g}; set what the model was trained with")
    return Flow(total, shift, float(config.get("shift_terminal") or 0.0))
