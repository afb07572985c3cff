"""What is left of a text's effect in an exposed copy, and the chance that so much is left of a harmless text's. Numbers in, numbers out.

The ratio means little where the text does hardly anything in the model itself, and content words, which do much, are what was unlearned.
So a text is compared with the ``NEAREST`` controls whose own effect is about as large, and its score is a robust standard score among
them. The score's p is by the tail of the controls' scores, each left out of its own comparison, as that of every other signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bdaudit.stats import ExponentialTail

NEAREST = 40
FEWEST = 25
"""Controls that the tail needs."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Residual:
    """One text in one exposed copy."""

    left: float
    """ρ = ⟨δ′, δ⟩ / ‖δ‖²: the share of its effect δ on the model itself that is left in the copy; 1 is all of it."""
    level: float
    """log ‖δ‖², in units of what the prompts themselves change."""


@dataclass(frozen=True)
class ResidualNull:
    """The controls, and the tail of their scores."""

    left: Array
    """(N,)."""
    levels: Array
    """(N,)."""
    scale: float
    """Pooled robust scale; no local one falls below half of it."""
    tail: ExponentialTail

    def score(self, residual: Residual) -> float:
        """Robust standard score among the controls with about the same effect."""
        return _score(self.left, self.levels, self.scale, residual)

    def p(self, residual: Residual) -> float:
        """The chance that as much is left of a harmless text with about the same effect."""
        return self.tail.p(self.score(residual))


def fit(controls: Sequence[Residual]) -> ResidualNull:
    """The null of the controls, less those that stand apart from the tail of all others (at most one in eight).

    Raises:
        ValueError: fewer than ``FEWEST`` controls, or controls without any spread.
    """
    if len(controls) < FEWEST:
        raise ValueError(f"got {len(controls)} controls; expected at least {FEWEST}")
    null, scores = _fit_once(controls)
    bad = set(ExponentialTail.stragglers(scores, 1 / (10 * len(controls))))
    if not bad:
        return null
    return _fit_once([control for i, control in enumerate(controls) if i not in bad])[0]


def _fit_once(controls: Sequence[Residual]) -> tuple[ResidualNull, Array]:
    left, levels = (np.array([getattr(control, name) for control in controls]) for name in ("left", "level"))
    scale = float(np.median([_scale(left[near]) for near in (_near(levels, level) for level in levels)]))
    if not np.isfinite(left).all() or scale <= 0:
        raise ValueError("what is left of the controls' effects has no spread")
    others = [np.arange(len(controls)) != i for i in range(len(controls))]
    scores = np.array([_score(left[o], levels[o], scale, control) for o, control in zip(others, controls, strict=True)])
    return ResidualNull(left, levels, scale, ExponentialTail.fit(scores)), scores


def _near(levels: Array, level: float) -> NDArray[np.intp]:
    return np.argsort(np.abs(levels - level), kind="stable")[:NEAREST]


def _scale(values: Array) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _score(left: Array, levels: Array, scale: float, residual: Residual) -> float:
    near = left[_near(levels, residual.level)]
    return float((residual.left - np.median(near)) / max(_scale(near), scale / 2))
