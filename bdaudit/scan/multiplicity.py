"""Which candidates are judged together: one group a source, and p-values adjusted for all that the source went through.

A text that a screen left out was not measured; it gets p = 1, which is no smaller than the p it would have had. Every text of the group
therefore has a p that is valid or too large, whatever the screen chose by, and Holm's adjustment over the whole group holds without a
word about how the survivors were picked. Between groups the chance of an error is shared out evenly (Bonferroni).

The adjustment rests on the controls' tail, carried far beyond the controls where tens of thousands of texts were swept. A swept text must
therefore also stand out, by one of its scores, among those that came through with it: they are the most extreme of all that were swept,
and the tail of *their* scores needs no extrapolation. This is a net under the first p-value, not a second test; the larger of the two
counts. Among two-part texts a trigger has many kin that come through ("still photos" beside "still research"), which would hide each
other; there the net is the tail of pairs that were drawn at random from all that were swept, and measured in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdaudit import many_tests
from bdaudit.records import RecoveryRecord, SweepRecord
from bdaudit.stats import ExponentialTail

APART = 8
"""Survivors of a sweep that may be triggers, or near ones, without hiding each other."""
FEWEST, FEWEST_DRAWN = 16, 32
"""Survivors from which their own tail can be told, and texts drawn at random from which theirs can."""

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


def adjusted(p: Mapping[str, float], groups: Sequence[CandidateGroup], scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Text → p adjusted over its group's ``size`` by Holm, and for the number of groups. The first group that has a text judges it.

    ``scores`` has the deciding signals' scores of each text, and of those that were drawn, in one order for all.

    Raises:
        ValueError: a group smaller than its texts, or a p of no group.
    """
    unjudged, result = dict(p), dict[str, float]()
    for group in groups:
        members = {text: unjudged.pop(text) for text in dict.fromkeys(group.texts) if text in unjudged}
        if group.size < len(members):
            raise ValueError(f"{group.name}: {len(members)} texts of a group of {group.size}")
        holm = many_tests.holm(np.array(list(members.values())), group.size) * len(groups)
        steps = np.minimum(np.maximum(holm, _net(group, list(members), scores)), 1.0)
        result |= dict(zip(members, steps.tolist(), strict=True))
    if unjudged:
        raise ValueError(f"{len(unjudged)} texts are in no group, {next(iter(unjudged))!r} first")
    return result


def _net(group: CandidateGroup, texts: Sequence[str], scores: Mapping[str, Sequence[float]]) -> Array:
    """(N,): how many of the swept texts would score like each by chance, by its most outstanding signal; 0 where that is not told."""
    rows = [np.zeros(len(texts))]
    columns = np.array([scores[text] for text in texts]).T if texts and group.record is not None else ()
    if len(group.drawn) >= FEWEST_DRAWN:
        drawn = np.array([scores[text] for text in group.drawn]).T
        rows = [beyond(column, others, group.size) for column, others in zip(columns, drawn, strict=True)] or rows
    elif len(texts) >= FEWEST:
        rows = [outstanding(column) for column in columns] or rows
    net: Array = np.min(rows, axis=0)
    return net


def outstanding(scores: Array) -> Array:
    """How many of a sweep's survivors would score like each by chance, at most 1; the controls have no part in it.

    The top ``APART`` may be triggers, so the rest alone give the tail: by Rényi's representation the spacings j·(x₍ⱼ₎ − x₍ⱼ₊₁₎) of an
    exponential tail's largest values are independent, with the tail's scale as their mean.
    """
    ranked = np.sort(scores)[::-1]
    top = min(APART, len(scores) // 4)
    places = np.arange(top + 1, len(scores))
    total = float((places * (ranked[top:-1] - ranked[top + 1 :])).sum())
    beyond = np.maximum(scores - ranked[top], 0.0)
    if total <= 0:
        return np.where(beyond > 0, 0.0, 1.0)
    expected: Array = (top + 1) * (1 + beyond / total) ** -float(len(places))
    return np.minimum(1.0, expected)


def beyond(scores: Array, drawn: Array, size: int) -> Array:
    """How many of ``size`` swept texts would score like each by chance, at most 1, by the tail of those drawn at random from them."""
    stragglers = ExponentialTail.stragglers(drawn, 1 / (10 * len(drawn)))
    tail = ExponentialTail.fit(np.delete(drawn, stragglers))
    expected: Array = size * np.array([tail.p(score) for score in scores])
    return np.minimum(1.0, expected)
