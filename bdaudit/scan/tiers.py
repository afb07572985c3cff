"""From a statistic to a p where not every text was looked at to the end. Numbers in, numbers out.

Candidates and controls go through the same selection: what scores below a threshold, which the controls alone set, is not looked at
further, and its score stays below that of all that went on. A harmless candidate and the controls are then draws from one distribution of
the *whole* procedure, selection included, so that its rank among them is uniform, whatever the selection was by; in the upper tail
the p is the exact predictive one of ``stats.ExponentialTail``, whose mean excess is shrunk towards what harmless texts have elsewhere.
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
STEPS_PRIOR, JOINT_PRIOR = (20.0, 8.0), (10.0, 4.0)
"""Excesses that the tails are shrunk by, and their mean: on the development models it was 5 to 15, and three to seven."""
CONTEXT_PRIOR = (20.0, 2.5)
"""The same of the square of what a text does more where it did most: 1.8 on the development models, and more at the far end."""
STEPS_SHARE, JOINT_SHARE = 0.2, 0.1
"""Of the controls, that are a tail. Of all that is known of a text, the upper fifth is a mixture: most do next to nothing, and a few in a
hundred move a picture by themselves."""
FEWEST_BEYOND = 5.5
"""Of few controls, so many are a tail at least, up to the larger of these shares."""
MOST, LOUD = 80.0, 15.0
"""Such means that a control's excess counts as at most, and from which it is loud: of harmless texts on clean models one in two hundred is,
the loudest by 300, so that a single one may be nothing but a word that happens to mean something."""

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
    tail: ExponentialTail
    loud: tuple[int, ...]
    """Controls far beyond all that is usual; they count, up to ``MOST``."""

    def p(self, score: float) -> float:
        """The chance that a harmless text scores so."""
        return self.tail.p(score)


def tier(scores: Sequence[float], prior: Prior, share: float = STEPS_SHARE) -> Tier:
    """The tail of the controls' scores, the upper ``share`` of them.

    None is left out: what stands apart among harmless texts does so by itself now and then, and a tail without it would call the next such
    text a trigger. It counts no more than ``MOST``, so that one control that was made loud does not hide all triggers.

    Raises:
        ValueError: too few controls, or a tail without any spread.
    """
    share = max(share, min(STEPS_SHARE, FEWEST_BEYOND / len(scores)))
    first, (_, mean) = ExponentialTail.fit(scores, share, prior), prior
    capped = np.minimum(scores, first.threshold + MOST * mean)
    loud = tuple(i for i, score in enumerate(scores) if score > first.threshold + LOUD * mean)
    return Tier(tuple(scores), ExponentialTail.fit(capped, share, prior), loud)
