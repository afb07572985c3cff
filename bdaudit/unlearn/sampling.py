"""What all that a job draws follows from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """Settings of trajectories and pictures."""

    prompts: tuple[str, ...]
    guidance_scale: float
    seed: int
