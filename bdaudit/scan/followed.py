"""The null of a measurement that only what stands out gets: some of the controls went so far, and the others stay below them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bdaudit.records import SignalRecord
from bdaudit.scan.null import FEWEST, Array, Null, Sample, fit
from bdaudit.scan.tiers import FLOOR, Prior, Tier, below, tier
from bdaudit.stats import ExponentialTail


@dataclass(frozen=True)
class Followed:
    """One such measurement."""

    null: Null
    """Of the controls that went so far."""
    tier: Tier
    """Of all."""
    among: ExponentialTail
    """Of those that went so far, alone."""

    def p(self, raw: Array, level: float, kind: str, selected: bool) -> float:
        """Of a text that went so far. One that was not selected as the controls were is beside those alone, which are more suspicious."""
        statistic = self.null.scale.statistic(self.null.scale.standard(raw, level, kind))
        return self.tier.p(statistic) if selected else self.among.p(statistic)

    def signals(self, raw: Array, level: float, kind: str) -> dict[str, SignalRecord]:
        """By name."""
        return records(self.null, raw, self.null.scale.standard(raw, level, kind))


def followed(names: tuple[str, ...], on: Mapping[str, tuple[Array, float, str]], scores: Mapping[str, float], prior: Prior) -> Followed:
    """``on`` has the signals, the level and the kind of the controls that went so far, ``scores`` all controls' before.

    Raises:
        ValueError: too few controls, or no spread.
    """
    raw, levels, kinds = zip(*on.values(), strict=True)
    null = fit(Sample(names, np.array(raw), np.array(levels), tuple(kinds)))
    at = dict(zip(on, null.statistics.tolist(), strict=True))
    found = tier([at.get(text, below(score)) for text, score in scores.items()], prior)
    kept, every = ([score for score in of if score > FLOOR] for of in (found.null, found.scores))
    # outliers stay where too few would be left without them, which makes p larger
    return Followed(null, found, ExponentialTail.fit(kept if len(kept) >= FEWEST else every, prior=prior))


def records(null: Null, raw: Array, standard: Array) -> dict[str, SignalRecord]:
    """Each signal: its value, its standard score, and that one's p."""
    return {
        name: SignalRecord(value=float(value), score=float(score), p=null.tails[name].p(float(score)))
        for name, value, score in zip(null.names, raw, standard, strict=True)
    }
