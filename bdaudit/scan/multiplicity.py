"""Which candidates are judged together: one group a source, and p-values adjusted for all that the source went through.

A text that a screen left out was not measured; it gets p = 1, which is no smaller than the p it would have had. Every text of the group
therefore has a p that is valid or too large, whatever the screen chose by, and Holm's adjustment over the whole group holds without a
word about how the survivors were picked. Between groups the chance of an error is shared out evenly (Bonferroni).

Of a sweep's texts the controls' tail says little: carried on to one in a million it is nothing but its formula, and what a vocabulary does
at its loudest no hundred controls have. A swept text is told from what came through the sweep with it: those are the most extreme of all
that were swept, and their own tail says how many of them would do as much by chance. Besides, its p, as it is, says that it does more than
harmless texts; the larger of the two counts. Where too few came through, the p are adjusted as a list's are.

Among two-part texts a trigger has many kin that come through ("still photos" beside "still research"), which would hide each other; there
the tail is that of pairs which were drawn at random from all that were swept, and measured alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdaudit import many_tests
from bdaudit.records import RecoveryRecord, SweepRecord
from bdaudit.scan.tiers import JOINT_PRIOR, JOINT_SHARE, tier

APART = 8
"""Survivors of a sweep that may be triggers, or near ones, without hiding each other; of few a quarter, if that is less."""
FEWEST, FEWEST_DRAWN = 16, 32
"""Survivors from which their own tail can be told, and texts drawn at random from which theirs can."""
LEAST = 1.0
"""What a joint statistic counts as at the least."""
TAIL_PRIOR = (4.0, 0.5)
"""Excesses that this tail is shrunk by, and their mean. Harmless texts' joint statistic has a power's tail, so that its logarithm has an
exponential one; among controls its mean excess was a half or so."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CandidateGroup:
    """A source's candidates."""

    name: str
    texts: tuple[str, ...]
    """Those to measure in full."""
    size: int
    """How many could have been among them; at least as many as there are texts."""
    record: SweepRecord | None = None
    """What the sweep did, where there was one."""
    recovery: RecoveryRecord | None = None
    """What the search found beside texts, where there was one."""
    drawn: tuple[str, ...] = ()
    """Texts drawn at random from all that were swept, to be measured in full beside the survivors."""


def adjusted(p: Mapping[str, float], groups: Sequence[CandidateGroup], joint: Mapping[str, float | None]) -> dict[str, float]:
    """Text → p adjusted over its group, and for the number of groups. The first group that has a text judges it.

    ``joint`` has the statistic of all that was measured of a text, None where it was not followed so far.

    Raises:
        ValueError: a group smaller than its texts, or a p of no group.
    """
    unjudged, result = dict(p), dict[str, float]()
    for group in groups:
        members = {text: unjudged.pop(text) for text in dict.fromkeys(group.texts) if text in unjudged}
        if group.size < len(members):
            raise ValueError(f"{group.name}: {len(members)} texts of a group of {group.size}")
        values, net = np.array(list(members.values())), _net(group, list(members), joint)
        steps = (many_tests.holm(values, group.size) if net is None else np.maximum(values, net)) * len(groups)
        result |= dict(zip(members, np.minimum(steps, 1.0).tolist(), strict=True))
    if unjudged:
        raise ValueError(f"{len(unjudged)} texts are in no group, {next(iter(unjudged))!r} first")
    return result


def _net(group: CandidateGroup, texts: Sequence[str], joint: Mapping[str, float | None]) -> Array | None:
    """(N,): how many of the swept texts would do as much as each by chance, at most 1; None where that is not told."""
    if group.record is None or not texts:
        return None
    of = {text: max(joint[text] or 0.0, LEAST) for text in (*texts, *group.drawn)}
    if len(group.drawn) >= FEWEST_DRAWN and max(of[text] for text in group.drawn) > LEAST:
        return beyond(np.array([of[text] for text in texts]), [of[text] for text in group.drawn], group.size)
    if len(texts) >= FEWEST and not group.drawn:
        logs = np.log([of[text] for text in texts])
        return np.array([expected(score, logs) for score in logs])
    return None


def beyond(scores: Array, drawn: Sequence[float], size: int) -> Array:
    """How many of ``size`` swept texts would score like each by chance, at most 1, by the tail of those drawn at random from them."""
    tail = tier(drawn, JOINT_PRIOR, JOINT_SHARE)
    found: Array = np.minimum(1.0, size * np.array([tail.p(score) for score in scores]))
    return found


def expected(score: float, survivors: Sequence[float] | Array) -> float:
    """How many of a sweep's texts would score so by chance, at most 1, by those that came through; scores are logarithms, nought the least.

    The first of them may be triggers, so the next ones give the tail, down to the median of what came through: by Rényi's representation
    the spacings j·(x₍ⱼ₎ − x₍ⱼ₊₁₎) of an exponential tail's largest values are independent, with the tail's scale as their mean.
    """
    ranked = np.sort(survivors)[::-1][: len(survivors) // 2]
    top = min(APART, len(ranked) // 2)
    places = np.arange(top + 1, len(ranked))
    of, mean = TAIL_PRIOR
    total = float((places * (ranked[top:-1] - ranked[top + 1 :])).sum()) + of * mean
    return float(min(1.0, (top + 1) * (1 + max(0.0, score - ranked[top]) / total) ** -(len(places) + of)))
