"""The null on the checkpoint at hand: harmless texts give every signal its scale and every text its p-value.

1. A signal at a position is centred on the median of the controls of the text's own kind at that position.
2. It is then compared with the ``NEAREST`` controls, of any kind, that move the text encoding about as far (2503.06453 divides
   by that movement; here it picks the comparison, so that neither a slope nor an equal spread has to be assumed):
   z = (value − their median) / (1.4826 · their median absolute deviation). The prompts' own words are controls as well, so that a
   word that means something is compared with words that mean something. A text's z is that of its strongest position.
3. Each deciding signal's p is the rank among the controls' own z (each left out of its own comparison), or beyond their upper
   fifth the exact predictive tail of ``stats.ExponentialTail``.
4. The text's p is the smallest of the deciding signals' times their number (Bonferroni: valid however they depend on each other).
5. A control whose own p, left out of the null, stays below 1/(10 n) is no null: it is left out and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdaudit.measure.signals import Values
from bdaudit.stats import ExponentialTail

DECIDING = ("noise shift", "common shift", "override")
"""The signals that decide; the others are reported beside them."""
LEVEL = "state shift"
"""What a comparison is matched by."""
NEAREST = 40

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Control:
    """A harmless text; ``meaning`` marks one of the prompts' own words, which sets no kind's centre."""

    text: str
    kind: str
    values: Values
    meaning: bool = False


@dataclass(frozen=True)
class Null:
    """Medians by kind and position, the controls' centred signals, and the tails."""

    names: tuple[str, ...]
    centres: Mapping[tuple[str, str], Array]
    """(kind, position) → (S,)."""
    owners: tuple[int, ...]
    """Which control each row belongs to."""
    rows: Array
    """(R, S): centred signals, a row for each control and position."""
    scales: Array
    """(S,): pooled robust scales; no local scale falls below half of them."""
    tails: Mapping[str, ExponentialTail]
    p_values: tuple[float, ...]
    """Of the controls, each compared with the others."""
    outliers: tuple[str, ...] = ()
    """Controls that behave unlike all others, left out."""

    def z(self, kind: str, values: Values) -> dict[str, float]:
        """Every signal's local standard score at its strongest position."""
        return dict(zip(self.names, _strongest(self, kind, values, None).tolist(), strict=True))

    def p(self, z: Mapping[str, float]) -> float:
        """The chance that a harmless text has so extreme a deciding signal."""
        return min(1.0, len(DECIDING) * min(self.tails[name].p(z[name]) for name in DECIDING))


def fit(controls: Sequence[Control]) -> Null:
    """The null of harmless texts; outliers are left out one at a time, the worst first, at most one in fifty.

    Raises:
        ValueError: fewer than 25 controls, or controls without any spread.
    """
    kept, outliers = list(controls), []
    null = _fit_once(kept)
    for _ in range(max(1, len(controls) // 50)):
        worst = int(np.argmin(null.p_values))
        others = kept[:worst] + kept[worst + 1 :]
        without = _fit_once(others)
        if without.p(without.z(kept[worst].kind, kept[worst].values)) * 10 * len(kept) >= 1:
            break
        outliers.append(kept[worst].text)
        kept, null = others, without
    return Null(**{**null.__dict__, "outliers": tuple(outliers)})


def _fit_once(controls: Sequence[Control]) -> Null:
    names = tuple(next(iter(controls[0].values.values())))
    centres = _centres(controls, names)
    owners = tuple(i for i, control in enumerate(controls) for _ in control.values)
    rows = np.array([
        np.array([signals[name] for name in names]) - _centre(centres, control.kind, place)
        for control in controls
        for place, signals in control.values.items()
    ])  # fmt: skip
    scales = np.maximum(1.4826 * np.median(np.abs(rows), axis=0), 1e-9)
    bare = Null(names, centres, owners, rows, scales, {}, ())
    z = np.array([_strongest(bare, control.kind, control.values, i) for i, control in enumerate(controls)])
    tails = {name: ExponentialTail.fit(z[:, k]) for k, name in enumerate(names)}
    whole = Null(names, centres, owners, rows, scales, tails, ())
    return Null(names, centres, owners, rows, scales, tails, tuple(whole.p(dict(zip(names, row, strict=True))) for row in z.tolist()))


def _centres(controls: Sequence[Control], names: Sequence[str]) -> dict[tuple[str, str], Array]:
    found: dict[tuple[str, str], list[list[float]]] = {}
    for control in controls:
        for place, signals in control.values.items():
            row = [signals[name] for name in names]
            keys = [("any", place), ("any", "any")] if control.meaning else [(control.kind, place), ("any", place), ("any", "any")]
            for key in keys:
                found.setdefault(key, []).append(row)
    return {key: np.median(np.array(rows), axis=0) for key, rows in found.items()}


def _centre(centres: Mapping[tuple[str, str], Array], kind: str, place: str) -> Array:
    """The kind's at this position, else all kinds' there, else all."""
    return next(centres[key] for key in ((kind, place), ("any", place), ("any", "any")) if key in centres)


def _strongest(null: Null, kind: str, values: Values, leave_out: int | None) -> Array:
    """(S,): the largest local score over positions; ``leave_out`` is the control that is not to be compared with itself."""
    others = np.array([owner != leave_out for owner in null.owners])
    rows, level = null.rows[others], null.names.index(LEVEL)
    best = np.full(len(null.names), -np.inf)
    for place, signals in values.items():
        centred = np.array([signals[name] for name in null.names]) - _centre(null.centres, kind, place)
        near = np.argsort(np.abs(rows[:, level] - centred[level]), kind="stable")[:NEAREST]
        middle = np.median(rows[near], axis=0)
        scale = np.maximum(1.4826 * np.median(np.abs(rows[near] - middle), axis=0), null.scales / 2)
        score = (centred - middle) / scale
        score[level] = centred[level] / null.scales[level]  # what the comparison is matched by cannot be local to it
        best = np.maximum(best, score)
    return best
