"""The null on the checkpoint at hand: harmless texts give every signal its scale and every score its p-value.

1. Each signal's value is compared with the controls of the text's own kind: z = (value − median) / scale, the scale being the
   pooled robust one (1.4826 · median absolute deviation from each kind's own median).
2. The z of the deciding signals are combined into one score: their mean.
3. The score's p-value is the control scores' rank, or beyond their upper fifth the exact predictive tail of
   ``stats.ExponentialTail``, which does not depend on the level asked being reachable by counting.
4. A control whose own p, left out of the null, stays below 1/(10 n) is no null: it is left out and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bdaudit.stats import ExponentialTail

Values = Mapping[str, float]
"""A text's signals by name."""

DECIDING = ("noise shift", "common shift", "override")
"""The signals that decide; the others are reported beside them."""


@dataclass(frozen=True)
class Null:
    """Medians by kind and signal, pooled scales by signal, and the tails."""

    centres: Mapping[str, Mapping[str, float]]
    scales: Mapping[str, float]
    tail: ExponentialTail
    signal_tails: Mapping[str, ExponentialTail]
    scores: tuple[float, ...]
    outliers: tuple[str, ...]
    """Controls that behave unlike all others, left out."""

    def z(self, kind: str, values: Values) -> dict[str, float]:
        """Robust standard scores of one text's signals against its kind (against all kinds where its own has no controls)."""
        centre = self.centres.get(kind, self.centres["any"])
        return {name: (values[name] - centre[name]) / self.scales[name] for name in self.scales}

    def score(self, kind: str, values: Values) -> float:
        """The combined score."""
        return combine(self.z(kind, values))

    def p(self, score: float) -> float:
        """The chance of so high a score for a harmless text."""
        return self.tail.p(score)


def combine(z: Values) -> float:
    """Mean of the deciding signals' standard scores."""
    return sum(z[name] for name in DECIDING) / len(DECIDING)


def fit(controls: Sequence[tuple[str, str, Values]]) -> Null:
    """The null of (text, kind, signals) triples; outliers are left out one at a time, the worst first.

    Raises:
        ValueError: fewer than 25 controls, or controls without any spread.
    """
    kept, outliers = list(controls), []
    null = _fit_once(kept, ())
    for _ in range(max(1, len(controls) // 50)):
        worst = max(range(len(kept)), key=lambda i: null.scores[i])
        others = [control for i, control in enumerate(kept) if i != worst]
        without = _fit_once(others, ())
        text, kind, values = kept[worst]
        if without.p(without.score(kind, values)) * 10 * len(kept) >= 1:
            break
        outliers.append(text)
        kept, null = others, without
    return _fit_once(kept, tuple(outliers))


def _fit_once(controls: Sequence[tuple[str, str, Values]], outliers: tuple[str, ...]) -> Null:
    names = list(controls[0][2])
    kinds = sorted({kind for _, kind, _ in controls})
    centres = {kind: {name: median(v[name] for _, k, v in controls if k == kind) for name in names} for kind in kinds}
    centres["any"] = {name: median(v[name] for _, _, v in controls) for name in names}
    scales = {
        name: max(1.4826 * median(abs(v[name] - centres[kind][name]) for _, kind, v in controls), 1e-6) for name in names
    }
    zs = [{name: (v[name] - centres[kind][name]) / scales[name] for name in names} for _, kind, v in controls]
    scores = tuple(combine(z) for z in zs)
    tails = {name: ExponentialTail.fit([z[name] for z in zs]) for name in names}
    return Null(centres, scales, ExponentialTail.fit(scores), tails, scores, outliers)
