"""What the verdicts rest on, as a record: the controls, their tails, and what was spent."""

from __future__ import annotations

import math

from bdaudit.measure.draws import smallest_context
from bdaudit.records import Calibration
from bdaudit.scan.look import Looking
from bdaudit.scan.stratum import Stratum
from bdaudit.scan.tiers import FLOOR, Tier

WORDS = "word of the prompts"
"""The kind of a control that means something."""


def calibration(looking: Looking, pool: tuple[str, ...], alpha: float, passes: int, each: int) -> Calibration:
    """``passes`` in all, ``each`` in the mean for a candidate."""
    scores = sorted(-math.log10(p) for p in looking.control_p())
    kinds: dict[str, int] = {}
    for control in looking.controls:
        kinds[control.kind or WORDS] = kinds.get(control.kind or WORDS, 0) + 1
    return Calibration(
        n_controls=len(scores),
        kinds=kinds,
        quantiles={f"{q:g}": scores[min(len(scores) - 1, int(q * len(scores)))] for q in (0.5, 0.9, 0.95, 0.99)},
        tail=_tail(looking),
        alpha=alpha,
        smallest_context=smallest_context(pool, looking.context.draws.prompts),
        forward_passes=passes,
        forward_passes_per_candidate=each,
    )


def _tail(looking: Looking) -> str:
    """The procedure and its figures in words."""
    effort, names = looking.effort, looking.all.steps.centres.names
    loud = f"; far beyond all that is usual, and counted: {', '.join(map(ascii, looking.loud))}" if looking.loud else ""
    nulls = "; ".join(
        f"{whom} beside {_fitted(looking.strata[nothing])}" for nothing, whom in ((False, "words and phrases"), (True, "others"))
    )
    return (
        f"one statistic of {len(names)} signals on {effort.first} to {effort.draws} single steps, of end latents along {effort.paths} "
        f"paths of {effort.steps} steps, and of {effort.context} steps like the two in which a text did most; controls and candidates "
        f"selected alike, exponential predictive tails; {nulls}{loud}"
    )


def _fitted(stratum: Stratum) -> str:
    """``70 controls (single steps: 25 went so far, 14 above 2.1, mean excess 5.3; …)``."""
    names = ("single steps", "all")
    return f"{len(stratum.controls)} controls ({'; '.join(_tier(name, tier) for name, tier in zip(names, stratum.tiers, strict=True))})"


def _tier(name: str, tier: Tier) -> str:
    tail, on = tier.tail, sum(score > FLOOR for score in tier.scores)
    return f"{name}: {on} went so far, {tail.k} above {tail.threshold:.1f}, mean excess {tail.total / tail.k:.1f}"
