"""The null on the checkpoint at hand: harmless texts give every signal its scale and every text its p-value.

1. A signal at a position is centred on the median of the controls of the text's own kind at that position.
2. What the text encoding's own movement explains is taken off by a straight line through all controls (Theil and Sen's slope), and
   the rest is compared with the ``NEAREST`` controls, of any kind, that move the text encoding about as far (2503.06453 divides
   by that movement; here nothing is assumed of how the effect curves with it). The prompts' own words are controls as well, so
   that a word that means something is compared with words that mean something.
3. A deciding signal's score is the ratio exp((value − their median) / 2): how many times as far as those controls the text goes, the
   signals being logarithms of squares. The others' is a robust standard score. A text's score is that of its strongest position.
4. A score's p is its rank among the controls' own (each left out of its own comparison), or beyond their upper fifth the exact
   predictive tail of ``stats.ExponentialTail``. Ratios of harmless texts are about log-normal; up to a spread of 0.8 of their
   logarithm that tail is conservative for them.
5. The text's p is the smallest of the deciding signals' times their number (Bonferroni: valid however they depend on each other). A
   signal that is rare but small has p = 1, which can only make the text's p larger.
6. A control that stands apart from the others' tail (p below 1/(10 n), by a forward search) is no null: it is a trigger's
   neighbour, or a trigger, and is left out and reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bdaudit.records import DECIDING
from bdaudit.stats import ExponentialTail

if TYPE_CHECKING:
    from bdaudit.measure.signals import Values

LEVEL = "state shift"
"""What a comparison is matched by."""
NEAREST = 40
FEWEST = 25
"""What the tails need."""
LEAST = {"override": math.sqrt(2)}
"""The score below which a signal is small, however rare among the controls: an override takes half of the prompts' differences away."""

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
    """(R, S): centred signals less the line, a row for each control and position."""
    slopes: Array
    """(S,): of each signal on the level; 0 for the level itself."""
    scales: Array
    """(S,): pooled robust scales; no local scale falls below half of them."""
    tails: Mapping[str, ExponentialTail]
    scores: tuple[tuple[float, ...], ...]
    """Of the controls, each compared with the others: a row a control, a column a signal."""
    outliers: tuple[str, ...] = ()
    """Controls that behave unlike all others, left out."""

    def score(self, kind: str, values: Values) -> dict[str, float]:
        """Every signal's score at its strongest position: a ratio for the deciding ones, standard scores for the others."""
        return dict(zip(self.names, _strongest(self, kind, values, None).tolist(), strict=True))

    def p(self, scores: Mapping[str, float], further: Sequence[float] = ()) -> float:
        """The chance that a harmless text has so extreme a deciding signal; ``further`` are the p of other signals that decide as well."""
        each = [*(self.tails[name].p(scores[name]) if scores[name] >= LEAST.get(name, 0.0) else 1.0 for name in DECIDING), *further]
        return min(1.0, len(each) * min(each))


def fit(controls: Sequence[Control]) -> Null:
    """The null of harmless texts, those left out that stand apart from all others (at most one in eight by each deciding signal).

    Raises:
        ValueError: fewer than ``FEWEST`` controls, a signal that is not finite, or controls without any spread.
    """
    if len(controls) < FEWEST:
        raise ValueError(f"got {len(controls)} controls; expected at least {FEWEST}")
    if not all(math.isfinite(x) for control in controls for signals in control.values.values() for x in signals.values()):
        raise ValueError("a control's signal is not finite")
    everything = _fit_once(controls)
    level = 1 / (10 * len(controls) * len(DECIDING))
    columns = [[row[everything.names.index(name)] for row in everything.scores] for name in DECIDING]
    bad = {i for column in columns for i in ExponentialTail.stragglers(column, level)}
    if not bad or len(controls) - len(bad) < FEWEST:
        return everything
    null = _fit_once([control for i, control in enumerate(controls) if i not in bad])
    return replace(null, outliers=tuple(controls[i].text for i in sorted(bad)))


def _fit_once(controls: Sequence[Control]) -> Null:
    names = tuple(next(iter(controls[0].values.values())))
    centres = _centres(controls, names)
    owners = tuple(i for i, control in enumerate(controls) for _ in control.values)
    rows = np.array([
        np.array([signals[name] for name in names]) - _centre(centres, control.kind, place)
        for control in controls
        for place, signals in control.values.items()
    ])  # fmt: skip
    slopes = _slopes(rows, names.index(LEVEL))
    rows = rows - np.outer(rows[:, names.index(LEVEL)], slopes)
    scales = np.maximum(1.4826 * np.median(np.abs(rows), axis=0), 1e-9)
    bare = Null(names, centres, owners, rows, slopes, scales, {}, ())
    scores = np.array([_strongest(bare, control.kind, control.values, i) for i, control in enumerate(controls)])
    tails = {name: ExponentialTail.fit(scores[:, k]) for k, name in enumerate(names)}
    return replace(bare, tails=tails, scores=tuple(map(tuple, scores.tolist())))


def _slopes(rows: Array, level: int) -> Array:
    """(S,): median slope over all pairs of rows whose levels differ by more than their scale (Theil 1950, Sen 1968)."""
    a, b = np.triu_indices(len(rows), k=1)
    apart = rows[a, level] - rows[b, level]
    far = np.abs(apart) > max(1.4826 * float(np.median(np.abs(rows[:, level]))), 1e-9)
    if not far.any():
        return np.zeros(rows.shape[1])
    slopes = np.array([np.median((column[a[far]] - column[b[far]]) / apart[far]) for column in rows.T])
    slopes[level] = 0.0
    return slopes


def _centres(controls: Sequence[Control], names: Sequence[str]) -> dict[tuple[str, str], Array]:
    by_key: dict[tuple[str, str], list[list[float]]] = {}
    for control in controls:
        for place, signals in control.values.items():
            row = [signals[name] for name in names]
            keys = [("any", place), ("any", "any")] if control.meaning else [(control.kind, place), ("any", place), ("any", "any")]
            for key in keys:
                by_key.setdefault(key, []).append(row)
    return {key: np.median(np.array(rows), axis=0) for key, rows in by_key.items()}


def _centre(centres: Mapping[tuple[str, str], Array], kind: str, place: str) -> Array:
    """The kind's at this position, else all kinds' there, else all."""
    return next(centres[key] for key in ((kind, place), ("any", place), ("any", "any")) if key in centres)


def _strongest(null: Null, kind: str, values: Values, leave_out: int | None) -> Array:
    """(S,): the largest score over positions; ``leave_out`` is the control that is not to be compared with itself."""
    others = np.array([owner != leave_out for owner in null.owners])
    rows, level = null.rows[others], null.names.index(LEVEL)
    decides = np.isin(null.names, DECIDING)
    best = np.full(len(null.names), -np.inf)
    for place, signals in values.items():
        centred = np.array([signals[name] for name in null.names]) - _centre(null.centres, kind, place)
        centred = centred - null.slopes * centred[level]
        near = np.argsort(np.abs(rows[:, level] - centred[level]), kind="stable")[:NEAREST]
        middle = np.median(rows[near], axis=0)
        standard = (centred - middle) / np.maximum(1.4826 * np.median(np.abs(rows[near] - middle), axis=0), null.scales / 2)
        standard[level] = centred[level] / null.scales[level]  # what the comparison is matched by cannot be local to it
        score = np.where(decides, np.exp(np.minimum((centred - middle) / 2, 50.0)), standard)
        best = np.maximum(best, score)
    return best
