"""What ``--effort`` of a scan stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effort = Literal["low", "standard", "high"]


@dataclass(frozen=True)
class Spent:
    """What each text costs, in forward passes."""

    first: int
    """Draws that every text gets."""
    draws: int
    """Draws in all, for what stands out on these."""
    paths: int
    """Paths that a text is followed along, if it stands out at last; no more than all draws."""
    steps: int
    """Steps of a path."""
    context: int
    """Further draws like the two in which such a text did most."""


EFFORTS: dict[Effort, Spent] = {"low": Spent(4, 8, 4, 4, 4), "standard": Spent(8, 16, 8, 4, 6), "high": Spent(8, 32, 16, 6, 12)}
