"""What the verdicts rest on, as a record: the controls, their tails, and what was spent."""

from __future__ import annotations

import math

from bdaudit.measure.draws import smallest_context
from bdaudit.records import Calibration
from bdaudit.scan.look import TIERS, Looking
from bdaudit.scan.tiers import FLOOR, Tier

WORDS = "word of the prompts"
"""The kind of a control that means something."""


def calibration(looking: Looking, pool: tuple[str, ...], alpha: float, passes: int, each: int, copies: int = 0) -> Calibration:
    """``passes`` in all, ``each`` in the mean for a candidate; ``copies`` were exposed and read."""
    scores = sorted(-math.log10(p) for p in looking.control_p())
    kinds: dict[str, int] = {}
    for control in looking.controls:
        kinds[control.kind or WORDS] = kinds.get(control.kind or WORDS, 0) + 1
    return Calibration(
        n_controls=len(scores),
        kinds=kinds,
        quantiles={f"{q:g}": scores[min(len(scores) - 1, int(q * len(scores)))] for q in (0.5, 0.9, 0.95, 0.99)},
        tail=_tail(looking, copies),
        alpha=alpha,
        smallest_context=smallest_context(pool, looking.context.draws.prompts),
        forward_passes=passes,
        forward_passes_per_candidate=each,
    )


def _tail(looking: Looking, copies: int) -> str:
    """The procedure and its figures in words."""
    effort, draws, names = looking.effort, looking.context.draws, looking.steps.centres.names
    outliers = f"; left out as outliers: {', '.join(map(ascii, looking.outliers))}" if looking.outliers else ""
    beside = f"; with what is left in {copies} exposed copies, the smallest of {copies + 1} p times {copies + 1}" if copies else ""
    return (
        f"{TIERS} times the smallest p of: one statistic of {len(names)} signals on {effort.first} to {len(draws)} single steps "
        f"({_fitted(looking.steps_tier)}), end latents along {effort.paths} paths of {effort.steps} steps "
        f"({_fitted(looking.path_null.tier)}), {effort.context} steps in the context where a text did most "
        f"({_fitted(looking.context_null.tier)}); controls and candidates selected alike, exponential predictive tails{outliers}{beside}"
    )


def _fitted(tier: Tier) -> str:
    tail, on = tier.tail, sum(score > FLOOR for score in tier.null)
    excess = tail.total / tail.k
    return f"{on} of {len(tier.null)} controls went so far; {tail.k} above {tail.threshold:.1f}, mean excess {excess:.1f}"
