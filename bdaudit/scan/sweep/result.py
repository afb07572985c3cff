"""How much a sweep keeps, and what comes through it."""

from __future__ import annotations

from dataclasses import dataclass

from bdaudit.records import RoundRecord
from bdaudit.scan.sweep.swept_texts import Probe


@dataclass(frozen=True)
class SweepSizes:
    """What no flag changes."""

    kept: tuple[int, ...] = (96, 48)
    """The least that each round keeps; the last is what is measured in full."""
    kept_of_prompt: tuple[int, ...] = (64, 32)
    """The same of sets of several words of a suspicious prompt."""
    sample: int = 128
    """Texts drawn at random from all that are swept: the null of the later rounds."""
    crowds: int = 256
    """Crowds of second entries that are halved, at least."""
    pairs: int = 64
    """Two-part texts that are measured in full."""


SIZES = SweepSizes()


@dataclass(frozen=True)
class SweepResult:
    """What came through, the most outstanding first."""

    survivors: tuple[Probe, ...]
    rounds: tuple[RoundRecord, ...]
    size: int
    """How many texts were swept."""
    drawn: tuple[Probe, ...] = ()
    """Two-part texts at random, whatever they do, where two-part texts were swept."""
