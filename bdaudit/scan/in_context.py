"""Texts that do more where they did most than elsewhere, and what harmless texts do there: the null and its p. Numbers in, numbers out.

A trigger that needs a word beside it, or a place of its own, does next to nothing in most draws and all that it can in a few. A word that
means something does it wherever it stands. So this has a p of its own: in one statistic with the shifts themselves, whose tail is as long
as words make it, it would be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bdaudit.records import SignalRecord
from bdaudit.scan.signals import unit
from bdaudit.scan.tiers import CONTEXT_PRIOR, JOINT_SHARE, Tier, below, tier
from bdaudit.stats import ExponentialTail

SIGNAL = "shift in context"


@dataclass(frozen=True)
class InContext:
    """The null, of controls of all kinds."""

    usual: tuple[float, ...]
    """The contrast of each control that went so far."""
    tier: Tier
    """Of all controls: what did not go so far is below what did."""
    among: ExponentialTail
    """Of those that went so far, alone."""

    def p(self, value: float, selected: bool) -> float:
        """The chance that a harmless text does so much more; ``selected`` says whether the text went so far as the controls did."""
        return (self.tier if selected else self.among).p(statistic(value))

    def record(self, value: float) -> SignalRecord:
        """The contrast, in units of the controls', and its p among those that went so far."""
        score = (value - float(np.median(self.usual))) / float(unit(np.array(self.usual)))
        return SignalRecord(value=value, score=score, p=self.among.p(statistic(value)))


def contrast(there: float, elsewhere: float) -> float:
    """How much more a text shifts ``there`` than ``elsewhere``, both logarithms beside the median control's; of one that does something
    wherever it stands, as a share of that, since a word does more here and less there."""
    return (there - elsewhere) / (1 + max(0.0, elsewhere))


def statistic(value: float) -> float:
    """Its square, with its sign: of harmless texts that has an exponential tail."""
    return value * abs(value)


def in_context(on: Mapping[str, float], scores: Mapping[str, float]) -> InContext:
    """``on`` has the contrast of the controls that went so far, ``scores`` all controls' on single steps.

    Raises:
        ValueError: too few controls, or no spread.
    """
    at = {text: statistic(value) for text, value in on.items()}
    found = tier([at.get(text, below(score)) for text, score in scores.items()], CONTEXT_PRIOR, JOINT_SHARE)
    return InContext(tuple(on.values()), found, ExponentialTail.fit(list(at.values()), prior=CONTEXT_PRIOR))
