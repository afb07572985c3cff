"""The null on the checkpoint at hand: harmless texts give one statistic its parameters and its tail. Numbers in, numbers out.

1. How far a text moves the encoding explains an effect: a straight line through the controls (Theil and Sen's slope) is taken off each
   signal, and the median of the text's own kind. What is explained is bounded: by the controls' 99.5th percentile, and for a text that
   means nothing by that of the controls that mean nothing, so that a backdoor in the text encoder, or a row of it that was blown up, does
   not explain itself away; and no kind is explained by being loud as a kind.
2. Signals are measured in units of the controls' upper tail (harmless words that mean something make it long) and whitened by their
   correlations among the controls. The statistic T is the likelihood-ratio statistic against *larger in some signal, smaller in none*
   (Kudô 1963): the part of the whitened vector that lies in the cone of larger signals, squared.
3. T of normal signals is a mixture of chi-squares, whose tail is nearly exponential; ``tiers`` has the p. Each control is scored by
   parameters that were learned without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from bdaudit.scan.signals import STATES, unit
from bdaudit.stats import ExponentialTail

FEWEST = 25
"""Controls that a null needs."""
FOLDS = 8
"""Parts that the controls are scored in."""
CAP = 0.995
"""Quantile of the controls up to which how far the encoding moves explains an effect."""
SHRINK = 0.2
"""Of the correlations, towards none."""
LEAST = -1.0
"""The least that a standard signal counts as."""
MOST = 1.0
"""How far a kind's own centre may lie above that of all, in units: what is louder as a kind is not explained by being of that kind."""
MEANINGLESS = ("rare", "character", "zero-width", "emoji")
ENOUGH = 8
"""Controls of a kind that give it a centre of its own."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Controls as numbers."""

    names: tuple[str, ...]
    """S signals."""
    raw: Array
    """(N, S)."""
    level: Array
    """(N,): how far each moves the encoding, as a logarithm."""
    kinds: tuple[str, ...]
    """Of each; empty for one that means something, which sets no kind's centre."""

    def at(self, rows: Sequence[int]) -> Sample:
        """Some of them."""
        i = np.array(rows, dtype=np.intp)
        return Sample(self.names, self.raw[i], self.level[i], tuple(self.kinds[j] for j in rows))


@dataclass(frozen=True)
class Scale:
    """What was learned from controls: enough to turn a text's signals into standard ones and into T."""

    span: tuple[float, float]
    """Levels between which an effect is explained."""
    caps: Mapping[str, float]
    """Kind → level up to which an effect of such a text is explained, where that is less."""
    slopes: Array
    """(S,)."""
    kinds: Mapping[str, Array]
    """Kind → (S,): its centre, from that of all."""
    centre: Array
    units: Array
    whitening: Array
    """(S, S): A with AᵀA the inverse of the shrunk correlations."""

    def standard(self, raw: Array, level: float, kind: str) -> Array:
        """(S,): 0 is the median control, 1.64 the 95th percentile; no smaller than ``LEAST``, or a quiet one could make up for others."""
        low, high = self.span
        explained = self.slopes * min(max(level, low), high, self.caps.get(kind, high)) + self.kinds.get(kind, 0.0)
        signals: Array = np.maximum((raw - explained - self.centre) / self.units, LEAST)
        return signals

    def statistic(self, standard: Array) -> float:
        """T: what of the whitened signals lies in the cone where none is smaller, squared; negative where nothing does, by how little.

        A signal by itself is its own statistic: the tail of its square would be a normal one's, and harmless texts have a longer one.
        """
        if len(standard) == 1:
            return float(standard[0])
        b = self.whitening @ standard
        _, left = nnls(self.whitening, b)
        inside = float(b @ b - left * left)
        return inside if inside > 1e-9 * float(b @ b) else -float(left * left)


@dataclass(frozen=True)
class Null:
    """The scale, and the controls' own figures, each scored without itself."""

    names: tuple[str, ...]
    scale: Scale
    statistics: Array
    """(N,)."""
    tails: Mapping[str, ExponentialTail]
    """Of each signal alone."""
    loud: Mapping[str, float]
    """Kind → how far its median lies above that of all, in units, in the signal where it lies furthest."""


