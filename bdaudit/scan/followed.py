"""Texts that stand out at last: whole paths beside the single steps, one statistic of both, and its p.

Each part is counted in units of what its upper tail is like on harmless texts, so that their sum is a log-likelihood ratio's: what is
seen in both counts more than what is seen in one, and no p is paid for more than once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bdaudit.records import SignalRecord
from bdaudit.scan.null import LEAST, Array, Null, Sample, fit
from bdaudit.scan.signals import PATH_SIGNALS
from bdaudit.scan.tiers import JOINT_PRIOR, JOINT_SHARE, Tier, below, tier
from bdaudit.stats import ExponentialTail

TAILS = (8.0, 4.0)
"""Mean excess of the statistic of single steps and of paths: on the development models 5 to 15, and 2 to 5."""


@dataclass(frozen=True)
class Reached:
    """One text that went so far."""

    steps: float
    """Its statistic of single steps."""
    paths: Array
    level: float
    kind: str


@dataclass(frozen=True)
class Followed:
    """The null of those that went so far."""

    paths: Null
    tier: Tier
    """Of all controls: what did not go so far is below what did."""
    among: ExponentialTail
    """Of those that went so far, alone."""

    def p(self, text: Reached, selected: bool) -> float:
        """One that was not selected as the controls were is beside those alone, which are more suspicious."""
        return self.tier.p(self.score(text)) if selected else self.among.p(self.score(replace(text, steps=LEAST)))

    def score(self, text: Reached) -> float:
        """The statistic of all that was measured of it."""
        scale = self.paths.scale
        return joint(text.steps, scale.statistic(scale.standard(text.paths, text.level, text.kind)))

    def signals(self, text: Reached) -> dict[str, SignalRecord]:
        """By name."""
        return records(self.paths, text.paths, self.paths.scale.standard(text.paths, text.level, text.kind))


def joint(*parts: float) -> float:
    """One statistic of those of single steps and paths."""
    return sum(max(part, LEAST) / mean for part, mean in zip(parts, TAILS, strict=True))


def followed(on: Mapping[str, Reached], scores: Mapping[str, float]) -> Followed:
    """``on`` are the controls that went so far, ``scores`` all controls' on single steps.

    Raises:
        ValueError: too few controls, or no spread.
    """
    levels, kinds = np.array([one.level for one in on.values()]), tuple(one.kind for one in on.values())
    paths = fit(Sample(PATH_SIGNALS, np.array([one.paths for one in on.values()]), levels, kinds))
    parts = zip((one.steps for one in on.values()), paths.statistics.tolist(), strict=True)
    at = dict(zip(on, (joint(*each) for each in parts), strict=True))
    found = tier([at.get(text, below(score)) for text, score in scores.items()], JOINT_PRIOR, JOINT_SHARE)
    return Followed(paths, found, ExponentialTail.fit(list(at.values()), prior=JOINT_PRIOR))


def records(null: Null, raw: Array, standard: Sequence[float] | Array) -> dict[str, SignalRecord]:
    """Each signal: its value, its standard score, and that one's p."""
    return {
        name: SignalRecord(value=float(value), score=float(score), p=null.tails[name].p(float(score)))
        for name, value, score in zip(null.names, raw, standard, strict=True)
    }
