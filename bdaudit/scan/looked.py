"""What a scan found of one text, before it is judged beside others. No model, no device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bdaudit.records import SignalRecord

Depth = Literal["screened", "measured", "followed"]


@dataclass(frozen=True)
class Look:
    """What was found of one text."""

    depth: Depth
    score: float
    """The statistic of single steps on all draws, or where a text stands that was only screened."""
    joint: float | None
    """That of single steps and paths, of a text that was followed."""
    p: float
    signals: Mapping[str, SignalRecord]
    effect: float
    """How many times as far as the median control it moves the prediction."""
    encoded: float
    """p of how far it moves the prompt's other words in the encoding."""
    truncated: bool = False
    """Whether a prompt was cut off."""
