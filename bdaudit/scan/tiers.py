"""From a statistic to a p where not every text was looked at to the end. Numbers in, numbers out.

Candidates and controls go through the same selection: what scores below a threshold, which the controls alone set, is not looked at
further, and its score stays below that of all that went on. A harmless candidate and the controls are then draws from one distribution of
the *whole* procedure, selection included, so that its rank among them is uniform, whatever the selection was by; beyond their upper fifth
the p is the exact predictive tail of ``stats.ExponentialTail``, whose mean excess is shrunk towards what harmless texts have elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdaudit.stats import ExponentialTail

KEPT = 0.3
"""The share of the controls that goes on to the draws that are left; what scores as they do among the candidates goes on too."""
FOLLOWED = 0.25
"""The share of the controls that is followed along whole paths."""
STEPS_PRIOR, PATHS_PRIOR, CONTEXT_PRIOR = (20.0, 8.0), (10.0, 4.0), (10.0, 1.0)
"""Excesses that the tails are shrunk by, and their mean: on the development models it was 5 to 15, 2 to 5, and half to one and a half."""

Array = NDArray[np.float64]
Prior = tuple[float, float]


FLOOR = -1e6
"""No text that went on scores so low."""


def below(score: float) -> float:
    """Where a text stands that was not looked at further: below all that were, in the order of what is known of it."""
    return FLOOR - 1.0 / (2.0 + max(score, -1.0)) if score > FLOOR else score - 1.0


def threshold(scores: Sequence[float], share: float) -> float:
    """The score from which ``share`` of the controls, rounded up, goes on."""
    ranked = sorted(scores, reverse=True)
    return ranked[max(0, min(len(ranked), int(np.ceil(share * len(ranked)))) - 1)]


@dataclass(frozen=True)
class Tier:
    """The scores of all controls at the end of a selection, and what they say of others."""

    scores: tuple[float, ...]
    """In the controls' order; those that did not go on have ``below``."""
    outliers: tuple[int, ...]
    """Controls that stand apart from all others' tail: no null, left out."""
    tail: ExponentialTail

    def p(self, score: float) -> float:
        """The chance that a harmless text scores so."""
        return self.tail.p(score)

    @property
    def null(self) -> list[float]:
        """The scores of the controls that are the null."""
        return [score for i, score in enumerate(self.scores) if i not in self.outliers]


def tier(scores: Sequence[float], prior: Prior) -> Tier:
    """The tail of the controls' scores, those left out that stand apart from it (a forward search, p below 1/(10 n)).

    Raises:
        ValueError: too few controls, or a tail without any spread.
    """
    outliers = tuple(ExponentialTail.stragglers(scores, 1 / (10 * len(scores))))
    kept = [score for i, score in enumerate(scores) if i not in outliers]
    return Tier(tuple(scores), outliers, ExponentialTail.fit(kept, prior=prior))
