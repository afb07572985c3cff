"""Successive halving: a cheap round over all, a dearer one over what stood out, and what is left is measured in full."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from bdaudit.records import RoundRecord
from bdaudit.scan.context import ScanContext
from bdaudit.scan.sweep.result import SweepResult
from bdaudit.scan.sweep.screen import Round, screen
from bdaudit.scan.sweep.standing import standings
from bdaudit.scan.sweep.swept_texts import Probe

ROUNDS = (Round(draws=2), Round(draws=8))
SHARE = 8
"""A round before the last keeps one in so many, where that is more than the least."""


def halve(context: ScanContext, name: str, probes: Sequence[Probe], kept: Sequence[int], sample: int) -> SweepResult:
    """Screen ``probes`` round by round, whatever their order; ``name`` tells the sweep in progress.

    ``kept`` is the least that each round keeps. In the first round the probes themselves are the null, in the later ones ``sample`` of
    them, drawn at random.
    """
    remaining = sorted(probes, key=lambda probe: (probe.ids, probe.text))
    drawn = random.Random(f"screen {context.seed} {name}").sample(remaining, min(sample, len(remaining)))
    rounds: list[RoundRecord] = []
    for number, (step, least) in enumerate(zip(ROUNDS, kept, strict=True), start=1):
        last = number == len(ROUNDS)
        further = [] if number == 1 else drawn
        values = screen(context, f"{name}-{number}", step, [*remaining, *further])
        null = values[-len(further) :] if further else values
        ranks = standings(values[: len(remaining)], null) if remaining else np.zeros(0)
        best = np.argsort(-ranks, kind="stable")[: least if last else max(least, len(remaining) // SHARE)]
        rounds.append(RoundRecord(texts=len(remaining), passes=len(step.of(context.draws)), kept=len(best)))
        remaining = [remaining[i] for i in (best if last else sorted(best))]
    return SweepResult(tuple(remaining), tuple(rounds), len(probes))