def fit(sample: Sample) -> Null:
    """The null of harmless texts.

    Raises:
        ValueError: fewer than ``FEWEST`` controls, a figure that is not finite, or controls without any spread.
    """
    n = len(sample.raw)
    if n < FEWEST:
        raise ValueError(f"got {n} controls; expected at least {FEWEST}")
    if not (np.isfinite(sample.raw).all() and np.isfinite(sample.level).all()):
        raise ValueError("a control's signal is not finite")
    standard, statistics = np.zeros_like(sample.raw), np.zeros(n)
    for fold in range(FOLDS):
        without = learn(sample.at([i for i in range(n) if i % FOLDS != fold]))
        for i in range(fold, n, FOLDS):
            standard[i] = without.standard(sample.raw[i], float(sample.level[i]), sample.kinds[i])
            statistics[i] = without.statistic(standard[i])
    tails = {name: ExponentialTail.fit(standard[:, k]) for k, name in enumerate(sample.names)}
    return Null(sample.names, learn(sample), statistics, tails, _loud(sample))


def _loud(sample: Sample) -> dict[str, float]:
    rows = sample.raw - _explained(sample)[0]
    offsets = kind_offsets(sample.kinds, rows)
    units = unit(rows - np.array([offsets.get(kind, np.zeros(len(sample.names))) for kind in sample.kinds]))
    moved = [name != STATES for name in sample.names]  # what has more words moves the states of others more, whatever it does to a picture
    return {kind: float((offset / units)[moved].max()) for kind, offset in offsets.items()}


def learn(sample: Sample) -> Scale:
    """The parameters alone.

    Raises:
        ValueError: a signal has no spread.
    """
    explained, span, caps, slopes = _explained(sample)
    rows = sample.raw - explained
    kinds = {kind: np.minimum(offset, MOST * unit(rows)) for kind, offset in kind_offsets(sample.kinds, rows).items()}
    rows = rows - np.array([kinds.get(kind, np.zeros(len(slopes))) for kind in sample.kinds])
    units = unit(rows)
    if not (units > 1e-9).all():
        raise ValueError(f"the controls' {sample.names[int(np.argmin(units))]} has no spread")
    centre = np.median(rows, axis=0)
    standard = np.clip((rows - centre) / units, LEAST, 3)
    correlation = (1 - SHRINK) * np.atleast_2d(np.corrcoef(standard.T)) + SHRINK * np.eye(len(slopes))
    return Scale(span, caps, slopes, kinds, centre, units, np.linalg.cholesky(np.linalg.inv(correlation)).T)


def _explained(sample: Sample) -> tuple[Array, tuple[float, float], dict[str, float], Array]:
    """(N, S) of each control what its level explains; the span of levels, the caps by kind, and the slopes (S,)."""
    span = float(np.quantile(sample.level, 1 - CAP)), float(np.quantile(sample.level, CAP))
    caps = _caps(sample)
    level = np.array([min(max(x, span[0]), span[1], caps.get(kind, span[1])) for x, kind in zip(sample.level, sample.kinds, strict=True)])
    slopes = _slopes(sample.names, sample.raw, level)
    return np.outer(level, slopes), span, caps, slopes


def _slopes(names: Sequence[str], rows: Array, level: Array) -> Array:
    """(S,): median slope over all pairs of controls whose levels differ by more than their spread (Theil 1950, Sen 1968).

    0 for the state shift: what moves the other words' states is evidence of its own.
    """
    a, b = np.triu_indices(len(rows), k=1)
    apart = level[a] - level[b]
    far = np.abs(apart) > max(1.4826 * float(np.median(np.abs(level - np.median(level)))), 1e-9)
    if not far.any():
        return np.zeros(rows.shape[1])
    slopes: Array = np.median((rows[a][far] - rows[b][far]) / apart[far][:, None], axis=0)
    return np.where([name == STATES for name in names], 0.0, slopes)


def _caps(sample: Sample) -> dict[str, float]:
    """Of the kinds that mean nothing: no such text moves the encoding as far as a word that means something, unless it was made to."""
    plain = [x for x, kind in zip(sample.level.tolist(), sample.kinds, strict=True) if kind in MEANINGLESS]
    return dict.fromkeys(MEANINGLESS, float(np.quantile(plain, CAP))) if len(plain) >= ENOUGH else {}


def kind_offsets(kinds: Sequence[str], rows: Array) -> dict[str, Array]:
    """Kind → how far its centre is from that of all; for kinds of enough controls."""
    centre = np.median(rows, axis=0)
    members = {kind: [i for i, other in enumerate(kinds) if other == kind] for kind in dict.fromkeys(kinds) if kind}
    return {kind: np.median(rows[of], axis=0) - centre for kind, of in members.items() if len(of) >= ENOUGH}
