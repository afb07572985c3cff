"""Texts that stand out at last: whole paths and their own context beside the single steps, one statistic of all, and its p.

Each part is counted in units of what its upper tail is like on harmless texts, so that their sum is a log-likelihood ratio's: what is
seen in all three counts more than what is seen in one, and no p is paid for more than once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bdaudit.records import SignalRecord
from bdaudit.scan.null import LEAST, Array, Null, Sample, fit
from bdaudit.scan.signals import CONTEXT_SIGNALS, PATH_SIGNALS
from bdaudit.scan.tiers import JOINT_PRIOR, JOINT_SHARE, Tier, below, tier
from bdaudit.stats import ExponentialTail

TAILS = (8.0, 4.0, 1.0)
"""Mean excess of the statistic of single steps, of paths and of a context: on the development models 5 to 15, 2 to 5, a half to 1.5."""


@dataclass(frozen=True)
class Reached:
    """One text that went so far."""

    steps: float
    """Its statistic of single steps."""
    paths: Array
    contexts: Array
    level: float
    kind: str


@dataclass(frozen=True)
class Followed:
    """The null of those that went so far."""

    paths: Null
    contexts: Null
    tier: Tier
    """Of all controls: what did not go so far is below what did."""
    among: ExponentialTail
    """Of those that went so far, alone."""

    def p(self, text: Reached, selected: bool) -> float:
        """One that was not selected as the controls were is beside those alone, which are more suspicious."""
        return self.tier.p(self.score(text)) if selected else self.among.p(self.score(replace(text, steps=LEAST)))

    def score(self, text: Reached) -> float:
        """The statistic of all that was measured of it."""
        parts = zip((self.paths, self.contexts), (text.paths, text.contexts), strict=True)
        return joint(text.steps, *(null.scale.statistic(null.scale.standard(raw, text.level, text.kind)) for null, raw in parts))

    def signals(self, text: Reached) -> dict[str, SignalRecord]:
        """By name."""
        found = dict[str, SignalRecord]()
        for null, raw in ((self.paths, text.paths), (self.contexts, text.contexts)):
            found |= records(null, raw, null.scale.standard(raw, text.level, text.kind))
        return found


def joint(*parts: float) -> float:
    """One statistic of those of single steps, paths and a context."""
    return sum(max(part, LEAST) / mean for part, mean in zip(parts, TAILS, strict=True))


def followed(on: Mapping[str, Reached], scores: Mapping[str, float]) -> Followed:
    """``on`` are the controls that went so far, ``scores`` all controls' on single steps.

    Raises:
        ValueError: too few controls, or no spread.
    """
    levels, kinds = np.array([one.level for one in on.values()]), tuple(one.kind for one in on.values())
    paths = fit(Sample(PATH_SIGNALS, np.array([one.paths for one in on.values()]), levels, kinds))
    contexts = fit(Sample(CONTEXT_SIGNALS, np.array([one.contexts for one in on.values()]), levels, kinds))
    parts = zip((one.steps for one in on.values()), paths.statistics.tolist(), contexts.statistics.tolist(), strict=True)
    at = dict(zip(on, (joint(*each) for each in parts), strict=True))
    found = tier([at.get(text, below(score)) for text, score in scores.items()], JOINT_PRIOR, JOINT_SHARE)
    return Followed(paths, contexts, found, ExponentialTail.fit(list(at.values()), prior=JOINT_PRIOR))


def records(null: Null, raw: Array, standard: Sequence[float] | Array) -> dict[str, SignalRecord]:
    """Each signal: its value, its standard score, and that one's p."""
    return {
        name: SignalRecord(value=float(value), score=float(score), p=null.tails[name].p(float(score)))
        for name, value, score in zip(null.names, raw, standard, strict=True)
    }
